"""Makes the tokenizer of a repository: it needs only the Rust library `tokenizers` and gives the same ids as `eval`."""

import json
from collections.abc import Sequence

from toolchain.base.tensors import TEXT_INPUTS
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.probes import long_text, probe_texts
from toolchain.data.rows import Text
from toolchain.errors import GateError, InputError
from toolchain.records.ship import TokenizerSettings
from toolchain.ship.signature import Tensors

# Input of the graph -> attribute of a `tokenizers.Encoding` that has the values of this input.
COLUMNS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def standalone_tokenizer(resolved: ResolvedRecipe) -> str:
    """Return a tokenizer.json that works without transformers and truncates as the evaluator does.

    It is made from the tokenizer that transformers loaded, and not from the bundle's tokenizer.json, because options in
    tokenizer_config.json change the tokenizer, and some checkpoints have only a vocabulary.

    Raises:
        GateError: it gives other ids than the evaluator for built-in texts.
        InputError: the bundle's tokenizer does not run in the Rust library.
    """
    if resolved.encoder.rust is None:
        raise InputError(
            f"{resolved.source.folder}: its tokenizer runs only in Python, but Triton has no transformers. "
            "Convert it to a tokenizer.json."
        )
    text = json.dumps(json.loads(resolved.encoder.rust.to_str()), ensure_ascii=False, indent=1) + "\n"
    _check_ids(text, resolved)
    return text


def _check_ids(written: str, resolved: ResolvedRecipe) -> None:
    """Check that the written tokenizer gives the evaluator's ids, also for empty texts and truncated ones."""
    from tokenizers import Tokenizer

    alone = Tokenizer.from_str(written)
    alone.encode_special_tokens = resolved.encoder.split_special_tokens
    columns = resolved.head.texts_per_row
    texts: list[Text] = [*probe_texts(columns), ("",) * columns, long_text(columns, resolved.max_length)]
    texts += [tuple(f"{text} {token}" for text in texts[0]) for token in resolved.tokenizer.all_special_tokens]
    wanted = resolved.encode(texts).columns
    for text, found in zip(texts, alone.encode_batch([_joined(text) for text in texts]), strict=True):
        row = texts.index(text)
        for name, ids in wanted.items():
            if list(getattr(found, COLUMNS[name])) != list(ids[row]):
                raise GateError(
                    f"{resolved.source.folder}: without transformers, the tokenizer gives different {name} for "
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
    encoder = resolved.encoder
    found: TokenizerSettings = {
        "texts": list(TEXT_INPUTS[: resolved.head.texts_per_row]),
        "outputs": [
            {
                "name": name,
                "attribute": COLUMNS[name],
                "dtype": tensor.type.removeprefix("TYPE_").lower(),
                "pad": encoder.pad_values[name],
            }
            for name, tensor in inputs.items()
        ],
        "buckets": list(buckets),
        "max_characters": max_characters,
        "split_special_tokens": encoder.split_special_tokens,
        "equal_length": resolved.source.facts.equal_length,
    }
    if resolved.head.join:
        found["spans"] = True
    return found
