"""The facts about a checkpoint: its labels, inputs, vocabulary and positions, and whether padding changes its logits.

They are determined for each checkpoint, without a list of architectures: transformers reads the configuration, and the
model is run on a few built-in sentences while the lookups in its embedding tables are recorded.
"""

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch, RowShape, joined
from toolchain.checkpoint.checks import AGAIN, check_logits, check_vocabulary
from toolchain.checkpoint.faults import cause
from toolchain.checkpoint.model import Source, load_model
from toolchain.checkpoint.tokenize import TextEncoder, Tokens
from toolchain.data.probes import PROBES
from toolchain.data.rows import Text
from toolchain.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# Number of tokens in the row for which lookups in embedding tables are recorded: enough to recognise consecutive
# positions, and fewer than any model has positions.
WATCHED_TOKENS = 7

# The sentences on which a checkpoint is tried are truncated to this number of tokens, so that even a large model takes
# little time.
TRIED_TOKENS = 48

# Number of sentences on which a checkpoint is tried: the longest ones in PROBES, whose lengths differ.
TRIED = 5

# Padding, or the other rows of a batch, may change a logit by this fraction of the largest logit (or of 1 if that is
# larger), because the result of a floating-point sum depends on the order of its terms.
TOLERANCE = 1e-4

# If the logits of all sentences differ by at most this fraction of the largest logit (or of 1 if that is larger), they
# count as equal: the model ignores the text.
CONSTANT = 1e-6


@dataclass(frozen=True)
class Facts:
    """The facts about a checkpoint that the rest of the code needs to run it.

    Attributes:
        labels: names of the classes in the order of the logits; one name for a regression, none for embeddings.
        values: input name -> number n of its possible ids, 0 to n - 1; in the order of the inputs.
        longest: largest number of tokens in a row, by the position table or the configuration; None without a limit.
        pad_id: token id of padded positions.
        equal_length: whether the logits depend on padding, so that all rows of a batch must have the same length.
        width: length of the vectors of an embedding model; None for a classifier.
    """

    labels: tuple[str, ...]
    values: dict[str, int]
    longest: int | None
    pad_id: int
    equal_length: bool = False
    width: int | None = None


def examine(source: Source) -> Facts:
    """Load a checkpoint, run it on built-in sentences, and return the facts about it.

    Raises:
        InputError: it is not a model that can be run on token ids, or its weights, tokenizer and configuration do not
            fit each other.
        MachineError: its code or its tokenizer needs a package that is not installed.
    """
    model, tokenizer = load_model(source), source.tokenizer
    inputs = _inputs(model, tokenizer)
    pad_id = _pad_id(source, model, tokenizer)
    watched = _Watched(source, model, _plain_row(tokenizer, _encoder(source, inputs, pad_id, TRIED_TOKENS), pad_id))
    ids = tokenizer.get_vocab()
    if watched.vocabulary is not None:
        check_vocabulary(source.folder, ids, tokenizer.get_added_vocab(), watched.vocabulary)
    vocabulary = watched.vocabulary or max(ids.values()) + 1
    labels = _labels(source, model)
    width = watched.shape[-1] if source.pooling and watched.shape else None
    check_logits(source.folder, watched.shape, rows=1, row=_row(source, len(labels) if width is None else width))
    types = _stated(model.config, "type_vocab_size") or vocabulary
    counts = {"input_ids": vocabulary, "attention_mask": 2, "token_type_ids": types}
    limits = [*watched.positions, *filter(None, [_stated(model.config, "max_position_embeddings")])]
    longest = min(watched.positions or limits, default=None)
    _warn_of_other_ids(source)
    tokens = _encoder(source, inputs, pad_id, min(TRIED_TOKENS, longest or TRIED_TOKENS), vocabulary)(_sentences())
    equal_length = _needs_equal_length(source, model, tokens, longest)
    if equal_length:
        log.warning(
            "%s: the model's logits depend on padding, so only rows of equal length are batched together.",
            source.folder,
        )
    return Facts(labels, {name: counts[name] for name in inputs}, longest, pad_id, equal_length, width)


