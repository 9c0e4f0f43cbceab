"""Tiny encoders none of whose parameters is zero or one, as those of a new model are: biases and LayerNorms too."""

import numpy as np
from safetensors.numpy import load_file, save_file


def make(tiny, folder, kind, **config):
    """Save a checkpoint and its graph, model.onnx, into `folder` and return the folder."""
    from toolchain.checkpoint.export import export
    from toolchain.checkpoint.model import find_model

    tiny.make_checkpoint(folder, kind, **config)
    generator = np.random.default_rng(1)
    weights = load_file(folder / "model.safetensors")
    for name, array in weights.items():
        if array.ndim == 1 and array.dtype == np.float32:
            weights[name] = array + generator.normal(scale=0.2, size=array.shape).astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    export(find_model(str(folder)), folder / "model.onnx")
    return folder
