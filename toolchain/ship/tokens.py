"""The tokenizer of a repository: the Rust library alone, with the ids that the evaluator makes."""

import json
from collections.abc import Sequence
from typing import Any

from toolchain.bundle.resolved import ResolvedRecipe
from toolchain.data.rows import Text
from toolchain.errors import GateError, InputError
from toolchain.runtimes.parity import PROBES, probe_texts
from toolchain.ship.signature import Tensors
from toolchain.tensors import TEXT_INPUTS

COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Input of the graph -> attribute of an encoding of `tokenizers`."""


def standalone(resolved: ResolvedRecipe) -> str:
    """Return a tokenizer.json that truncates as the evaluator does and needs nothing else.

    It is what transformers made of the bundle's files, which may differ from the tokenizer.json among them: options in
    tokenizer_config.json change it, and there may be a vocabulary alone.

    Raises:
        GateError: it gives other ids than the evaluator on built-in texts.
        InputError: the bundle's tokenizer is not one of the Rust library.
    """
    from tokenizers import Tokenizer

    known = resolved.tokenizer
    if not getattr(known, "is_fast", False):
        raise InputError(
            f"{resolved.source.folder}: its tokenizer runs in Python alone, and the repository has no transformers. "
            "Convert it to a tokenizer.json."
        )
    alone: Any = Tokenizer.from_str(known.backend_tokenizer.to_str())
    alone.no_padding()
    alone.enable_truncation(resolved.max_length, direction=known.truncation_side)
    _check(alone, resolved)
    return json.dumps(json.loads(alone.to_str()), ensure_ascii=False, indent=1) + "\n"


def _check(alone: Any, resolved: ResolvedRecipe) -> None:
    columns = len(resolved.task.text_columns)
    texts: list[Text] = [*probe_texts(columns), ("",) * columns, (" ".join(PROBES) * 20,) * columns]
    wanted = resolved.encode(texts).columns
    for text, found in zip(texts, alone.encode_batch([_joined(text) for text in texts]), strict=True):
        row = texts.index(text)
        for name, ids in wanted.items():
            if list(getattr(found, COLUMNS[name])) != list(ids[row]):
                raise GateError(
                    f"{resolved.source.folder}: the tokenizer alone gives other {name} than with transformers for "
                    f"{text[0][:40]!r}. Report this bug."
                )


def _joined(text: Text) -> str | tuple[str, ...]:
    return text if len(text) == 2 else text[0]


def settings(
    resolved: ResolvedRecipe, inputs: Tensors, buckets: Sequence[int], *, max_characters: int
) -> dict[str, Any]:
    """Return what repository/tokenizer.py reads beside its tokenizer.json.

    Raises:
        InputError: the graph has an input that no tokenizer makes.
    """
    if unknown := [name for name in inputs if name not in COLUMNS]:
        raise InputError(
            f"{resolved.source.folder}: its graph takes {unknown[0]}, which no tokenizer makes. Build it again."
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