def _row(source: Source, numbers: int) -> RowShape:
    """Return the shape of one row of logits: (numbers,), or for a token classifier (None, numbers)."""
    return (None, numbers) if source.heads[0] == "tokens" else (numbers,)


def run(model: "torch.nn.Module", batch: Batch) -> NDArray[np.float32] | None:
    """Run a model on a batch, and return its logits or vectors, float32; None if it returns none (see `outputs`)."""
    import torch

    with torch.inference_mode():
        logits = outputs(model, {name: torch.from_numpy(array) for name, array in batch.items()})
    return None if logits is None else np.asarray(logits.float().numpy())


def outputs(
    model: "torch.nn.Module", inputs: "Mapping[str, torch.Tensor]", *, mask: "torch.Tensor | None" = None
) -> Any:  # a tensor, or None
    """Return the logits of a batch, or for an encoder with pooling its vectors; None if the model returns no logits.

    `mask` is the attention mask [batch, sequence]; give it if `inputs` has the mask in another shape. The logits of
    padded tokens are set to 0.
    """
    found = model(**{name: inputs[name] for name in accepted(model, inputs)})
    pooling = getattr(model, "text_pooling", None)
    if pooling:
        return pooling(found.last_hidden_state, inputs["attention_mask"] if mask is None else mask)
    logits = getattr(found, "logits", None)
    if logits is None or logits.ndim < 3:
        return logits
    real = inputs["attention_mask"] if mask is None else mask
    if logits.shape[:2] != real.shape:  # not one row per token: check_logits refuses this shape later
        return logits
    return logits * real[:, :, None].to(logits.dtype)  # padded positions are 0 in every runtime


def accepted(model: "torch.nn.Module", inputs: Iterable[str]) -> list[str]:
    """Return `inputs` without the attention mask if `model.forward` has no such argument, as in FNet."""
    names = inspect.signature(model.forward).parameters
    return [name for name in inputs if name != "attention_mask" or name in names]


