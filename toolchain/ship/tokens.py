"""The tokenizer of a repository: the Rust library `tokenizers` without transformers, with the evaluator's ids."""

import json
from collections.abc import Sequence
from typing import Any

from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.rows import Text
from toolchain.errors import GateError, InputError
from toolchain.records.ship import TokenizerSettings
from toolchain.runtimes.parity import PROBES, probe_texts
from toolchain.ship.signature import Tensors
from toolchain.tensors import TEXT_INPUTS

# Input of the graph -> attribute of an encoding of `tokenizers` with its values.
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def standalone_tokenizer(resolved: ResolvedRecipe) -> str:
    """Return a tokenizer.json that works without transformers and truncates as the evaluator does.

    It comes from the tokenizer that transformers loaded, and not from the bundle's tokenizer.json, because options in
    tokenizer_config.json change the tokenizer, and some checkpoints have only a vocabulary.

    Raises:
        GateError: it gives other ids than the evaluator on built-in texts.
        InputError: the bundle's tokenizer is not one of the Rust library.
    """
    from tokenizers import Tokenizer

    known = resolved.tokenizer
    if not getattr(known, "is_fast", False):
        raise InputError(
            f"{resolved.source.folder}: its tokenizer runs only in Python, and a repository has no transformers. "
            "Convert it to a tokenizer.json."
        )
    alone: Any = Tokenizer.from_str(known.backend_tokenizer.to_str())
    alone.no_padding()
    alone.enable_truncation(resolved.max_length, direction=known.truncation_side)
    _check_ids(alone, resolved)
    return json.dumps(json.loads(alone.to_str()), ensure_ascii=False, indent=1) + "\n"


def _check_ids(alone: Any, resolved: ResolvedRecipe) -> None:
    """Compare all ids with the evaluator's, also for empty texts and for texts that are truncated."""
    columns = len(resolved.task.text_columns)
    texts: list[Text] = [*probe_texts(columns), ("",) * columns, (" ".join(PROBES) * 20,) * columns]
    wanted = resolved.encode(texts).columns
    for text, found in zip(texts, alone.encode_batch([_joined(text) for text in texts]), strict=True):
        row = texts.index(text)
        for name, ids in wanted.items():
            if list(getattr(found, COLUMNS[name])) != list(ids[row]):
                raise GateError(
                    f"{resolved.source.folder}: without transformers the tokenizer gives other {name} for "
                    f"{text[0][:40]!r}. Report this bug."
                )


def _joined(text: Text) -> str | tuple[str, ...]:
    return text if len(text) == 2 else text[0]


def settings(
    resolved: ResolvedRecipe, inputs: Tensors, buckets: Sequence[int], *, max_characters: int
) -> TokenizerSettings:
    """Return the content of settings.json, which repository/tokenizer.py reads beside its tokenizer.json.

    Raises:
        InputError: the graph has an input that the tokenizer cannot produce.
    """
    if unknown := [name for name in inputs if name not in COLUMNS]:
        raise InputError(
            f"{resolved.source.folder}: its graph has the input {unknown[0]}, which a tokenizer does not produce. "
            "Build the bundle again."
        )
    pad_values = resolved.encode([("",) * len(resolved.task.text_columns)]).pad_values
    return {
        "texts": list(TEXT_INPUTS[: len(resolved.task.text_columns)]),
        "outputs": [
            {
                "name": name,
                "attribute": COLUMNS[name],
                "dtype": tensor.type.removeprefix("TYPE_").lower(),
                "pad": pad_values[name],
            }
            for name, tensor in inputs.items()
        ],
        "buckets": list(buckets),
        "max_characters": max_characters,
    }
