"""The execution contexts of an engine, which each release creates in its own way."""

from pathlib import Path
from typing import Any, Protocol

from toolchain.engine.rtx import RuntimeContexts
from toolchain.engine.weak import PlainContexts

# The releases whose API this module uses; weak.py has the contexts of TensorRT 8.
MAJORS = (10, 11, "rtx")


class Contexts(Protocol):
    """Creates contexts, which run one after another and so share a workspace.

    `workspace_bytes` is its size, in bytes; 0 if each context has its own. `captures` says whether the release captures
    CUDA graphs itself.
    """

    captures: bool
    workspace_bytes: int

    def create(self, workspace: int) -> Any:
        """Return a new context with the workspace at this address; None if the GPU has too little memory."""

    def close(self) -> None:
        """Let the engine go, after its last context."""


class SharedContexts:
    """Contexts of TensorRT 10 and 11."""

    captures = False

    def __init__(self, trt: Any, engine: Any) -> None:
        """Keep the engine, and the strategy that gives contexts no workspace of their own."""
        self._engine = engine
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.workspace_bytes = int(engine.device_memory_size_v2)

    def create(self, workspace: int) -> Any:
        """Return a new context; see Contexts."""
        context = self._engine.create_execution_context(self._strategy)
        if context is not None:
            context.set_device_memory(workspace, self.workspace_bytes)
        return context

    def close(self) -> None:
        """Let the engine go."""
        self._engine = None


def make_contexts(trt: Any, engine: Any, plan: Path, plan_sha256: str, *, cuda_graphs: bool, pinned: bool) -> Contexts:
    """Return what creates the contexts of a plan's engine; the arguments are those of RuntimeContexts."""
    if hasattr(trt, "IRuntimeCache"):
        return RuntimeContexts(trt, engine, plan, plan_sha256, cuda_graphs=cuda_graphs, pinned=pinned)
    if hasattr(engine, "device_memory_size_v2"):
        return SharedContexts(trt, engine)
    return PlainContexts(engine)
