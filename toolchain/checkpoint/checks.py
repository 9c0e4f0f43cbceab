"""The refusals of checkpoints: folders of another kind, heads of another task, weights that would not be used.

model.py and facts.py read a checkpoint and call these functions. docs/guides/checkpoints.md has the same as a table.
"""

import fnmatch
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toolchain.base.tensors import RowShape, is_of
from toolchain.checkpoint.label_names import check_labels
from toolchain.errors import InputError

if TYPE_CHECKING:
    import torch

# Weights that a message names.
SHOWN_WEIGHTS = 3

# Labels of named entities and the like, which stand for tokens: B-PER, I-LOC, O.
TAG = re.compile(r"O|[BIESLU]-.+")

# Ids without a row in the embedding table that are taken for slips in a vocabulary made by hand. The tokenizer of
# another model has more.
STRAY_IDS = 8

# The types of weights that are not quantized, as safetensors names them.
FLOATS = ("F64", "F32", "F16", "BF16")

# Value of problem_type in config.json -> the heads that it allows.
PROBLEMS: dict[str | None, tuple[str, ...]] = {
    None: ("sequence", "multilabel", "rerank"),
    "regression": ("sequence", "rerank"),
    "single_label_classification": ("sequence",),
    "multi_label_classification": ("multilabel",),
}

AGAIN = "Get the checkpoint again."
OWN_CODE = "It brings its own code: read it, and trust it with --trust-remote-code."

# What transformers calls the task of the classes that are taken.
CLASSIFICATION = "sequence classification"

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """A kind of folder that is not a classifier: a file that only it has, what it is, and what to give instead.

    `unless` is what a folder with that file may have beside it, so that it is not of this kind: weights that are read.
    """

    file: str
    name: str
    advice: str
    unless: Literal["weights"] | None = None


# The kinds that are recognised by a file, the most specific first.
KINDS = (
    Kind("bundle.json", "a bundle, which was built from a checkpoint", "Name it without -m, or give its checkpoint."),
    Kind(
        "adapter_config.json",
        "an adapter, which changes a base model that is not here",
        "Merge it: load it with AutoPeftModelForSequenceClassification.from_pretrained of the package peft, call "
        "merge_and_unload() and save_pretrained(FOLDER), save the tokenizer there too, and give that folder.",
    ),
    *(
        Kind(
            file,
            "a SetFit model, whose classifier is not one of transformers",
            "Fine-tune its encoder with AutoModelForSequenceClassification, and give that checkpoint.",
        )
        for file in ("config_setfit.json", "model_head.pkl", "model_head.joblib")
    ),
    *(
        Kind(
            file,
            f"a model in {form}, without weights in safetensors",
            "Give the checkpoint that it was made from.",
            unless="weights",
        )
        for file, form in (
            ("*.onnx", "ONNX"),
            ("openvino_model.xml", "OpenVINO's format"),
            ("*.gguf", "GGUF"),
            ("tf_model.h5", "TensorFlow's format"),
            ("flax_model.msgpack", "Flax's format"),
            ("*.tflite", "TensorFlow Lite's format"),
        )
    ),
    Kind(
        "checkpoint-*/config.json",
        "a folder of checkpoints",
        "Give one of the folders checkpoint-N in it.",
        unless="weights",
    ),
    Kind(
        "snapshots/*/config.json",
        "a folder of the hub's cache",
        "Give the folder in snapshots/ that it has.",
        unless="weights",
    ),
)


def check_folder(folder: Path, *, weights: bool) -> None:
    """Refuse a folder that is of one of KINDS; `weights` says whether it has config.json and weights that are read.

    Raises:
        InputError: it says what the folder is, and what to give instead.
    """
    for kind in KINDS:
        if not (kind.unless and weights) and any(folder.glob(kind.file)):
            raise InputError(f"{folder}: this is {kind.name}. {kind.advice}")


def says_classifier(config: dict[str, Any]) -> bool:  # config.json of any architecture
    """Return whether `architectures` of a config.json names a sequence classifier."""
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or [])


