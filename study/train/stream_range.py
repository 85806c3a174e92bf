"""How far the streams of an exact coupling go in training, against how far they may go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from revmodels.grid_bits import check_bits, grid_limit
from revmodels.precision import DTYPES
from revmodels.sequence import ReversibleSequence
from study.settings.model import PrecisionSettings


@dataclass(kw_only=True)
class StreamRange:
    """What one epoch's training steps have seen.

    Attributes:
        limit: The magnitude below which the inverse is bit for bit.
        largest: The largest magnitude of either stream in any step.
        steps_out_of_range: Steps that reached the limit, which only ``on_overflow: record`` lets go on.
    """

    limit: float
    largest: float = 0.0
    steps_out_of_range: int = 0

    @classmethod
    def of(cls, precision: PrecisionSettings) -> StreamRange | None:
        """One that has seen nothing; None if the coupling is additive and has no range."""
        if precision.coupling != "exact":
            return None
        dtype = DTYPES[precision.stream]
        return cls(limit=grid_limit(check_bits(precision.grid_bits, dtype), dtype))

    def see(self, model: nn.Module) -> None:
        """Take note of the last forward pass; reads from the device."""
        seen = [m.range for m in model.modules() if isinstance(m, ReversibleSequence)]
        found = [one for one in seen if one is not None]
        self.largest = max([self.largest, *(one.value for one in found)])
        self.steps_out_of_range += any(one.overflowed for one in found)

    def epoch_columns(self) -> dict[str, Any]:
        """Of the epoch's row."""
        return {"steps_out_of_range": self.steps_out_of_range, "stream_max": self.largest}

    def after(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Of the trial's row, after the epochs that `before` tells of and this one."""
        return {
            "steps_out_of_range": before.get("steps_out_of_range", 0) + self.steps_out_of_range,
            "stream_max": max(before.get("stream_max", 0.0), self.largest),
            "stream_limit": self.limit,
        }
