"""The tokenizer of a bundle that needs only the Rust library `tokenizers`, not transformers and torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import InputError, first_line
from toolchain.records.bundle import StoredTokenizerRecord

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Files of a tokenizer in the Rust library's format. The first is the checkpoint's own file. A bundle has the second too
# if transformers makes a different tokenizer from the checkpoint's files, such as by options of tokenizer_config.json.
CHECKPOINTS, OWN = "tokenizer.json", "tokenizer.rust.json"


class StoredTokenizer:
    """A replacement for a tokenizer of transformers, with the attributes that `TextEncoder` reads.

    Unlike that tokenizer, this object cannot be called. Its `backend_tokenizer`, a tokenizer of the Rust library, gives
    the token ids. The build of the bundle checked that they are the same as transformers'.
    """

    is_fast = True

    def __init__(self, record: StoredTokenizerRecord, files: Mapping[str, bytes], folder: Path) -> None:
        """Load the tokenizer that `record`, from the manifest of a bundle, describes.

        `files` are the bundle's files, name -> bytes. Error messages name `folder`.

        Raises:
            InputError: the bundle lacks the tokenizer's file, or the file cannot be read.
        """
        from tokenizers import Tokenizer

        if record["file"] not in files:
            raise InputError(f"{folder}: the bundle has no {record['file']}. Build the bundle again with --force.")
        try:
            self.backend_tokenizer = Tokenizer.from_str(files[record["file"]].decode())
        except Exception as error:  # the library tokenizers raises Exception itself
            why = first_line(error)
            raise InputError(
                f"{folder / record['file']}: this is not a tokenizer: {why}. Build the bundle again with --force."
            ) from error
        self.truncation_side = record["truncation_side"]
        self.split_special_tokens = record["split_special_tokens"]
        self.pad_token_id, self.pad_token_type_id = record["pad_id"], record["pad_type_id"]
        self.unk_token_id, self.all_special_tokens = record["unknown_id"], record["special_tokens"]

    def get_vocab(self) -> dict[str, int]:
        """Return the vocabulary: token -> id."""
        return dict(self.backend_tokenizer.get_vocab())

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return the number of special tokens that are added to a row of one text, or of two with `pair`."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(pair))

    def convert_ids_to_tokens(self, index: int) -> str | None:
        """Return the token with the id `index`; None if no token has it."""
        return self.backend_tokenizer.id_to_token(index)


def store(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> StoredTokenizerRecord:
    """Store a tokenizer in a bundle, in the format of the Rust library, and return its record for the manifest.

    No file is written if the checkpoint's tokenizer.json, which is already in the bundle, is the same tokenizer.

    Args:
        tokenizer: the checkpoint's tokenizer, whose token ids the Rust library can compute alone.
        folder: the folder of the bundle, with the files of the checkpoint's tokenizer.
    """
    wanted = json.loads(tokenizer.backend_tokenizer.to_str())
    file = folder / CHECKPOINTS
    same = file.exists() and _comparable(json.loads(file.read_bytes())) == _comparable(wanted)
    if not same:
        text = json.dumps(wanted, ensure_ascii=False, separators=(",", ":"))
        (folder / OWN).write_text(text, encoding="utf-8")
    return {
        "file": CHECKPOINTS if same else OWN,
        "truncation_side": "left" if tokenizer.truncation_side == "left" else "right",
        "split_special_tokens": bool(tokenizer.split_special_tokens),
        "pad_id": tokenizer.pad_token_id,
        "pad_type_id": int(tokenizer.pad_token_type_id),
        "unknown_id": tokenizer.unk_token_id,
        "special_tokens": list(tokenizer.all_special_tokens),
    }


def tokenizer_files(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> list[str]:
    """Return the names of the files in `folder` from which transformers makes the tokenizer, sorted."""
    from transformers import tokenization_utils_base as base

    named = {name for name in tokenizer.vocab_files_names.values() if name}
    named |= {
        base.FULL_TOKENIZER_FILE,
        base.TOKENIZER_CONFIG_FILE,
        base.SPECIAL_TOKENS_MAP_FILE,
        base.ADDED_TOKENS_FILE,
    }
    named |= {*tokenizer.init_kwargs.get("fast_tokenizer_files", ()), "tekken.json"}
    named |= {file.name for pattern in ("*.model", "*.tiktoken") for file in folder.glob(pattern)}
    return sorted(name for name in named if (folder / name).is_file())


def _comparable(content: dict[str, Any]) -> dict[str, Any]:  # any JSON: another library's format
    """Return the content of a tokenizer.json without truncation and padding, which `TextEncoder` sets itself."""
    return {key: value for key, value in content.items() if key not in ("truncation", "padding")}