def check_config(folder: Path, config: dict[str, Any]) -> None:  # config.json of any architecture
    """Refuse a config.json whose labels contradict each other, or that describes quantized or pruned weights.

    Raises:
        InputError: naming the keys.
    """
    file = folder / "config.json"
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise InputError(
            f"{file}: the weights are already quantized ({method}). Give the checkpoint before its quantization."
        )
    if any((config.get("pruned_heads") or {}).values()):
        raise InputError(
            f"{file}: pruned_heads is {config['pruned_heads']}, and transformers 5 makes every layer with all heads. "
            "Give a checkpoint without pruned heads."
        )
    count = check_labels(file, config)
    problem = config.get("problem_type") or None
    if problem not in PROBLEMS and not says_tags(config):
        raise InputError(
            f"{file}: problem_type is {problem!r}. Write {', '.join(filter(None, PROBLEMS))}, or leave it out."
        )
    if problem == "regression" and count != 1:
        raise InputError(f"{file}: problem_type is regression with {count} outputs. Choose a model with one output.")
    if problem == "single_label_classification" and count == 1:
        raise InputError(f"{file}: problem_type is {problem} with one label. Fix problem_type, or name two labels.")


def check_head(folder: Path, config: dict[str, Any], *, trusted: bool) -> None:  # config.json of any architecture
    """Refuse a checkpoint that says of itself that it is not a sequence classifier.

    The names of weights do not tell: a token classifier, and often a custom one, has a `classifier.weight` too. Nor
    does the end of a class's name: Wav2Vec2ForSequenceClassification hears, and one of the user's own may do anything.

    Args:
        folder: the checkpoint.
        config: its config.json.
        trusted: whether the checkpoint's own code may run.

    Raises:
        InputError: naming the class in `architectures`, and the task that transformers knows it by.
    """
    stated = next((str(name) for name in config.get("architectures") or []), "")
    tags = [str(name) for name in (config.get("id2label") or {}).values()]
    if not stated and len(tags) > 1 and all(map(TAG.fullmatch, tags)):
        raise InputError(
            f"{folder}: its labels {', '.join(tags[:SHOWN_WEIGHTS])} are those of tokens, not of texts. "
            "Name its class in architectures, or give a checkpoint that was fine-tuned for text classification."
        )
    task = _task_of(stated)
    if "AutoModelForSequenceClassification" in (config.get("auto_map") or {}):
        if not trusted and task != CLASSIFICATION:
            raise InputError(f"{folder}: {OWN_CODE}")
        if not trusted:
            log.warning("%s: its own code is not run; %s of transformers is. Trust it to run it.", folder, stated)
        return
    if not stated or task == CLASSIFICATION:
        return
    headless = is_headless(stated)
    if task is None and not headless:
        raise InputError(
            f"{folder}: its architecture is {stated}, which transformers does not have, so that its outputs are not "
            "known. Give a checkpoint of a class such as BertForSequenceClassification."
        )
    kind = "an encoder without a head" if headless else f"a model for {task}"
    embedding = ', or for embeddings a task with head = "embedding" and pooling = "mean" or "cls"' if headless else ""
    raise InputError(
        f"{folder}: its architecture is {stated}, {kind}, not a text classifier. "
        f"Give a checkpoint that was fine-tuned for text classification{embedding}."
    )


def says_tags(config: dict[str, Any]) -> bool:  # config.json of any architecture
    """Return whether a config.json names a class that classifies tokens."""
    return any(str(name).endswith("ForTokenClassification") for name in config.get("architectures") or ())


def is_headless(architecture: str) -> bool:
    """Return whether a class of transformers is an encoder alone, by its name."""
    return bool(re.search(r"(?<!LMHead)(?<!LMHeads)(Model|Encoder)$", architecture))


