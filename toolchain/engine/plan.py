"""Checks a plan before it is run: its digest, and the machine that it was built for, from plan.json beside it.

A plan is executable code for one compute capability, one library (TensorRT or TensorRT-RTX) and one version of it. All
are compared with this machine before the plan is deserialised.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from toolchain.base.files import open_listed, read_checked
from toolchain.engine.releases import RELEASES
from toolchain.errors import InputError, MachineError
from toolchain.records.check import find_fault
from toolchain.records.plan import PlanRecord, ProfileRecord

PLANS = "plans"
PLAN, RECORD, LAYERS = "model.plan", "plan.json", "layers.json"

# Version of plan.json.
SCHEMA = 1

# The keys of plan.json that are needed to run a plan. The plan.json of an earlier version may lack other keys.
NEEDED = ("sm", "tensorrt", "plan_sha256", "version_compatible", "profiles", "layout", "precision")

VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")

# The compute capabilities of Turing and Ampere, times ten. TensorRT-RTX has no GEMM in float32 for Turing.
TURING, AMPERE = 75, 80


@dataclass(frozen=True)
class Tag:
    """The machine that a plan is for: its compute capability (75 is 7.5) and the exact version of its TensorRT.

    `backend`, a key of RELEASES, tells TensorRT from TensorRT-RTX.
    """

    sm: int
    tensorrt: str
    backend: str = "trt"

    @property
    def folder(self) -> str:
        """The plan's folder in the bundle, such as plans/sm75-trt10.16.1.11."""
        return f"{PLANS}/sm{self.sm}-{RELEASES[self.backend].mark}{self.tensorrt}"

    def __str__(self) -> str:
        name = RELEASES[self.backend].name
        return f"compute capability {self.sm // 10}.{self.sm % 10} with {name} {self.tensorrt}"


def is_plan(file: str) -> bool:
    """Return whether an artefact of a bundle is a plan, by its name."""
    return file.endswith(f"/{PLAN}")


def plan_backend(file: str) -> str | None:
    """Return the backend that runs an artefact of a bundle, by its folder's name; None if it is not a plan."""
    if not is_plan(file):
        return None
    found = re.match(r"sm\d+-([a-z]+)", Path(file).parent.name)
    return next((one.backend for one in RELEASES.values() if found and one.mark == found[1]), "trt")


def plans_of(artefacts: Iterable[str], backend: str) -> list[str]:
    """Return the plans among the artefacts of a bundle that a backend runs, sorted."""
    return sorted(name for name in artefacts if plan_backend(name) == backend)


def _compute_capability(plan: str) -> int:
    found = re.match(r"sm(\d+)", Path(plan).parent.name)
    return int(found[1]) if found else 0


def find_plan(artefacts: Iterable[str], tag: Tag, *, where: Path) -> str:
    """Return the plan that runs on a machine, among the artefacts of the bundle at `where`.

    Raises:
        MachineError: the bundle lacks such a plan. The message names its plans and says how to build one.
    """
    plans = plans_of(artefacts, tag.backend)
    if f"{tag.folder}/{PLAN}" in plans:
        return f"{tag.folder}/{PLAN}"
    # The bundle has no plan with exactly this tag, but a compatible plan may still run. A plan for a later GPU uses
    # more features of the GPU, so it is tried first.
    for name in sorted(plans, key=_compute_capability, reverse=True):
        try:
            check_plan(where / name, tag)
        except (InputError, MachineError):
            continue
        return name
    there = ", ".join(Path(name).parent.name for name in plans) or "none"
    raise MachineError(f"{where}: the bundle has no plan for {tag} (its plans: {there}). {rebuild(where, tag)}")


def check_plan(plan: Path, tag: Tag, *, digests: Mapping[str, str] | None = None) -> PlanRecord:
    """Return a plan's record after checking that the plan runs on the machine `tag`. `read_plan` checks its bytes.

    Raises:
        InputError: see `read_record`.
        MachineError: the plan was built for another GPU, another release or version of TensorRT.
    """
    record = read_record(plan, digests)
    bundle = plan.parent.parent.parent
    built = Tag(record["sm"], record["tensorrt"], record.get("backend", "trt"))
    same = built.backend == tag.backend and _runs_on_version(record, tag.tensorrt)
    if not (same and _runs_on_gpu(record, tag.sm)):
        raise MachineError(f"{plan}: it was built for {built}; this machine has {tag}. {rebuild(bundle, tag)}")
    return record


