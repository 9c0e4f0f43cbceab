"""Creates the execution contexts of an engine. Each release of TensorRT does this in its own way."""

from pathlib import Path
from typing import Any, Protocol

from toolchain.engine.rtx import RuntimeContexts
from toolchain.engine.weak import PlainContexts

# Major versions of TensorRT, and TensorRT-RTX, whose API this module uses. weak.py has the contexts of TensorRT 8.
MAJORS = (10, 11, "rtx")


class Contexts(Protocol):
    """Creates the execution contexts of one engine. They run one after another, so they can share a workspace.

    `workspace_bytes` is the size of the shared workspace; 0 if each context has its own. `captures` says whether
    TensorRT captures CUDA graphs itself.
    """

    captures: bool
    workspace_bytes: int

    def create(self, workspace: int) -> Any:
        """Return a new context with the workspace at this device address; None if the GPU has too little memory."""

    def close(self) -> None:
        """Release the engine. All its contexts must have been released before."""


class SharedContexts:
    """Creates contexts of TensorRT 10 and 11, which share a workspace. See Contexts."""

    captures = False

    def __init__(self, trt: Any, engine: Any) -> None:
        """Keep the engine, and the allocation strategy with which the caller provides the workspace."""
        self._engine = engine
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.workspace_bytes = int(engine.device_memory_size_v2)

    def create(self, workspace: int) -> Any:
        """Return a new context with the workspace at this device address; None if the GPU has too little memory."""
        context = self._engine.create_execution_context(self._strategy)
        if context is not None:
            context.set_device_memory(workspace, self.workspace_bytes)
        return context

    def close(self) -> None:
        """Release the engine."""
        self._engine = None


def make_contexts(trt: Any, engine: Any, plan: Path, plan_sha256: str, *, cuda_graphs: bool, pinned: bool) -> Contexts:
    """Return the kind of Contexts that this release of TensorRT needs. For the arguments, see RuntimeContexts."""
    if hasattr(trt, "IRuntimeCache"):
        return RuntimeContexts(trt, engine, plan, plan_sha256, cuda_graphs=cuda_graphs, pinned=pinned)
    if hasattr(engine, "device_memory_size_v2"):
        return SharedContexts(trt, engine)
    return PlainContexts(engine)
