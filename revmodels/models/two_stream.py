"""What `RevViT` and `IRevNet` share: one reversible sequence from stem to head, storing nothing within."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revmodels.models.architecture import Architecture
from revmodels.models.base import ResidualNetwork
from revmodels.models.revnet import RevNet
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence


class TwoStreamNetwork(RevNet):
    """Base of networks whose units all are invertible, whatever their resolution.

    Strategies, memory budget and precision are those of `RevNet`.

    Args:
        architecture: the numbers of the network.
        stem: images to the input of `transform`; it keeps at most the images for the backward pass.
        body: every unit, first to last.
        head: the output of `transform` to class scores.
        num_classes: outputs of the classifier.
        width: multiplier on the preset's channels, as asked for.
        precision: arithmetic and stream dtype.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        stem: nn.Sequential,
        body: ReversibleSequence,
        head: nn.Sequential,
        num_classes: int,
        width: float,
        precision: Precision,
    ) -> None:
        # Not RevNet's: that one builds convolutional stems, stage entries and heads.
        nn.Module.__init__(self)
        self.architecture = architecture
        self.width = float(width)
        self.num_classes = num_classes
        self.stem = stem
        self.body = body
        self.body.owner_plans = True
        self.head = head
        self.precision = precision

    def features(self, images: Tensor) -> Tensor:
        """What the head classifies: the first unit can be inverted, so what precedes it need not be kept."""
        return ResidualNetwork.features(self, images)

    def start(self, images: Tensor) -> Tensor:
        """Apply the stem, which holds nothing that would be worth a second evaluation."""
        if torch.is_grad_enabled():
            self.body.plan_for(self, images)
        return ResidualNetwork.start(self, images)
