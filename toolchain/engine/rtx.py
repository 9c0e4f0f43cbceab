"""What only TensorRT-RTX needs to run a plan: a check before the plan is loaded, and a cache of compiled kernels.

A plan of TensorRT-RTX is compiled for the GPU when it is loaded and when a new shape arrives. The runtime cache keeps
these kernels, so that only the first run waits for them.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

from toolchain.base.files import write_bytes
from toolchain.errors import InputError, MachineError

log = logging.getLogger(__name__)

# The only release whose API this module uses.
MAJORS = ("rtx",)

# File name of the runtime cache, which is in the folder of its plan.
CACHE = "runtime.cache"

# Member of EngineInvalidityDiagnostics -> what is wrong, and what to do. MALFORMED_ENGINE is a fault of the file and
# raises InputError; the others concern the machine and raise MachineError.
FAULTS = {
    "MALFORMED_ENGINE": "the file is not a plan of TensorRT-RTX. Build it again",
    "VERSION_MISMATCH": "the plan was built by another version of TensorRT-RTX. Build it again with this version",
    "UNSUPPORTED_CC": "the plan was built for another GPU. Build it with --target for this GPU",
    "OLD_CUDA_DRIVER": "the driver is too old for the plan. Update the driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for the plan. Update CUDA",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory. Free memory, or build with a smaller --batch-size",
    "CUDA_ERROR": "CUDA reports an error. Run `toolchain doctor`",
}


def check_validity(trt: Any, runtime: Any, data: bytes, where: Path) -> None:
    """Refuse a plan that TensorRT-RTX calls invalid for this machine. The check executes nothing of the plan.

    Raises:
        InputError: the plan is malformed.
        MachineError: the plan needs another version, GPU or driver, or more memory.
    """
    validity, bits = runtime.get_engine_validity(data)
    if validity != trt.EngineValidity.INVALID:
        return
    known = trt.EngineInvalidityDiagnostics.__members__
    found = [name for name in FAULTS if int(bits) & int(known[name])]
    fault = FAULTS[found[0]] if found else "TensorRT-RTX calls the plan invalid, without a reason. Build it again"
    raise (InputError if found[:1] == ["MALFORMED_ENGINE"] else MachineError)(f"{where}: {fault}.")


class RuntimeContexts:
    """Creates the execution contexts of an engine (see Contexts), with its runtime cache in a file beside the plan.

    The file begins with the digests of the plan and of the cache, and is ignored if one of them differs.
    """

    captures = True

    def __init__(self, trt: Any, engine: Any, plan: Path, plan_sha256: str, *, cuda_graphs: bool, pinned: bool) -> None:
        """Read the runtime cache, unless the bundle is `pinned`: trusted by a digest that does not cover the cache."""
        self._engine, self._file, self._plan_sha256 = engine, plan.parent / CACHE, plan_sha256
        self.workspace_bytes = int(engine.device_memory_size_v2)
        self._runtime_config = engine.create_runtime_config()
        self._runtime_config.set_execution_context_allocation_strategy(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if cuda_graphs:
            self._runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._runtime_cache = self._runtime_config.create_runtime_cache()
        self._pinned, self._known = pinned, b"" if pinned else read_cache(self._file, plan_sha256)
        if self._known and not self._runtime_cache.deserialize(self._known):
            log.warning("%s: the runtime cache was made on another machine, so kernels are compiled again", self._file)
        self._runtime_config.set_runtime_cache(self._runtime_cache)

    def create(self, workspace: int) -> Any:
        """Return a new context with the workspace at this device address; None if the GPU has too little memory."""
        context = self._engine.create_execution_context(self._runtime_config)
        if context is not None:
            context.set_device_memory(workspace, self.workspace_bytes)
        return context

    def close(self) -> None:
        """Save the runtime cache if kernels were added to it, and release the engine. A failed save is only logged."""
        data = bytes(self._runtime_cache.serialize())
        if not self._pinned and data != self._known:
            try:
                write_bytes(self._file, cache_file(data, self._plan_sha256))
            except OSError as error:
                why = error.strerror
                log.warning(
                    "%s: the runtime cache was not saved (%s), so the next run compiles kernels again", self._file, why
                )
        self._runtime_cache = self._runtime_config = self._engine = None


def cache_file(data: bytes, plan_sha256: str) -> bytes:
    """Return the content of a runtime cache's file: the digests of plan and cache, one per line, and the cache."""
    return f"{plan_sha256}\n{_sha256(data)}\n".encode() + data


def read_cache(file: Path, plan_sha256: str) -> bytes:
    """Return the runtime cache in a file, or no bytes if the file is missing, changed, or belongs to another plan."""
    try:
        head, digest, data = file.read_bytes().split(b"\n", 2)
    except (OSError, ValueError):
        return b""
    fits = head.decode(errors="replace") == plan_sha256 and digest.decode(errors="replace") == _sha256(data)
    return data if fits else b""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