def read_plan(plan: Path, record: PlanRecord) -> bytes:
    """Return the bytes of a plan after checking that they have the SHA-256 in its record.

    Raises:
        InputError: the plan is missing, or it changed since it was built.
    """
    with open_listed(plan) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != record["plan_sha256"]:
        again = rebuild(plan.parent.parent.parent)
        raise InputError(f"{plan}: the file changed since it was built, so this executable code is not loaded. {again}")
    return data


def _runs_on_gpu(record: PlanRecord, sm: int) -> bool:
    """Return whether a plan runs on GPUs of compute capability `sm`: its own, or a later one if the plan allows that.

    A plan built as `ampere-plus` runs on every GPU from Ampere on. A plan that TensorRT-RTX built for Ampere or later
    also runs on later GPUs.
    """
    cross = RELEASES[record.get("backend", "trt")].cross and record["sm"] >= AMPERE
    compatible = record.get("options", {}).get("hardware_compatible") == "ampere-plus"
    return record["sm"] == sm or (cross and sm > record["sm"]) or (compatible and sm >= AMPERE)


def _runs_on_version(record: PlanRecord, version: str) -> bool:
    """Return whether a plan runs on a version of TensorRT: the plan's own, or a later one if the plan allows that."""
    if not record["version_compatible"]:
        return record["tensorrt"] == version
    first, second = ([int(part) for part in text.split(".")] for text in (record["tensorrt"], version))
    return first <= second


def read_record(plan: Path, digests: Mapping[str, str] | None = None) -> PlanRecord:
    """Read the plan.json beside a plan.

    `digests` maps the names of files in this folder to the SHA-256 that the bundle's manifest states. If it is given,
    plan.json must have the digest listed there.

    Raises:
        InputError: the file is missing, not JSON, of another schema, lacks a key, has a value of another type, or has
            another digest.
    """
    file = plan.parent / RECORD
    try:
        data = read_checked(file, digests[RECORD]) if digests is not None else file.read_bytes()
        record = json.loads(data.decode())
        schema = record["schema"]
    except FileNotFoundError:
        raise InputError(
            f"{file}: the file is missing. It states where {plan.name} runs. Build the plan again."
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{file}: the file is broken ({error}). Build the plan again.") from None
    if schema != SCHEMA:
        raise InputError(
            f"{file}: its schema is {schema!r:.40}, and this version reads schema {SCHEMA}. Build the plan again."
        )
    if fault := _fault(record):
        raise InputError(f"{file}: the file is broken ({fault}). Build the plan again.")
    return cast(PlanRecord, record)


def _fault(record: dict[str, object]) -> str | None:
    """Return what is wrong with the content of plan.json, or None. The file may come from an untrusted source."""
    fault = next((f"{key} is missing" for key in NEEDED if key not in record), None)
    fault = fault or find_fault(record, PlanRecord, whole=False)
    if fault := fault or find_fault(record["profiles"], list[ProfileRecord], "profiles"):
        return fault
    known = cast(PlanRecord, record)
    if known.get("backend", "trt") not in RELEASES:
        return f"backend is {known['backend']!r:.40}"
    if not VERSION.fullmatch(known["tensorrt"]):
        return f"tensorrt is {known['tensorrt']!r:.40}"
    triples = [triple for one in known["profiles"] for triple in (one["batch"], one["length"])]
    odd = next((triple for triple in triples if len(triple) != 3 or sorted(triple) != triple or triple[0] < 1), None)
    return None if odd is None else f"profiles has {odd!r:.40}"


def rebuild(bundle: Path, tag: Tag | None = None) -> str:
    """Return advice on building a plan for the machine `tag`, or for this machine with TensorRT if `tag` is None."""
    if tag is not None and RELEASES[tag.backend].cross:
        return f"Build one: toolchain build {bundle} --backend {tag.backend} --target sm{tag.sm}."
    return f"Build one here from the same graph: toolchain build {bundle} --backend trt."