def _task_of(name: str) -> str | None:
    """Return the task of a class of transformers, such as `token classification`; None if it has none."""
    bare = re.sub(r"^(TF|Flax)(?=[A-Z])", "", name)
    tasks = [table for table, _, classes in _registered() if bare in classes]
    if not tasks:
        return None
    # A class may stand in several tables; that of sequence classification decides, and pretraining says the least.
    table = min(tasks, key=lambda table: ("_SEQUENCE_" not in table, "PRETRAINING" in table, table))
    words = table.removeprefix("MODEL_FOR_").removesuffix("_MAPPING_NAMES").replace("_", " ").lower()
    return re.sub(r"\blm\b", "language modelling", words)


def types_of(architecture: str) -> list[str]:
    """Return each value of model_type for which transformers has a class of this name."""
    return sorted({kind for _, kind, classes in _registered() if architecture in classes})


def types_of_classifiers() -> set[str]:
    """Return each value of model_type for which transformers has a class that classifies texts."""
    return {kind for table, kind, _ in _registered() if "_SEQUENCE_" in table}


def _registered() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield each entry of transformers' tables of classes with a head: the table, the model type, and the classes."""
    from transformers.models.auto import modeling_auto

    for table in filter(re.compile(r"MODEL_FOR_\w+_MAPPING_NAMES").fullmatch, vars(modeling_auto)):
        for kind, classes in getattr(modeling_auto, table).items():
            yield table, kind, classes if isinstance(classes, tuple) else (classes,)


