"""`toolchain cascade`: combines two models in one bundle. The second runs only for rows of which the first is unsure.

The result is the bundle of the second model, the second stage, to which the first stage and the threshold are added. So
most commands that take a bundle also take a cascade; those that change or take apart one model refuse it
(`Bundle.require_one_model`). `evaluation/stages.py` opens a cascade, and `runtimes/cascade.py` runs it.
"""

import logging
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from toolchain.base.amounts import counted
from toolchain.base.files import write_bytes, write_json
from toolchain.bundle import MANIFEST, open_bundle
from toolchain.bundle.writer import open_writer, require_bundle
from toolchain.cascade import cost, threshold
from toolchain.cascade.lexical import fit
from toolchain.cascade.rows import Chosen, choose_rows, positions, train_rows
from toolchain.data.metrics import METRICS
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.stages import (
    FOLDER,
    LEXICAL,
    ROWS,
    SMALL,
    bundle_stage,
    lexical_stage,
    record_of,
    share_of_tokens,
)
from toolchain.evaluation.target import Target, find_target
from toolchain.heads.predictions import same
from toolchain.recipe.options import RecipeValues
from toolchain.records.cascade import CascadeAbout, CascadeMade, CascadeRecord, LexicalRecord
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import FirstStage
from toolchain.workflow import refuse_calibrated

log = logging.getLogger(__name__)

# Most points by which the metric of the cascade may drop if --max-drop is not given.
DEFAULT_MAX_DROP = 0.5

# Number of rows on which the stages are timed.
TIMED_ROWS = 512

# Keys of the manifest that the writer sets. They are not copied from the manifest of the second stage.
WRITTEN = ("schema", "steps", "artefacts", "created", "sha256")


@dataclass(frozen=True)
class First:
    """A first stage, which is a bundle or a lexical model.

    `stage` returns the stage, ready to run, for a threshold. `about` describes it in the cascade's record, and `write`
    writes its files into a bundle's folder.
    """

    stage: Callable[[float], FirstStage]
    about: CascadeAbout
    write: Callable[[Path], None]


def make(
    changes: RecipeValues, output: Path, *, big: Path, small: Path | None, tell: Callable[[str], None] = log.info
) -> CascadeMade:
    """Make a cascade from the bundle `small` (None: a lexical stage) and the bundle `big`; write it to `output`.

    `changes` are options by their names in a recipe. Nothing is written if the cascade is refused.

    Raises:
        GateError: no threshold keeps the drop within --max-drop, the rows are too few to tell, or the cascade saves no
            time.
        InputError: the stages differ in labels or tokens, their models give no classes, or the rows are train rows.
        ToolchainError: see errors.py.
    """
    trusted, of_small = _trusted(changes.get("trust"), small)
    second = find_target({**changes, "output": None, "trust": trusted}, big)
    _check(second, output, small)
    assert second.bundle is not None
    asked = {"device": second.device, "trust": of_small}
    before = find_target(asked, small, prefer_plan=second.device != "cpu") if small else None
    stages = [one.bundle for one in (second, before) if one and one.bundle]
    chosen = choose_rows(second.resolved, changes.get("calib_data"), stages)
    refuse_calibrated(second.bundle, chosen.rows)
    first = _of_bundle(second, before, chosen) if before else _of_text(second, chosen, tell)
    record = _measured(first, second, chosen, tell)
    with open_writer(output, log=tell) as writer:
        for name in second.bundle.manifest["artefacts"]:
            second.bundle.copy(name, writer.folder / name)
        writer.steps |= second.bundle.manifest["steps"]
        writer.artefacts |= second.bundle.manifest["artefacts"]

        def write(folder: Path) -> CascadeRecord:
            first.write(folder)
            write_json(folder / ROWS, sorted(set(chosen.rows.text_digests)))
            return record

        writer.step(FOLDER, {"record": record}, write)
        about = {key: value for key, value in second.bundle.manifest.items() if key not in WRITTEN}
        writer.finish({**about, "cascade": record})
    return {"bundle": str(output), "cascade": record, "next": f"toolchain eval {shlex.quote(str(output))}"}


def _check(second: Target, output: Path, small: Path | None) -> None:
    """Refuse a bundle that cannot be a second stage, and an output folder that holds something other than a cascade.

    Raises:
        InputError: the second stage has no classes or is a cascade; or the output folder is not a bundle.
        UsageError: the output folder is one of the stages or a bundle of one model, or a cascade cannot run on the
            backend.
    """
    head, bundle = second.resolved.head, second.bundle
    if bundle is None or second.file is None:
        raise UsageError(f"--backend {second.backend}: a cascade runs graphs and plans of bundles. Choose ort or trt.")
    if head.no_cascade:
        raise InputError(
            f"{bundle.path}: this is {head.what}, and {head.no_cascade}. Give a classifier with one label per row."
        )
    if record_of(bundle):
        raise InputError(f"{bundle.path}: the bundle is a cascade already. Give the bundle of one model.")
    for place in (bundle.path, small):
        if place and output.resolve() == place.resolve():
            raise UsageError(
                f"-o {output}: this folder is one of the stages, and would be replaced. Choose another folder."
            )
    require_bundle(output)
    if (output / MANIFEST).exists():
        _check_old(output)


def _check_old(output: Path) -> None:
    """Refuse an output folder that is a bundle of one model or a damaged cascade, before time is spent on a new one.

    Raises:
        InputError: a file of the cascade differs from its digest.
        UsageError: the folder is a bundle of one model.
    """
    if not open_bundle(output, check_files=False).is_cascade:
        raise UsageError(
            f"-o {output}: the folder has a bundle of one model, which would be replaced. Choose another folder."
        )
    try:
        open_bundle(output)
    except InputError as error:
        raise InputError(f"-o {output}: the cascade there is damaged. Remove the folder, or choose another.") from error