def _inputs(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Return the names of the model's inputs, in order.

    `token_type_ids` is one of them if the configuration has several token types and the tokenizer does not exclude
    them, or if the configuration says nothing about token types and the tokenizer returns them.
    """
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        types = _stated(model.config, "type_vocab_size", least=0)
        stated = tokenizer.init_kwargs.get("model_input_names", ["token_type_ids"])
        typed = "token_type_ids" in tokenizer.model_input_names if types is None else types > 1
        names += ["token_type_ids"] if typed and "token_type_ids" in stated else []
    return tuple(names)


def _stated(config: Any, key: str, *, least: int = 1) -> int | None:
    """Return the whole number under a key of a configuration; None if it is missing or below `least`."""
    value = getattr(config, key, None)
    return value if isinstance(value, int) and value >= least else None


def _pad_id(source: Source, model: Any, tokenizer: Any) -> int:
    """Return the token id of padding: the one in config.json, or else the tokenizer's.

    Raises:
        UsageError: neither has one.
    """
    stated = _stated(model.config, "pad_token_id", least=0)
    pad_id = tokenizer.pad_token_id if stated is None else stated
    if pad_id is None:
        raise UsageError(
            f"{source.folder}: neither the model nor the tokenizer has a padding token. Add pad_token to "
            "tokenizer_config.json, and pad_token_id to config.json."
        )
    return int(pad_id)


def _labels(source: Source, model: Any) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the logits, as transformers reads them from config.json.

    For an embedding model there are none.

    Raises:
        InputError: config.json has no labels.
    """
    if source.pooling:
        return ()
    named = getattr(model.config, "id2label", None)
    if not named:
        raise InputError(f"{source.folder / 'config.json'}: it names no labels. Add id2label.")
    return tuple(str(named[key]) for key in sorted(named))


def _encoder(
    source: Source, inputs: tuple[str, ...], pad_id: int, max_length: int, vocabulary: int | None = None
) -> TextEncoder:
    """Return the encoder that turns texts into token ids, truncated to `max_length`.

    Raises:
        InputError: the tokenizer needs other input than plain texts, such as words with their positions on a page.
    """
    try:
        return TextEncoder(source.tokenizer, max_length=max_length, inputs=inputs, pad_id=pad_id, vocabulary=vocabulary)
    except Exception as error:  # the class depends on the tokenizer
        raise InputError(
            f"{source.folder}: its tokenizer ({type(source.tokenizer).__name__}) cannot tokenize plain texts "
            f"({cause(error)}). Fix the tokenizer's files, or choose a model for text."
        ) from error


def _warn_of_other_ids(source: Source) -> None:
    """Log a warning if transformers' tokenizer gives other token ids than tokenizer.json alone.

    A wrong `tokenizer_class` in tokenizer_config.json is a frequent cause.
    """
    from tokenizers import Tokenizer

    file, texts = source.folder / "tokenizer.json", [text for (text,) in _sentences()]
    if not file.is_file() or not source.tokenizer.is_fast:
        return
    stored = Tokenizer.from_file(str(file))
    stored.no_padding()
    stored.no_truncation()
    read = [list(source.tokenizer(text)["input_ids"]) for text in texts]
    other = sum(found.ids != ids for found, ids in zip(stored.encode_batch(texts), read, strict=True))
    if other:
        log.warning(
            "%s: the tokenizer of transformers (%s) gives other token ids than tokenizer.json alone for %d of %d "
            "sentences. Check that tokenizer_class in tokenizer_config.json is right.",
            source.folder,
            type(source.tokenizer).__name__,
            other,
            len(texts),
        )


def _sentences() -> list[Text]:
    return [(text,) for text in sorted(PROBES, key=len)[-TRIED:]]


def _plain_row(tokenizer: Any, encoder: TextEncoder, pad_id: int) -> Batch:
    """Return a batch of one row, int32 [1, sequence], in which one ordinary token replaces all words of a sentence.

    The row has at most WATCHED_TOKENS tokens. Real words are not used: in odd vocabularies, an unknown word may get the
    padding id, which some models leave out when they count positions.
    """
    whole = encoder([(PROBES[0],)]).batch(np.array([0]))
    last = whole["input_ids"].shape[1] - 1
    batch = {name: array[:, [*range(min(last, WATCHED_TOKENS - 1)), last]] for name, array in whole.items()}
    ends = {int(batch["input_ids"][0, 0]), int(batch["input_ids"][0, -1])}
    taken = {pad_id, *tokenizer.all_special_ids, *ends}
    plain = next(index for index in range(len(taken) + 1) if index not in taken)
    batch["input_ids"][0, 1:-1] = plain
    return batch


class _Watched:
    """One run of a model during which its lookups in embedding tables were recorded.

    Attributes:
        shape: shape of the logits; None if the model returns none.
        vocabulary: rows of the token embedding table; None if the model does not look up token ids directly (CANINE).
        positions: for each table of position embeddings, the number of tokens for which it has positions.
    """

    def __init__(self, source: Source, model: "torch.nn.Module", batch: Batch) -> None:
        """Run the model on a batch of one row, and record the lookups.

        Raises:
            InputError: the model cannot be run on token ids alone.
        """
        import torch
        from torch.overrides import TorchFunctionMode

        ids = torch.from_numpy(batch["input_ids"])
        length = ids.shape[1]
        tables: list[tuple[torch.Tensor, int]] = []

        class Watch(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is torch.nn.functional.embedding and args[0].ndim and args[0].shape[-1] >= length:
                    tables.append((args[0].detach().reshape(-1, args[0].shape[-1])[:, :length], len(args[1])))
                return func(*args, **(kwargs or {}))

        with Watch():
            logits = _tried(source, model, batch)
        self.shape = None if logits is None else logits.shape
        counted = torch.arange(length)
        of_ids = [rows for looked_up, rows in tables if torch.equal(looked_up[:1].int(), ids)]
        firsts = [(int(looked_up[0, 0]), rows) for looked_up, rows in tables if _counts(looked_up, counted)]
        self.vocabulary = min(of_ids, default=None)
        self.positions = [rows - first for first, rows in firsts]


def _counts(looked_up: "torch.Tensor", counted: "torch.Tensor") -> bool:
    """Return whether each row of ids counts up by 1, from the same first id: these are ids of positions."""
    return bool((looked_up - looked_up[:, :1] == counted).all() and (looked_up[:, 0] == looked_up[0, 0]).all())


def _tried(source: Source, model: "torch.nn.Module", batch: Batch) -> NDArray[np.float32] | None:
    """Run the model on a batch, and return its logits; None if it returns none.

    Raises:
        InputError: the model fails on this batch.
    """
    rows, length = batch["input_ids"].shape
    try:
        return run(model, batch)
    except Exception as error:  # the class depends on the model
        what = f"a batch of {rows} rows and {length} tokens"
        if rows > 1 and _stated(model.config, "pad_token_id", least=0) is None:
            raise InputError(
                f"{source.folder}: {source.type} cannot run {what}, because it finds the end of a row by pad_token_id, "
                "which config.json lacks. Add pad_token_id to config.json."
            ) from error
        raise InputError(
            f"{source.folder}: {source.type} cannot run {what} from {', '.join(batch)} alone "
            f"({type(error).__name__}; run again with -v for the traceback). Choose a model for text."
        ) from error


def _needs_equal_length(source: Source, model: "torch.nn.Module", tokens: Tokens, longest: int | None) -> bool:
    """Return whether padding changes the logits of a row, compared with its logits in a batch of its own.

    Raises:
        InputError: the logits of a row also depend on the other rows of a batch, or differ between two equal runs.
    """

    def logits(batch: Batch) -> NDArray[np.float32]:
        found = _tried(source, model, batch)
        assert found is not None, "the model returned logits before"
        return found

    every = range(len(tokens))
    alone = joined([logits(tokens.batch(np.array([row]))) for row in every])
    tolerance = TOLERANCE * max(1.0, float(np.abs(alone).max()))

    def differs(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
        both = joined([found, expected])
        return not bool((np.abs(both[: len(found)] - both[len(found) :]) <= tolerance).all())

    if not np.isfinite(alone).all():
        raise InputError(f"{source.folder}: the model computes NaN or infinity on a plain sentence. {AGAIN}")
    if float(np.ptp(alone, axis=0).max()) <= CONSTANT * max(1.0, float(np.abs(alone).max())):
        advice = "Check that the checkpoint has the trained weights."
        log.warning(
            "%s: the model returns the same logits for %d different texts. %s", source.folder, len(tokens), advice
        )
    if differs(logits(tokens.batch(np.array([0]))), alone[:1]):
        raise InputError(
            f"{source.folder}: the model returns other logits for the same text each time. Choose another model."
        )
    beside = joined([logits(batch)[:1] for batch in _in_company(tokens)])
    if differs(beside, alone):
        raise InputError(
            f"{source.folder}: the logits of a text depend on the other texts in its batch. Choose another model."
        )
    if _breaks_beside_an_end(model, tokens):
        raise InputError(
            f"{source.folder}: {source.type} counts end tokens over a whole batch, so a text that contains an end "
            "token would fail, or change the logits of other texts in its batch. Choose an encoder."
        )
    length = int(tokens.lengths.max()) + 3
    padded = logits(tokens.batch(np.arange(len(tokens)), length=min(length, longest or length)))
    return differs(padded, alone)


def _breaks_beside_an_end(model: "torch.nn.Module", tokens: Tokens) -> bool:
    """Return whether a batch fails, or a row gets other logits, if another row has an end token in its middle.

    Models such as BART find the end of each row by counting end tokens over the whole batch.
    """
    (batch,) = list(_in_company(tokens.take(np.array([0]))))
    alone = run(model, {name: array[:1] for name, array in batch.items()})
    batch["input_ids"][1, 1] = batch["input_ids"][1, -1]
    try:
        found = run(model, batch)
    except Exception:  # the class depends on the model
        return True
    assert alone is not None
    assert found is not None
    return not bool((np.abs(found[0] - alone[0]) <= TOLERANCE * max(1.0, float(np.abs(alone).max()))).all())


def _in_company(tokens: Tokens) -> Iterator[Batch]:
    """Yield for each row a batch of two: the row itself, and its copy with the tokens between the ends reversed."""
    for row in range(len(tokens)):
        batch = tokens.batch(np.array([row]))
        other = {name: array.copy() for name, array in batch.items()}
        other["input_ids"][:, 1:-1] = other["input_ids"][:, -2:0:-1]
        yield {name: np.concatenate([batch[name], other[name]]) for name in batch}