def check_loaded(
    folder: Path,
    *,
    body: str,
    missing: Collection[str],
    mismatched: Collection[tuple[str, Any, Any]],
    unused: Collection[str],
    ignored: str | None,
    present: Collection[str] = (),
) -> None:
    """Refuse weights that do not fit the class which transformers made.

    Args:
        folder: the checkpoint.
        body: what the names of all weights begin with that are not of the classification head, such as `bert.`.
        missing: weights of the model that the checkpoint lacks.
        mismatched: name, stored shape and needed shape of weights of another size.
        unused: weights of the checkpoint that the model does not have.
        present: weights of the model.
        ignored: `--ignore-unused`, names or patterns of weights that may stay unused, with commas between.

    Raises:
        InputError: naming the weights.
    """
    if missing:
        raise InputError(_explain_missing(folder, body, missing, unused))
    if mismatched:
        name, stored, wanted = sorted(mismatched)[0]
        raise InputError(
            f"{folder}: {name} is {list(stored)} in the weights; config.json needs {list(wanted)}. {AGAIN}"
        )
    patterns = [pattern.strip() for pattern in (ignored or "").split(",") if pattern.strip()]
    left = [name for name in unused if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if left:
        raise InputError(
            f"{folder}: transformers would not use {len(left)} of its weights ({', '.join(_some(left))}), so the model "
            f"is not the one that was trained. {_advice(left, present)}"
        )


def _explain_missing(folder: Path, body: str, missing: Collection[str], unused: Collection[str]) -> str:
    """Return which weights are missing, and why: another name, a part that was lost, or a head that was never made."""
    first = min(missing)
    if longer := next((name for name in sorted(unused) if name.endswith(f".{first}")), None):
        prefix = longer.removesuffix(first)
        whose = (
            "the package peft: merge the adapter with merge_and_unload(), save the model"
            if prefix.startswith("base_model.model.")
            else "a wrapper, such as DataParallel, Lightning or torch.compile: save the model inside it"
        )
        return (
            f"{folder}: its weights begin with {prefix!r} ({longer}), where transformers looks for {first}. They are "
            f"those of {whose} with save_pretrained(FOLDER), and give that folder."
        )
    lost = any(name.startswith(body) for name in missing)
    advice = AGAIN if lost else "Give a checkpoint that was fine-tuned for classification."
    others = f", and has others ({', '.join(_some(unused))})" if lost and unused else ""
    return f"{folder}: lacks {len(missing)} weights, the first is {first}{others}. {advice}"


def check_stored(folder: Path, weights: Set[str], *, body: str) -> None:
    """Refuse weights that are stored as integers or in FP8: they are quantized, whatever config.json says.

    transformers would take the stored numbers for the weights themselves. `weights` are the names of the model's, and
    `body` is what the names in some checkpoints begin with, and in others not.

    Raises:
        InputError: naming the first of them.
    """
    from safetensors import safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no dictionary
                kind = opened.get_slice(name).get_dtype()
                own = (name, body + name, name.removeprefix(body))
                if kind not in FLOATS and not weights.isdisjoint(own):
                    raise InputError(
                        f"{folder}: {name} is stored as {kind}: the weights are quantized. Give the checkpoint before "
                        "its quantization."
                    )


def check_finite(folder: Path, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
    """Refuse weights with NaN or infinity, by which no text, or only a text with one rare word, has an answer.

    Raises:
        InputError: naming the first of them.
    """
    import torch

    for name, weight in weights:
        # The smallest and the largest value show NaN and infinity in a tenth of the time of a look at each.
        if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
            raise InputError(
                f"{folder}: {name} has NaN or infinity: its training diverged, or a cast to float16 was too large. "
                "Give an earlier checkpoint, or one in float32."
            )


def _some(names: Collection[str]) -> Iterator[str]:
    ordered = sorted(names)
    yield from ordered[:SHOWN_WEIGHTS]
    if len(ordered) > SHOWN_WEIGHTS:
        yield "..."


def _advice(unused: Collection[str], present: Collection[str]) -> str:
    """Return what to do about weights that would not be used beside those that are `present` in the model."""
    if any("lora_" in name for name in unused):
        return "Merge the LoRA adapter (merge_and_unload() of the package peft) and save the model again."
    if any("distance_embedding" in name for name in unused):
        return "transformers 5 has no relative positions in this architecture. Give a model with absolute positions."
    if any(re.search(r"scale|zero_point|absmax|quant|SCB", name) for name in unused):
        return "They are quantized: give the checkpoint before its quantization."
    numbered = {re.sub(r"\.\d+\.", ".N.", name) for name in present}
    if all(re.sub(r"\.\d+\.", ".N.", name) in numbered for name in unused):
        return "They are those of further layers: write the number of layers that was trained into config.json."
    return "If the logits do not depend on them, name them in --ignore-unused."


def check_vocabulary(folder: Path, vocabulary: dict[str, int], added: Collection[str], rows: int) -> None:
    """Refuse a tokenizer with ids beyond the embedding table, which has `rows` rows; `added` are its added tokens.

    A few such ids of plain tokens cause a warning only: a text with one of them is refused (see `TextEncoder`).

    Raises:
        InputError: naming a token.
    """
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= rows)
    if not beyond:
        return
    index, token = next((one for one in beyond if one[1] in added), beyond[-1])
    what = f"{folder}: its tokenizer has the id {index} ({token!r}), and its embedding table has {rows} rows."
    if len(beyond) > STRAY_IDS or token in added:
        raise InputError(f"{what} Give the tokenizer that it was trained with, or resize the table and train it.")
    log.warning("%s %d of its tokens have none, and a text with one of them will be refused.", what, len(beyond))


def check_logits(folder: Path, shape: tuple[int, ...] | None, *, rows: int, row: RowShape) -> None:
    """Refuse logits whose rows are not of the shape `row`; `shape` is None where the model returns none.

    Raises:
        InputError: naming the shape.
    """
    if shape is None or not is_of(shape[:-1], rows, row[:-1]):
        found = "no logits" if shape is None else f"logits of the shape {list(shape)} for {rows} rows"
        wanted = ", ".join(["rows", *("tokens" for _ in row[:-1]), "classes"])
        raise InputError(f"{folder}: the model returns {found}. Give a model that returns logits [{wanted}].")
    if shape[-1] != row[-1]:
        raise InputError(
            f"{folder}: the model returns {shape[-1]} logits, and config.json names {row[-1]} labels. "
            "Name every class in id2label."
        )