def _of_text(second: Target, chosen: Chosen, tell: Callable[[str], None]) -> First:
    """Fit a lexical stage to the train rows, and return it."""
    resolved = second.resolved
    rows = train_rows(resolved, chosen.rows.text_digests)
    tell(f"fitting a lexical stage to {len(rows):,} train rows")
    references, vocabulary = resolved.head.read(rows), resolved.source.facts.values["input_ids"]
    model = fit(resolved.encode(rows.texts), references, vocabulary=vocabulary, labels=resolved.head.labels)
    lexical: LexicalRecord = {"features": len(model.keys), "rows": len(rows), "data_sha256": rows.digest}
    return First(
        lambda threshold: lexical_stage(model, threshold),
        {"first": "lexical", "file": LEXICAL, "lexical": lexical},
        lambda folder: write_bytes(folder / LEXICAL, model.to_bytes()),
    )


def _trusted(given: str | None, small: Path | None) -> tuple[str | None, str | None]:
    """Split the value of --trust into the digests that the second and the first stage must have; None allows any.

    Raises:
        UsageError: the number of digests differs from the number of bundles, so one bundle would not be checked.
    """
    # An empty value, such as that of an unset shell variable, is a digest that no bundle has.
    digests = [] if given is None else given.split(",")
    if digests and len(digests) != (2 if small else 1):
        wanted = "the digests of SMALL and BIG, as --trust A,B" if small else "only the digest of BIG"
        raise UsageError(f"--trust {given}: the value has {counted(len(digests), 'digest')}. Give {wanted}.")
    return (digests[-1], digests[0] if small else None) if digests else (None, None)


def _of_bundle(second: Target, target: Target, chosen: Chosen) -> First:
    """Return the bundle of `target` as the first stage.

    Raises:
        InputError: its labels, tokens or inputs differ from those of the second stage, or the bundle is a cascade.
    """
    bundle, head = target.bundle, target.resolved.head
    assert bundle is not None
    small = bundle.path
    if record_of(bundle):
        raise InputError(f"{small}: the bundle is a cascade already. Give the bundle of one model.")
    if head.labels != second.resolved.head.labels:
        raise InputError(
            f"{small}: the labels of the first stage are {', '.join(head.labels)}, and those of the second are "
            f"{', '.join(second.resolved.head.labels)}. Give stages with the same labels in the same order."
        )
    own, other = (one.resolved.encode(chosen.rows.texts) for one in (target, second))
    same_inputs = own.columns.keys() <= other.columns.keys()
    if not same_inputs or any(column != other.columns[name] for name, column in own.columns.items()):
        raise InputError(
            f"{small}: its tokens differ from those of the second stage. Give stages with the same tokenizer and "
            "--max-length."
        )

    def write(folder: Path) -> None:
        for name in bundle.manifest["artefacts"]:
            bundle.copy(name, folder / SMALL / name)
        write_json(folder / SMALL / MANIFEST, bundle.manifest)

    about: CascadeAbout = {"first": "bundle", "file": SMALL, "sha256": bundle.digest}
    return First(lambda threshold: bundle_stage(target, threshold), about, write)


def _measured(first: First, second: Target, chosen: Chosen, tell: Callable[[str], None]) -> CascadeRecord:
    """Choose the threshold, time the stages, and return the record of the cascade.

    Raises:
        GateError: see `make`.
    """
    resolved, recipe = second.resolved, second.resolved.recipe
    rows, head, max_drop = chosen.rows, resolved.head, recipe.max_drop
    max_drop = DEFAULT_MAX_DROP if max_drop is None else max_drop
    tokens, references = resolved.encode(rows.texts), head.read(rows)
    timed = tokens.take(positions(rows, TIMED_ROWS, seed=recipe.seed))
    with ExitStack() as opened:
        one = opened.enter_context(first.stage(0.0).open({}))
        other = opened.enter_context(open_runtime(second.backend, second.model, **second.choices))
        tell(f"choosing the threshold on {len(rows):,} rows")
        small, big = run(one, tokens).logits, run(other, tokens).logits
        found = threshold.search(
            references, small, big, head, max_drop=max_drop, confidence=recipe.confidence, seed=recipe.seed
        )
        tell(f"timing both stages on {len(timed):,} rows")
        spent = cost.measure(one, other, found.threshold, timed, seed=recipe.seed)
    cost.require(spent)
    alone = [head.predict(references, logits) for logits in (small, big)]
    metric = METRICS[head.task.primary]
    values = [metric(made.references, made.predicted) for made in (*alone, found.cascade)]
    agreed = same(found.cascade.predicted, alone[1].predicted)
    assert agreed is not None
    return {
        **first.about,
        "threshold": found.threshold,
        "passed_on": float(found.rest.mean()),
        "passed_on_tokens": share_of_tokens(tokens, found.rest),
        "agreement_with_big": float(agreed.mean()),
        "accuracy": {"small": values[0], "big": values[1], "cascade": values[2]},
        "max_drop_points": max_drop,
        "confidence": recipe.confidence,
        "tried": found.tried,
        "first_cost": spent.first,
        "cost_ratio": spent.ratio,
        "cost_ratio_ci95": list(spent.ci95),
        "calibrated_on": {"n": len(rows), "digest": rows.digest, "source": rows.source, "left_out": chosen.left_out},
    }
