"""What was used while something ran that began and ended anywhere: figures, power over time, and what is missing."""

from dataclasses import dataclass, field
from typing import Any

from toolchain.energy.component import Block, component, counted
from toolchain.energy.context import context, flags
from toolchain.energy.samples import Samples, sample
from toolchain.energy.span import measured
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import COMPONENTS


@dataclass
class Reading:
    """Figures are None until it has ended, and where nothing could be measured; `missing` says why.

    Attributes:
        device: cpu, where the GPUs are shown but not in the total; anything else adds them.
        seconds: how long it was.
        components: as in the energy block of a result, with the joules that its edges leave open (`edge_error_j`).
        samples: power over time, None where there is none.
        context: limits, clocks, temperature and other users of the GPUs.
        flags: what to know before believing the figures, in words.
    """

    device: str
    seconds: float | None = None
    components: dict[str, Block] = field(default_factory=dict)
    samples: Samples | None = None
    context: Block = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    def end(self, meter: EnergyMeter, opened_s: float, closed_s: float) -> None:
        """Take the figures between two moments of a meter (see `span.measured`)."""
        window, open_j = measured(meter, opened_s, closed_s)
        self.seconds = window.seconds
        samples = sample(meter, window, self.device)
        self.samples = samples if samples.power_w else None
        for name in COMPONENTS:
            found = self.components[name] = component(name, [window], meter, self.device)
            if found["joules"] is not None:
                left_open_j = sum(joules for key, joules in open_j.items() if key[0] == name)
                found |= {"peak_power_w": samples.peak_w[name], "edge_error_j": left_open_j}
        self.context = context(meter)
        self.flags = flags(self.components, self.context)

    @property
    def joules(self) -> dict[str, float | None]:
        """Component -> joules, or None."""
        return {name: one["joules"] for name, one in self.components.items()}

    @property
    def missing(self) -> dict[str, str]:
        """Component without joules -> reason code, such as no_nvml_library."""
        return {name: one["reason"] for name, one in self.components.items() if one["joules"] is None}

    @property
    def total_j(self) -> float | None:
        """The joules of what was measured together; GPU memory is part of its board."""
        return self._sum_of("joules")

    @property
    def mean_power_w(self) -> float | None:
        """Watts of what was measured together."""
        return None if self.total_j is None or not self.seconds else self.total_j / self.seconds

    @property
    def peak_power_w(self) -> float | None:
        """The highest watts of what was measured together."""
        return None if self.samples is None else self.samples.total_peak_w

    @property
    def edge_error_j(self) -> float | None:
        """The most that `total_j` can be off by because it begins and ends between readings."""
        return self._sum_of("edge_error_j")

    @property
    def relative_edge_error(self) -> float | None:
        """The same as a share of `total_j`: with an update period T and a length L at most about T / L."""
        return self.edge_error_j / self.total_j if self.edge_error_j is not None and self.total_j else None

    @property
    def status(self) -> str:
        """Whether everything that counts was measured, a part of it, or nothing: as in a result."""
        lacking = [name for name in counted(self.device) if name in self.missing or self.components[name]["detail"]]
        return "unavailable" if self.total_j is None else "partial" if lacking else "measured"

    def _sum_of(self, key: str) -> float | None:
        found = [
            self.components[name][key]
            for name in counted(self.device)
            if name in self.components and self.components[name]["joules"] is not None
        ]
        return sum(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Return the record: units in the keys, null for what was not measured."""
        return {
            "seconds": self.seconds,
            "status": self.status,
            "components": self.components,
            "total_j": self.total_j,
            "mean_power_w": self.mean_power_w,
            "peak_power_w": self.peak_power_w,
            "edge_error_j": self.edge_error_j,
            "relative_edge_error": self.relative_edge_error,
            "samples": self.samples and self.samples.to_json(),
            "context": self.context,
            "flags": self.flags,
        }
