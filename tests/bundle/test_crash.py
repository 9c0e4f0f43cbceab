"""A build that is killed at any instant leaves the old bundle or the new one, whole."""

import multiprocessing
import os
import random
import signal
import time

import pytest

from toolchain.bundle import open_bundle

METHODS = ("mse", "percentile")


def rebuild(model, data, target, method):
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    build(
        Recipe.make(
            {
                "model": model,
                "data": data,
                "precision": "int8",
                "calib_samples": 20,
                "output": target,
                "calib_method": method,
            }
        )
    )


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.stress)])
def test_sigkill_leaves_the_old_bundle_or_the_new_one(tiny_distilbert, sentences, tmp_path, begun, kills):
    arguments = (str(tiny_distilbert), str(sentences), str(tmp_path / "bundle"))
    begun("fp32", tmp_path / "bundle")  # every rebuild skips the export
    context = multiprocessing.get_context("forkserver")
    # Loaded once in the server, so that a kill falls into the build and not into imports.
    context.set_forkserver_preload(["torch", "transformers", "pandas", "onnxruntime", "onnx_ir"])
    for method in METHODS:
        start = time.monotonic()
        process = context.Process(target=rebuild, args=(*arguments, method))
        process.start()
        process.join()
        lasts_s = time.monotonic() - start
    generator = random.Random(0)
    for number in range(kills):
        process = context.Process(target=rebuild, args=(*arguments, METHODS[number % 2]))
        process.start()
        process.join(generator.uniform(0, 1.3 * lasts_s))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        bundle = open_bundle(tmp_path / "bundle")  # with every digest checked
        assert bundle.manifest["calibration"]["method"] in METHODS
    rebuild(*arguments, "minmax")
    assert open_bundle(tmp_path / "bundle").manifest["calibration"]["method"] == "minmax"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
