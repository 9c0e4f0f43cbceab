"""Tools that take a Hugging Face encoder from a checkpoint to a checked, measured and quantized engine.

The public Python API has five functions: `build`, `evaluate`, `compare`, `measure_energy` and `load`. They are defined
in toolchain/api.py and imported when they are first used, so that `import toolchain` takes almost no time.
"""

import os

# ONNX Runtime's packages send usage data to their maker unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TYPE_CHECKING = False  # type checkers assume True; importing it from `typing` would take 5 ms
if TYPE_CHECKING:
    from toolchain.api import build, compare, evaluate, load, measure_energy

__version__ = "0.1.0"
__all__ = ["build", "compare", "evaluate", "load", "measure_energy"]


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        return getattr(importlib.import_module("toolchain.api"), name)
    if name == "power":  # the old name of a module, which works until version 0.2
        import warnings

        text = "toolchain.power is now toolchain.energy.power. Import it from there."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return importlib.import_module("toolchain.energy.power")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
