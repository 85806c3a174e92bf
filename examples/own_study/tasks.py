"""A metric of one's own: F1 of the class 1, beside the loss and the accuracy of a classification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from study.tasks.classification import Classification
from study.tasks.metrics import Metric
from study.tasks.task import Batch

F1 = Metric(name="f1", direction="max", unit="fraction", meaning="harmonic mean of precision and recall")


class Diagnosis(Classification):
    """Classification into two classes, judged by F1."""

    name = "diagnosis"
    metrics = (*Classification.metrics, F1)
    score = F1.name

    def sums(self, outputs: Any, batch: Batch, loss: float | None = None) -> Tensor:
        """Those of a classification; then hits, false alarms and misses."""
        found, true = outputs.argmax(1) == 1, batch.targets == 1
        counts = [(found & true).sum(), (found & ~true).sum(), (~found & true).sum()]
        return torch.cat([super().sums(outputs, batch, loss), torch.stack(counts).double().cpu()])

    def values(self, sums: Tensor) -> dict[str, float]:
        """Loss, accuracy and F1."""
        hits, alarms, misses = sums[3:].tolist()
        wrong = alarms + misses
        return {**super().values(sums[:3]), F1.name: 2 * hits / (2 * hits + wrong) if hits + wrong else 1.0}
