"""The scales of an INT8 engine on the plugin path (engine_step.py), which TensorRT 8.6 and 10 read from a cache.

The cache is written from the ranges in calibration.json or by TensorRT's calibrator. The calibrator needs two networks.
Plugins of variable length cannot be calibrated. Plugins of fixed length can, but they do not work with ONNX's
convolutions nor, in INT8, with a head size of 32. So a static FP32 network with fixed-length plugins is calibrated, as
in NVIDIA's BERT sample, and its cache gives the scales of the network that is built. The tensors of both networks have
the same names, which are defined in graph/encoder.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import graph
from toolchain.base.files import sha256_file, sha256_json
from toolchain.base.tensors import Batch
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.engine import cache
from toolchain.engine.builder import Builder
from toolchain.engine.calibrator import entropy_calibrator
from toolchain.engine.cuda import open_gpu
from toolchain.engine.plan import Tag
from toolchain.engine.plugins import FIXED_LENGTH, plugin_versions
from toolchain.engine.shapes import Profile
from toolchain.engine.static import static_network
from toolchain.errors import InputError
from toolchain.graph.encoder import Encoder, plugin_ranges, tensor_name, tensor_names
from toolchain.int8.calibrate import read_calibration, stream_activations
from toolchain.records.calibration import CacheOrigin, CacheRecord, CalibratorRows

CACHE = "calibration.cache"

SEE_LOG = "Build again with -vv to see TensorRT's log."


def find_scales(
    resolved: ResolvedRecipe, staging: Path, trt: Any, tag: Tag, encoder: Encoder, profile: Profile, device: str
) -> bytes:
    """Return the content of the engine's calibration cache, and write it, with its record, beside the plan.

    The cache comes from `own_ranges`, from the file that --calibration names, or from TensorRT's calibrator.

    Raises:
        InputError: the given cache belongs to another model or version, or TensorRT's calibration is incomplete.
    """
    recipe, needed = resolved.recipe, tensor_names(encoder)
    target = staging / tag.folder / CACHE
    fits: CacheOrigin = {
        "tensorrt": tag.tensorrt,
        "model_sha256": sha256_file(staging / "model.onnx"),
        "tokenizer_sha256": sha256_json({path.name: sha256_file(path) for path in sorted(staging.glob("token*"))}),
        "max_length": resolved.max_length,
        "tensors_sha256": sha256_json(needed),
    }
    if recipe.calibrator == "own":
        data = cache.cache_text(own_ranges(resolved, staging, encoder), version=tag.tensorrt).encode()
        about: CacheRecord = {
            **fits,
            "calibrator": "own",
            "calibration_sha256": sha256_file(staging / "calibration.json"),
            "cache_sha256": cache.cache_digest(data),
        }
    elif recipe.gives_cache:
        file = Path(str(recipe.calibration))
        data, known = cache.read_cache(file)
        cache.check_cache(data, where=str(file), version=tag.tensorrt, needed=needed, about=known, fits=fits)
        assert known is not None  # check_cache refuses a cache without a record
        about = known
    else:
        data, fed = calibrate_static(resolved, trt, encoder, profile, device)
        # Scales of other tensors are left out, because TensorRT may run any tensor that has a scale in INT8.
        data = cache.select_tensors(data, needed, where="TensorRT's cache")
        about = {**fits, **fed, "calibrator": "tensorrt", "cache_sha256": cache.cache_digest(data)}
    cache.write_cache(target, data, about)
    data, known = cache.read_cache(target)  # TensorRT's own cache is checked like a user's cache
    cache.check_cache(data, where=CACHE, version=tag.tensorrt, needed=needed, about=known, fits=fits)
    return data


def own_ranges(resolved: ResolvedRecipe, staging: Path, encoder: Encoder) -> dict[str, float]:
    """Return tensor name -> amax for every tensor of the encoder that needs a scale (`tensor_names`).

    TensorRT runs a GEMM in INT8 only if its inputs and its output have scales. The amax of the inputs comes from
    calibration.json. The outputs stay in float16, so the largest |x| over the calibration rows is enough for them. This
    function measures it in one more pass over these rows.

    Raises:
        InputError: calibration.json or the rows are missing, or belong to another graph.
    """
    calibration = read_calibration(staging / "calibration.json")
    if calibration.smoothing:
        raise InputError(
            "calibration.json: its ranges belong to a smoothed graph, but the graph with plugins is not smoothed. "
            "Leave out --smooth and --calib-method auto, or give --calibrator tensorrt."
        )
    found = plugin_ranges(encoder, calibration.ranges)
    names = {
        tensor_name(index, role): name
        for index, part in enumerate(encoder.layers)
        for role, name in part.results.items()
        if tensor_name(index, role) not in found
    }
    tokens = resolved.encode(resolved.calibration_rows.texts)
    for values in stream_activations(graph.load(staging / "model.onnx"), list(names.values()), tokens):
        for name, source in names.items():
            found[name] = max(found.get(name, 0.0), float(np.abs(values[source]).max()))
    return {name: found[name] for name in tensor_names(encoder)}


def calibrate_static(
    resolved: ResolvedRecipe, trt: Any, encoder: Encoder, profile: Profile, device: str
) -> tuple[bytes, CalibratorRows]:
    """Calibrate the static network with TensorRT; return the cache that it wrote and a record of the rows that it read.

    Rows are truncated and padded to the OPT shape of `profile`, because TensorRT always reads that number of bytes. The
    plugins leave padding out of attention, but padded positions do enter TensorRT's histograms.

    Raises:
        InputError: there are fewer rows than one batch, TensorRT wrote no cache, or it did not read all batches.
    """
    rows = resolved.calibration_rows
    size, length = profile.batch[1], profile.length[1]
    batches = list(_batches(resolved, size, length, with_types=encoder.types is not None))
    if not batches:
        raise InputError(
            f"{rows.source}: {len(rows)} calibration rows do not fill one batch of {size} rows. "
            "Give more rows (--calib-samples), or a smaller --batch-size."
        )
    builder = Builder(trt, "calibration network")
    network = builder.empty(strongly_typed=False)
    versions = plugin_versions(trt, FIXED_LENGTH)
    network_weights = static_network(trt, network, encoder, batch=size, length=length, versions=versions)
    with open_gpu(device) as gpu:
        buffers = {name: gpu.buffer(array.nbytes) for name, array in batches[0].items()}

        def upload(name: str, array: Any) -> int:
            gpu.driver.memcpy_htod(buffers[name], array)
            return int(buffers[name])

        shapes = {name: array.shape for name, array in batches[0].items()}
        calibrator = entropy_calibrator(trt, batches, cache=None, upload=upload, shapes=shapes)
        builder.calibrate(network, calibrator)
    del network_weights  # TensorRT does not copy weights, so they had to stay in memory until here
    if calibrator.cache_written is None:
        raise InputError(f"calibration: TensorRT wrote no cache ({builder.messages.first_error}). {SEE_LOG}")
    if calibrator.batches_seen != len(batches):
        raise InputError(
            f"calibration: TensorRT read only {calibrator.batches_seen} of {len(batches)} batches. {SEE_LOG}"
        )
    fed: CalibratorRows = {
        "rows": len(batches) * size,
        "batches": len(batches),
        "shape": [size, length],
        "data_sha256": rows.digest,
        "missing_scales": len(builder.messages.missing_scales),
    }
    return calibrator.cache_written, fed


def _batches(resolved: ResolvedRecipe, size: int, length: int, *, with_types: bool) -> Iterator[Batch]:
    """Yield full batches of calibration rows as inputs of the static network.

    A batch has `input_ids`, and `token_type_ids` if `with_types`, int32 [length, size], and `lengths`, the number of
    tokens of each row, int32 [size, 1].
    """
    tokens = resolved.encoder_of(length)(resolved.head.sequences(resolved.calibration_rows.texts))
    for start in range(0, len(tokens) - size + 1, size):
        rows = np.arange(start, start + size)
        padded = tokens.batch(rows, length=length)
        names = ["input_ids", *(["token_type_ids"] if with_types else [])]
        batch = {name: np.ascontiguousarray(padded[name].T) for name in names}
        yield batch | {"lengths": tokens.lengths[rows].astype(np.int32)[:, None]}
