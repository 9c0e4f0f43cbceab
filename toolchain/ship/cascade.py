"""Makes the models that a cascade adds to a repository: NAME_cascade, and NAME_first if the first stage is a bundle.

In a cascade, a small first stage answers the rows of which it is sure. The bundle's own model, the second stage,
answers the other rows.
"""

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolchain.base.files import sha256_file
from toolchain.bundle import Bundle, open_bundle
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.errors import InputError
from toolchain.evaluation.stages import record_of
from toolchain.evaluation.target import plans
from toolchain.records.cascade import CascadeRecord
from toolchain.records.ship import CascadeSettings, CascadeStage, ShippedFile
from toolchain.runtimes import tfidf
from toolchain.runtimes.lexical import read_lexical
from toolchain.ship.engine import Engine, find_engine
from toolchain.ship.install import Content
from toolchain.ship.options import Options

# File of the model NAME_cascade, which its code reads when it starts.
SETTINGS = "stages.json"


@dataclass(frozen=True)
class First:
    """The first stage of a cascade: its record, and the engine or the linear model that runs it.

    `engine` is None for a linear model, whose weights are in `arrays`, the bytes of an .npz file.
    """

    record: CascadeRecord
    engine: Engine | None
    arrays: bytes = b""


def find_first(bundle: Bundle, resolved: ResolvedRecipe, second: Engine, options: Options) -> First | None:
    """Return the first stage of a bundle; None if the bundle is not a cascade.

    Raises:
        InputError: a file of the first stage is damaged, or its plan does not take the lengths to which the tokenizer
            pads for the second stage.
        ToolchainError: see `find_engine`.
    """
    record = record_of(bundle)
    if record is None:
        return None
    if record["first"] == "lexical":
        vocabulary, classes = resolved.source.facts.values["input_ids"], len(resolved.head.labels)
        where = str(bundle.path / record["file"])
        model = read_lexical(bundle.read(record["file"]), vocabulary, classes, where=where)
        arrays = io.BytesIO()
        np.savez(arrays, keys=model.keys, idf=model.idf, weights=model.weights, bias=model.bias)
        return First(record, None, arrays.getvalue())
    small = open_bundle(bundle.path / record["file"], trust=record["sha256"])
    return First(record, _engine(small, second, options))


def _engine(small: Bundle, second: Engine, options: Options) -> Engine:
    """Return the engine of a first stage that is a bundle. `options` are the second stage's; --file is ignored."""
    planned = options.backend == "trt" or (options.backend is None and bool(plans(small)))
    engine = find_engine(
        small,
        dataclasses.replace(
            options,
            file=None,
            tensorrt=second.tensorrt if planned else None,
            cuda_graphs=options.cuda_graphs and planned,
        ),
    )
    for length in second.buckets if engine.profiles else ():
        if not any(one.length[0] <= length <= one.length[2] for one in engine.profiles):
            raise InputError(
                f"{small.path}: its plan does not take {length} tokens, to which the tokenizer pads for the second "
                "stage. Build both plans with the same --seq-len and --buckets, and make the cascade again."
            )
    return engine


def first_files(name: str, first: First, second: Engine, resolved: ResolvedRecipe) -> dict[str, dict[str, Content]]:
    """Return the files of the models that a cascade adds: role -> file name in the version folder -> content."""
    own: CascadeSettings = {
        "name": name,
        "threshold": first.record["threshold"],
        "vocabulary": resolved.source.facts.values["input_ids"],
        "stages": {"second": _stage(f"{name}_classifier", second)},
    }
    files: dict[str, dict[str, Content]] = {"cascade": {}}
    if first.engine:
        own["stages"]["first"] = _stage(f"{name}_first", first.engine)
        files["first"] = dict(first.engine.files)
    else:
        files["cascade"] = {"lexical.npz": first.arrays, "tfidf.py": Path(tfidf.__file__)}
    files["cascade"][SETTINGS] = json.dumps(own, indent=2) + "\n"
    return files


def _stage(model: str, engine: Engine) -> CascadeStage:
    types = {name: tensor.type.removeprefix("TYPE_").lower() for name, tensor in engine.inputs.items()}
    return {"model": model, "inputs": types, "buckets": list(engine.buckets)}


def first_shipped(bundle: Bundle, first: First) -> dict[str, ShippedFile]:
    """Return the origin in the bundle and the digest of each file of the first stage, by name in the version folder."""
    if first.engine is None:
        digest = hashlib.sha256(first.arrays).hexdigest()
        return {"lexical.npz": {"from": first.record["file"], "sha256": digest}}
    return shipped(bundle, first.engine)


def shipped(bundle: Bundle, engine: Engine) -> dict[str, ShippedFile]:
    """Return the origin in the bundle and the digest of each file of an engine, by name in the version folder."""
    return {
        name: {"from": str(file.relative_to(bundle.path)), "sha256": sha256_file(file)}
        for name, file in engine.files.items()
        if isinstance(file, Path)
    }
