"""The checks that refuse a checkpoint: folders that are not one, heads of other tasks, weights that would not be used.

model.py and facts.py call them while they read a checkpoint. docs/guides/checkpoints.md lists the same as a table.
"""

import fnmatch
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toolchain.base.amounts import counted
from toolchain.base.tensors import RowShape, is_of
from toolchain.checkpoint.label_names import check_labels
from toolchain.errors import InputError

if TYPE_CHECKING:
    import torch

# The largest number of weights or labels that a message names.
SHOWN_WEIGHTS = 3

# Labels that a token classifier gives to tokens, such as the tags of named entities: B-PER, I-LOC, O.
TAG = re.compile(r"O|[BIESLU]-.+")

# Up to this number of token ids beyond the embedding table cause only a warning, because a vocabulary that was edited
# by hand may have a few. The tokenizer of another model has more.
STRAY_IDS = 8

# The names in safetensors of the types that weights have if they are not quantized.
FLOATS = ("F64", "F32", "F16", "BF16")

# Value of problem_type in config.json -> the heads that a checkpoint with this value may have.
PROBLEMS: dict[str | None, tuple[str, ...]] = {
    None: ("sequence", "multilabel", "rerank"),
    "regression": ("sequence", "rerank"),
    "single_label_classification": ("sequence",),
    "multi_label_classification": ("multilabel",),
}

AGAIN = "Get the checkpoint again."
OWN_CODE = "The checkpoint brings its own code. Read the code, and add --trust-remote-code if you trust it."

# Name in transformers of the task of the classes that this project can use.
CLASSIFICATION = "sequence classification"

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """A kind of folder that is not a checkpoint: the file that identifies it, its name, and what to give instead.

    With `unless="weights"`, a folder that also has config.json and weights in a known format is a checkpoint after all.
    """

    file: str
    name: str
    advice: str
    unless: Literal["weights"] | None = None


# The kinds of folders. The most specific kinds come first, because the first kind that fits is reported.
KINDS = (
    Kind(
        "bundle.json",
        "a bundle, not a checkpoint",
        "Give it without -m, or give the checkpoint that it was built from.",
    ),
    Kind(
        "adapter_config.json",
        "a PEFT adapter without its base model",
        "Merge the adapter: load it with AutoPeftModelForSequenceClassification.from_pretrained of the package peft, "
        "call merge_and_unload() and save_pretrained(FOLDER), save the tokenizer there too, and give that folder.",
    ),
    *(
        Kind(
            file,
            "a SetFit model, whose classification head is not one of transformers",
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
        "a folder with several checkpoints",
        "Give one of its subfolders checkpoint-N.",
        unless="weights",
    ),
    Kind(
        "snapshots/*/config.json",
        "a folder of the hub's cache",
        "Give its subfolder in snapshots/.",
        unless="weights",
    ),
)


def check_folder(folder: Path, *, weights: bool) -> None:
    """Raise an error if a folder is one of KINDS; `weights` tells whether it has config.json and weights to load.

    Raises:
        InputError: the message says what the folder is, and what to give instead.
    """
    for kind in KINDS:
        if not (kind.unless and weights) and any(folder.glob(kind.file)):
            raise InputError(f"{folder}: this is {kind.name}. {kind.advice}")


def says_classifier(config: dict[str, Any]) -> bool:  # the keys depend on the architecture
    """Return whether `architectures` of a config.json names a sequence classifier."""
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or [])


def check_config(folder: Path, config: dict[str, Any]) -> None:  # the keys depend on the architecture
    """Raise an error for a config.json with contradictory labels, or of a model with quantized or pruned weights.

    Raises:
        InputError: the message names the keys.
    """
    file = folder / "config.json"
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise InputError(
            f"{file}: the weights are already quantized ({method}). Give the checkpoint from before the quantization."
        )
    if any((config.get("pruned_heads") or {}).values()):
        raise InputError(
            f"{file}: pruned_heads is {config['pruned_heads']}, but transformers 5 cannot load pruned attention heads. "
            "Give a checkpoint without pruned heads."
        )
    count = check_labels(file, config)
    problem = config.get("problem_type") or None
    if problem not in PROBLEMS and not says_tags(config):
        raise InputError(
            f"{file}: problem_type is {problem!r}. It must be {' or '.join(filter(None, PROBLEMS))}, or be left out."
        )
    if problem == "regression" and count != 1:
        raise InputError(f"{file}: problem_type is regression, but there are {count} outputs. Give a model with one.")
    if problem == "single_label_classification" and count == 1:
        raise InputError(f"{file}: problem_type is {problem}, but there is one label. Correct one of the two.")


