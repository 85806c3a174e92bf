"""The metrics of the tasks that come with the package. PyTorch is not needed to know them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that tells how well a network does on a split.

    Attributes:
        name: The stem of its columns: ``accuracy`` stands in ``accuracy_train``, ``_val`` and ``_test``.
        direction: ``min`` or ``max``, whichever is better.
        meaning: A few words for people.
        unit: Empty for pure numbers.
    """

    name: str
    direction: str
    meaning: str
    unit: str = ""

    def column(self, split: str) -> str:
        """Its column for ``train``, ``val`` or ``test``."""
        return f"{self.name}_{split}"


LOSS = Metric(name="loss", direction="min", unit="nats", meaning="mean cross-entropy")
ACCURACY = Metric(
    name="accuracy", direction="max", unit="fraction", meaning="share of examples whose class is found"
)
BITS_PER_BYTE = Metric(
    name="bits_per_byte", direction="min", unit="bits/byte", meaning="bits that a byte of text takes"
)

METRICS: dict[str, tuple[Metric, ...]] = {
    "classification": (LOSS, ACCURACY),
    "language": (LOSS, BITS_PER_BYTE),
}
"""Those of each task, the loss first. By the second, unpromising trials are told."""
