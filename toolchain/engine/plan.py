"""A plan and what must hold before it is run: digest and compatibility tag, in plan.json beside it.

A plan is executable code for one compute capability and one build of TensorRT, so both are compared with this
machine before a byte of it is deserialised.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import InputError, MachineError
from toolchain.files import sha256_file

PLANS = "plans"
PLAN, RECORD, LAYERS = "model.plan", "plan.json", "layers.json"
SCHEMA = 1
AMPERE = 80


@dataclass(frozen=True)
class Tag:
    """Where a plan runs: compute capability (75 is 7.5) and the exact TensorRT version."""

    sm: int
    tensorrt: str

    @property
    def folder(self) -> str:
        """The plan's folder below the bundle: plans/sm75-trt10.16.1.11."""
        return f"{PLANS}/sm{self.sm}-trt{self.tensorrt}"

    def __str__(self) -> str:
        return f"compute capability {self.sm // 10}.{self.sm % 10} with TensorRT {self.tensorrt}"


def is_plan(file: str) -> bool:
    """Whether an artefact's name is that of a plan."""
    return file.endswith(f"/{PLAN}")


def find_plan(artefacts: list[str], tag: Tag, *, where: Path) -> str:
    """Return the artefact of a bundle that is the plan for this machine.

    Raises:
        MachineError: there is none; it says what the bundle's plans were built for, and how to build one here.
    """
    plans = sorted(name for name in artefacts if is_plan(name))
    if f"{tag.folder}/{PLAN}" in plans:
        return f"{tag.folder}/{PLAN}"
    for name in plans:  # a compatible plan has another tag and may still run
        try:
            check_plan(where / name, tag, digest=False)
        except (InputError, MachineError):
            continue
        return name
    there = ", ".join(Path(name).parent.name for name in plans) or "none"
    raise MachineError(f"{where}: no plan for {tag} (there: {there}). {rebuild(where)}")


def check_plan(plan: Path, tag: Tag, *, digest: bool = True) -> dict[str, Any]:
    """Return a plan's record if the plan is the one that was built, and runs where `tag` says.

    Raises:
        InputError: the record is missing or broken, or the plan changed since it was built.
        MachineError: it was built for another GPU or another TensorRT.
    """
    record = read_record(plan)
    bundle = plan.parent.parent.parent
    built = Tag(record["sm"], record["tensorrt"])
    if not (_fits(record, built.sm, tag.sm) and _runs(record, built.tensorrt, tag.tensorrt)):
        raise MachineError(f"{plan}: built for {built}, and this machine has {tag}. {rebuild(bundle)}")
    if digest and sha256_file(plan) != record["plan_sha256"]:
        raise InputError(f"{plan}: changed since it was built, and a plan is code. {rebuild(bundle)}")
    return record


def _fits(record: dict[str, Any], built: int, here: int) -> bool:
    """A plan runs on its own compute capability; one for Ampere and later on any of those."""
    everywhere = record.get("options", {}).get("hardware_compatible") == "ampere-plus"
    return built == here or (everywhere and here >= AMPERE)


def _runs(record: dict[str, Any], built: str, here: str) -> bool:
    """A plan runs in its own version; a version-compatible one also in later versions."""
    if not record["version_compatible"]:
        return built == here
    first, second = ([int(part) for part in version.split(".")] for version in (built, here))
    return first <= second


def read_record(plan: Path) -> dict[str, Any]:
    """Read the plan.json beside a plan.

    Raises:
        InputError: it is missing, broken or of another schema.
    """
    file = plan.parent / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema = record["schema"]
        keys = ("sm", "tensorrt", "plan_sha256", "version_compatible", "profiles", "layout", "precision")
        missing = [key for key in keys if key not in record]
    except FileNotFoundError:
        raise InputError(f"{file}: missing, so nothing says where {plan.name} runs. Build it again.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: broken ({error}). Build the plan again.") from None
    if schema != SCHEMA or missing:
        raise InputError(f"{file}: schema {schema}, lacks {missing or 'nothing'}. Build the plan again.")
    return dict(record)


def rebuild(bundle: Path) -> str:
    """Return the sentence that says how to get a plan for this machine."""
    return f"Build one here from the same graph: toolchain build {bundle} --backend trt."
