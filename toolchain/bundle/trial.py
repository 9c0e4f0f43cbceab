"""The trial of a new bundle: before it replaces the old version, it is opened and run in the way a user will."""

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
    """Open the bundle in `folder` from its own files, and run its tokenizer and its FP32 graph on a few sentences.

    Raises:
        InputError: the tokenizer cannot be loaded or gives other token ids than the checkpoint's tokenizer, or the
            graph returns logits of another shape than the head needs.
    """
    columns = resolved.head.texts_per_row
    texts = [*probe_texts(columns), long_text(columns, resolved.max_length)]
    try:
        found = resolve_bundle(open_bundle(folder, check_files=False), resolved.recipe).encode(texts)
    except ToolchainError as error:
        raise InputError(
            f"{resolved.source.folder}: its tokenizer cannot be used in a bundle, which never runs the code of a "
            f"checkpoint. {SAVE_IT}"
        ) from error
    if found != resolved.encode(texts):
        raise InputError(
            f"{resolved.source.folder}: the copy of the tokenizer in the bundle gives other token ids than the "
            f"checkpoint's tokenizer. {SAVE_IT}"
        )
    if "model.onnx" not in (file.name for file in folder.iterdir()):
        return  # the folder has a calibration, but no graph
    with open_runtime("ort", folder / "model.onnx", device="cpu") as infer:
        check_logits(folder, infer(found.batch(np.array([0]))).shape, rows=1, row=resolved.head.row)
