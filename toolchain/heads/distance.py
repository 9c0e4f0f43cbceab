"""The distance of a graph's logits from the FP32 logits, by which `auto` and `tune` choose on train rows.

Accuracy on train rows says nothing, because the model was trained on them; the distance to its own FP32 logits does.
"""

from dataclasses import dataclass

import numpy as np

from toolchain.records.calibration import DistanceRecord

# The distance of logits that are not finite, because JSON has no infinity.
FAR = 1e9


@dataclass(frozen=True)
class Distance:
    """The distance of one set of logits from another.

    `kl`: mean KL divergence of the class probabilities, in nats. `rms`: root mean square of the logit differences.
    `changed`: share of rows whose label changed or, where a row has several labels or tags, the drop of the main metric
    if the reference's predictions were the truth. `kl` is None where a head has no probabilities, and
    `changed` where it has no labels.
    """

    kl: float | None
    rms: float
    changed: float | None

    @property
    def rank(self) -> float:
        """The distance as one number: of two candidates, the one with the smaller number is nearer to the reference.

        For classes it is the geometric mean of sqrt(kl) and rms, which both grow linearly with the error; without
        probabilities it is rms. The divergence weighs an error by its effect, but a few rows dominate it where the
        model was trained on the rows. The difference counts all rows alike.
        """
        return self.rms if self.kl is None else float(np.sqrt(np.sqrt(max(self.kl, 0.0)) * self.rms))

    def to_json(self) -> DistanceRecord:
        """Return the record that calibration.json and tune.json hold."""
        return {"kl": self.kl, "rms": self.rms, "changed": self.changed}
