"""A bundle is opened as its user will open it, before it is put in place."""

from pathlib import Path

import numpy as np

from toolchain.bundle import open_bundle
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve_bundle
from toolchain.checkpoint.checks import check_logits
from toolchain.data.probes import long_text, probe_texts
from toolchain.errors import InputError, ToolchainError
from toolchain.runtimes import open_runtime

SAVE_IT = "Save it as a tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."


def try_bundle(folder: Path, resolved: ResolvedRecipe) -> None:
    """Open a bundle from its own files alone, and run its tokenizer and its FP32 graph.

    Raises:
        InputError: its tokenizer cannot be loaded or gives other ids than the checkpoint's, or its graph returns other
            logits than its head reads.
    """
    columns = resolved.head.texts_per_row
    texts = [*probe_texts(columns), long_text(columns, resolved.max_length)]
    try:
        found = resolve_bundle(open_bundle(folder, check_files=False), resolved.recipe).encode(texts)
    except ToolchainError as error:
        raise InputError(
            f"{resolved.source.folder}: in a bundle, which runs no code of a checkpoint, its tokenizer cannot be used. "
            f"{SAVE_IT}"
        ) from error
    if found != resolved.encode(texts):
        raise InputError(
            f"{resolved.source.folder}: the tokenizer, as a bundle stores it, gives other token ids than the "
            f"checkpoint's own. {SAVE_IT}"
        )
    if "model.onnx" not in (file.name for file in folder.iterdir()):
        return  # a calibration alone
    with open_runtime("ort", folder / "model.onnx", device="cpu") as infer:
        check_logits(folder, infer(found.batch(np.array([0]))).shape, rows=1, row=resolved.head.row)
