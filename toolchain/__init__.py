"""From a Hugging Face encoder to a checked, measured, quantised engine."""

import warnings
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "power":  # until 0.2: the module moved
        from toolchain.energy import power

        warnings.warn(
            "toolchain.power is now toolchain.energy.power. Import it from there.", DeprecationWarning, stacklevel=2
        )
        return power
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
