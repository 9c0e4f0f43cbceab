"""How far logits are from FP32's: what choices on train rows are made by.

Accuracy on train rows says nothing, since the model was trained on them; the distance to its own FP32 logits does.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FAR = 1e9
"""JSON knows no infinity."""

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Distance:
    """`kl`: mean KL divergence of the classes' probabilities, in nats (None for a regression).

    `rms`: root mean square of the logit differences. `changed`: share of rows whose label changed (None likewise).
    """

    kl: float | None
    rms: float
    changed: float | None

    @property
    def rank(self) -> float:
        """What is compared: for classes the geometric mean of sqrt(kl) and rms, both linear in the error.

        The divergence knows which errors matter, but on rows that a model was trained on few rows make it up;
        the difference counts every row.
        """
        return self.rms if self.kl is None else float(np.sqrt(np.sqrt(max(self.kl, 0.0)) * self.rms))

    def to_json(self) -> dict[str, Any]:
        """Return the record that is kept."""
        return asdict(self)


def distance(reference: Logits, candidate: Logits) -> Distance:
    """Return how far `candidate` is from `reference`, both float32 [rows, classes].

    Logits that are not finite are FAR away.
    """
    if not np.isfinite(candidate).all():
        classes = reference.shape[1] > 1
        return Distance(FAR if classes else None, FAR, 1.0 if classes else None)
    rms = float(np.sqrt(np.square(reference.astype(np.float64) - candidate).mean()))
    if reference.shape[1] == 1:
        return Distance(None, rms, None)
    p, q = _log_probabilities(reference), _log_probabilities(candidate)
    changed = float((reference.argmax(axis=1) != candidate.argmax(axis=1)).mean())
    return Distance(float((np.exp(p) * (p - q)).sum(axis=1).mean()), rms, changed)


def _log_probabilities(logits: Logits) -> NDArray[np.float64]:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logits.astype(np.float64), axis=1))