def check_head(folder: Path, config: dict[str, Any], *, trusted: bool) -> None:  # the keys depend on the architecture
    """Raise an error if the config.json of a checkpoint describes something else than a text classifier.

    The names of weights are no evidence: token classifiers too have a `classifier.weight`. Nor is the end of the class
    name: Wav2Vec2ForSequenceClassification classifies audio, and a class in the checkpoint's own code may do anything.
    `trusted` says whether that code may run.

    Raises:
        InputError: the message names the class in `architectures`, and its task according to transformers.
    """
    stated = next((str(name) for name in config.get("architectures") or []), "")
    tags = [str(name) for name in (config.get("id2label") or {}).values()]
    if not stated and len(tags) > 1 and all(map(TAG.fullmatch, tags)):
        raise InputError(
            f"{folder}: its labels {', '.join(tags[:SHOWN_WEIGHTS])} look like labels of tokens, not of texts. "
            "Name the model's class in architectures, or give a checkpoint fine-tuned for text classification."
        )
    task = _task_of(stated)
    if "AutoModelForSequenceClassification" in (config.get("auto_map") or {}):
        if not trusted and task != CLASSIFICATION:
            raise InputError(f"{folder}: {OWN_CODE}")
        if not trusted:
            log.warning("%s: %s of transformers is run. To run its own code, add --trust-remote-code.", folder, stated)
        return
    if not stated or task == CLASSIFICATION:
        return
    headless = is_headless(stated)
    if task is None and not headless:
        raise InputError(
            f"{folder}: its architecture is {stated}, which transformers does not have, so its outputs are unknown. "
            "Give a checkpoint of a class such as BertForSequenceClassification."
        )
    kind = "an encoder without a head" if headless else f"a model for {task}"
    embedding = ', or for embeddings a task with head = "embedding" and pooling = "mean" or "cls"' if headless else ""
    raise InputError(
        f"{folder}: its architecture is {stated}, {kind}, not a text classifier. "
        f"Give a checkpoint that was fine-tuned for text classification{embedding}."
    )


def says_tags(config: dict[str, Any]) -> bool:  # the keys depend on the architecture
    """Return whether `architectures` of a config.json names a token classifier."""
    return any(str(name).endswith("ForTokenClassification") for name in config.get("architectures") or ())


def is_headless(architecture: str) -> bool:
    """Return whether the name of a transformers class is that of an encoder without a head, such as BertModel."""
    return bool(re.search(r"(?<!LMHead)(?<!LMHeads)(Model|Encoder)$", architecture))


def _task_of(name: str) -> str | None:
    """Return the task of a transformers class, such as `token classification`; None if transformers lists none."""
    bare = re.sub(r"^(TF|Flax)(?=[A-Z])", "", name)
    tasks = [table for table, _, classes in _registered() if bare in classes]
    if not tasks:
        return None
    # A class may be in several tables. Sequence classification is preferred, and pretraining is the last choice.
    table = min(tasks, key=lambda table: ("_SEQUENCE_" not in table, "PRETRAINING" in table, table))
    words = table.removeprefix("MODEL_FOR_").removesuffix("_MAPPING_NAMES").replace("_", " ").lower()
    return re.sub(r"\blm\b", "language modelling", words)


def types_of(architecture: str) -> list[str]:
    """Return the values of model_type in config.json for which transformers has the class `architecture`, sorted."""
    return sorted({kind for _, kind, classes in _registered() if architecture in classes})


def types_of_classifiers() -> set[str]:
    """Return the values of model_type in config.json for which transformers has a sequence classifier."""
    return {kind for table, kind, _ in _registered() if "_SEQUENCE_" in table}


