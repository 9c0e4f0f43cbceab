"""The distance of a quantized graph's logits from the FP32 logits.

`--calib-method auto` and `toolchain tune` compare graphs by it on train rows. Accuracy on train rows would not tell
which graph is better, because the model was trained on them.
"""

from dataclasses import dataclass

import numpy as np

from toolchain.records.calibration import DistanceRecord

# Distance if a logit is not finite. It is a finite number, because JSON has no infinity.
FAR = 1e9


@dataclass(frozen=True)
class Distance:
    """The distance of one set of logits from another.

    `kl`: mean KL divergence of the class probabilities, in nats. `rms`: root mean square of the logit differences.
    `changed`: fraction of rows whose label changed; if a row may have several labels or tags, how much the main metric
    would drop if the reference's predictions were the true labels. `kl` is None for a head without probabilities, and
    `changed` for a head without labels.
    """

    kl: float | None
    rms: float
    changed: float | None

    @property
    def rank(self) -> float:
        """The distance as one number, by which candidates are sorted: the smaller, the nearer to the reference.

        It is the geometric mean of sqrt(kl) and rms, which both grow linearly with the error; without probabilities it
        is rms. The KL divergence weighs an error by its effect on the probabilities, but on rows that the model was
        trained on, a few rows dominate it. The rms counts all rows alike.
        """
        return self.rms if self.kl is None else float(np.sqrt(np.sqrt(max(self.kl, 0.0)) * self.rms))

    def to_json(self) -> DistanceRecord:
        """Return the distance as calibration.json and tune.json store it."""
        return {"kl": self.kl, "rms": self.rms, "changed": self.changed}
