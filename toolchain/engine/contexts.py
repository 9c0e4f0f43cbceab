"""The execution contexts of an engine, which each release creates in its own way."""

from pathlib import Path
from typing import Any, Protocol

from toolchain.engine.rtx import RuntimeContexts


class Contexts(Protocol):
    """Creates contexts."""

    # Whether the release captures CUDA graphs itself.
    captures: bool

    def create(self) -> Any:
        """Return a new context, without a workspace; None if the GPU has too little memory."""

    def close(self) -> None:
        """Let the engine go, after its last context."""


class UserManaged:
    """Contexts of TensorRT 10 and 11."""

    captures = False

    def __init__(self, trt: Any, engine: Any) -> None:
        """Keep the engine, and the strategy that gives contexts no workspace of their own."""
        self._engine = engine
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED

    def create(self) -> Any:
        """Return a new context; see Contexts."""
        return self._engine.create_execution_context(self._strategy)

    def close(self) -> None:
        """Let the engine go."""
        self._engine = None


def make_contexts(trt: Any, engine: Any, plan: Path, plan_sha256: str, *, cuda_graphs: bool, pinned: bool) -> Contexts:
    """Return what creates the contexts of a plan's engine; the arguments are those of RuntimeContexts."""
    if hasattr(trt, "IRuntimeCache"):
        return RuntimeContexts(trt, engine, plan, plan_sha256, cuda_graphs=cuda_graphs, pinned=pinned)
    return UserManaged(trt, engine)