def _registered() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield table name, model_type and class names for each entry of transformers' tables of classes with a head."""
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
    """Raise an error if the weights in a checkpoint are not exactly the weights of the model that transformers made.

    Args:
        folder: the checkpoint.
        body: prefix of the names of all weights outside the classification head, such as `bert.`.
        missing: weights of the model that the checkpoint lacks.
        mismatched: name, stored shape and needed shape of weights that have another shape than the model's.
        unused: weights of the checkpoint that the model does not have.
        present: weights of the model.
        ignored: `--ignore-unused`: names or patterns of weights that may stay unused, separated by commas.

    Raises:
        InputError: the message names the weights.
    """
    if missing:
        raise InputError(_explain_missing(folder, body, missing, unused))
    if mismatched:
        name, stored, wanted = sorted(mismatched)[0]
        raise InputError(
            f"{folder}: the weight {name} has shape {list(stored)}, but config.json needs {list(wanted)}. {AGAIN}"
        )
    patterns = [pattern.strip() for pattern in (ignored or "").split(",") if pattern.strip()]
    left = [name for name in unused if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if left:
        raise InputError(
            f"{folder}: transformers would not use {len(left)} of its weights ({', '.join(_some(left))}), so the model "
            f"would not be the one that was trained. {_advice(left, present)}"
        )


def _explain_missing(folder: Path, body: str, missing: Collection[str], unused: Collection[str]) -> str:
    """Return a message that says which weights are missing, and why: other names, a lost part, or no trained head."""
    first = min(missing)
    if longer := next((name for name in sorted(unused) if name.endswith(f".{first}")), None):
        prefix = longer.removesuffix(first)
        whose = (
            "with the package peft. Merge the adapter with merge_and_unload(), save the model"
            if prefix.startswith("base_model.model.")
            else "inside a wrapper such as DataParallel, Lightning or torch.compile. Save the model in the wrapper"
        )
        return (
            f"{folder}: the names of its weights begin with {prefix!r} ({longer}), but transformers looks for {first}. "
            f"They were saved {whose} with save_pretrained(FOLDER), and give that folder."
        )
    lost = any(name.startswith(body) for name in missing)
    advice = AGAIN if lost else "Give a checkpoint that was fine-tuned for classification."
    others = f", but has weights that the model lacks ({', '.join(_some(unused))})" if lost and unused else ""
    return (
        f"{folder}: the checkpoint lacks {counted(len(missing), 'weight')}, the first of them {first}{others}. {advice}"
    )


def check_stored(folder: Path, weights: Set[str], *, body: str) -> None:
    """Raise an error if weights are stored as integers or in FP8: they are quantized, whatever config.json says.

    transformers would use the stored numbers as weights, without their scales. `weights` are the names of the model's
    weights; in some checkpoints, they have the prefix `body`.

    Raises:
        InputError: the message names the first such weight.
    """
    from safetensors import safe_open

    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118  # it is no dictionary
                kind = opened.get_slice(name).get_dtype()
                own = (name, body + name, name.removeprefix(body))
                if kind not in FLOATS and not weights.isdisjoint(own):
                    raise InputError(
                        f"{folder}: {name} is stored as {kind}, so the weights are quantized. Give the checkpoint from "
                        "before the quantization."
                    )


def check_finite(folder: Path, weights: Iterable[tuple[str, "torch.Tensor"]]) -> None:
    """Raise an error if weights have NaN or infinity, which would give NaN for all texts or only for some rare words.

    Raises:
        InputError: the message names the first such weight.
    """
    import torch

    for name, weight in weights:
        # If a weight has NaN or infinity, so has aminmax's result, in a tenth of the time of testing each value.
        if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
            raise InputError(
                f"{folder}: {name} has NaN or infinity: the training diverged, or values were too large for float16. "
                "Give an earlier checkpoint, or one saved in float32."
            )


def _some(names: Collection[str]) -> Iterator[str]:
    ordered = sorted(names)
    yield from ordered[:SHOWN_WEIGHTS]
    if len(ordered) > SHOWN_WEIGHTS:
        yield "..."


def _advice(unused: Collection[str], present: Collection[str]) -> str:
    """Return advice on weights of a checkpoint that would stay unused; `present` are the weights of the model."""
    if any("lora_" in name for name in unused):
        return "Merge the LoRA adapter (merge_and_unload() of the package peft) and save the model again."
    if any("distance_embedding" in name for name in unused):
        return "transformers 5 lacks relative positions for this architecture. Give a model with absolute positions."
    if any(re.search(r"scale|zero_point|absmax|quant|SCB", name) for name in unused):
        return "The weights are quantized. Give the checkpoint from before the quantization."
    numbered = {re.sub(r"\.\d+\.", ".N.", name) for name in present}
    if all(re.sub(r"\.\d+\.", ".N.", name) in numbered for name in unused):
        return "They belong to further layers. Write the number of layers that were trained into config.json."
    return "If the logits do not depend on these weights, name them in --ignore-unused."


def check_vocabulary(folder: Path, vocabulary: dict[str, int], added: Collection[str], rows: int) -> None:
    """Raise an error if a tokenizer has ids without a row in the model's embedding table, which has `rows` rows.

    If only a few tokens have such ids, and none of them is in `added`, log a warning instead: `TextEncoder` refuses
    texts with these tokens.

    Raises:
        InputError: the message names one of the tokens.
    """
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= rows)
    if not beyond:
        return
    index, token = next((one for one in beyond if one[1] in added), beyond[-1])
    what = f"{folder}: its tokenizer has the id {index} ({token!r}), but its embedding table has only {rows} rows."
    if len(beyond) > STRAY_IDS or token in added:
        raise InputError(f"{what} Give the model's own tokenizer, or resize the table and train the model again.")
    log.warning("%s %d tokens have no row, and texts with one of these tokens will be refused.", what, len(beyond))


def check_logits(folder: Path, shape: tuple[int, ...] | None, *, rows: int, row: RowShape) -> None:
    """Raise an error if `shape`, the shape of a model's logits, is not [rows, *row]; it is None without logits.

    Raises:
        InputError: the message names the shape.
    """
    if shape is None or not is_of(shape[:-1], rows, row[:-1]):
        found = "no logits" if shape is None else f"logits of shape {list(shape)} for {rows} rows"
        wanted = ", ".join(["rows", *("tokens" for _ in row[:-1]), "classes"])
        raise InputError(f"{folder}: the model returns {found}. Give a model with logits of shape [{wanted}].")
    if shape[-1] != row[-1]:
        raise InputError(
            f"{folder}: the model returns {shape[-1]} logits per row, but config.json names {row[-1]} labels. "
            "Name every class in id2label."
        )
