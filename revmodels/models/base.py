"""What all networks share: stem, units, head, and what can be switched on a live model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from revmodels.models.architecture import Architecture
from revmodels.precision import Precision, precision_of
from revmodels.strategies.registry import usable_strategies


class ResidualNetwork(nn.Module):
    """Base of the networks: a stem, residual units with or without two streams, and a head.

    Args:
        architecture: the numbers of the network.
        stem: images to the input of `transform`.
        body: every unit, first to last.
        head: the output of `transform` to class scores.
        num_classes: outputs of the classifier.
        width: multiplier on the preset's channels, as asked for.
        precision: arithmetic and stream dtype; None follows the dtype of the parameters.

    Attributes:
        architecture: stages, channels and depth.
        width: multiplier on the preset's channels.
        strategy: how activations are had in the backward pass; may be assigned at any time.
        precision: arithmetic and stream dtype; may be assigned at any time.
    """

    strategy: str

    def __init__(
        self,
        architecture: Architecture,
        *,
        stem: nn.Module,
        body: nn.Module,
        head: nn.Module,
        num_classes: int,
        width: float,
        precision: Precision | None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.width = float(width)
        self.num_classes = num_classes
        self.stem = stem
        self.body = body
        self.head = head
        self.precision = precision

    def apply_precision(self, precision: Precision) -> None:
        """Hand the policy to the units."""
        raise NotImplementedError

    @property
    def strategies(self) -> tuple[str, ...]:
        """The names of the strategies that it can use."""
        return usable_strategies(invertible=self.architecture.is_reversible)

    @property
    def name(self) -> str:
        """Name with the depth in it, such as ``revnet110``."""
        return self.architecture.name

    @property
    def family(self) -> str:
        """``revnet``, ``resnet``, ``irevnet`` or ``revvit``."""
        return self.architecture.family

    @property
    def block(self) -> str:
        """``basic`` or ``bottleneck``."""
        return self.architecture.block

    @property
    def depth(self) -> int:
        """Weighted layers, as the paper counts them."""
        return self.architecture.depth

    @property
    def precision(self) -> Precision:
        """The precision policy; assigning one converts the parameters to its dtype.

        None, the default, follows the dtype of the parameters, which ``model.to(dtype)`` and the like change
        as in any module. A policy that was assigned stays in force: then such a call converts nothing.
        """
        return self._precision

    @precision.setter
    def precision(self, value: Precision | None) -> None:
        dtype = next(self.parameters()).dtype
        self._follows_parameters = value is None
        self._precision = precision_of(dtype) if value is None else value
        self.apply_precision(self._precision)
        if dtype != self._precision.parameter_dtype:
            super()._apply(partial(_to_dtype, self._precision.parameter_dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ResidualNetwork:
        dtype = next(self.parameters()).dtype
        wanted = fn(torch.empty(0, dtype=dtype)).dtype
        if wanted == dtype:
            return super()._apply(fn, recurse)
        if self._follows_parameters:
            super()._apply(fn, recurse)
            self.precision = None
            return self
        warnings.warn(
            f"the parameters stay in {dtype}, as the precision policy of this network says "
            f"({self.precision}); received a conversion to {wanted}. Assign another policy to "
            "model.precision, or None to let it follow the parameters.",
            stacklevel=3,
        )
        super()._apply(partial(_only_moved, fn), recurse)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Class scores.

        Args:
            images: (batch, channels, height, width).

        Returns:
            Logits of shape (batch, num_classes), in the dtype of the parameters.
        """
        features = self.features(images)
        return self.precision.run(self.head, features).to(self.precision.parameter_dtype)

    def features(self, images: Tensor) -> Tensor:
        """What the head classifies: (N, C, H, W) to (N, C', H', W')."""
        return self.transform(self.start(images))

    def start(self, images: Tensor) -> Tensor:
        """Apply the stem: (N, C, H, W) to (N, C0, H', W'), in the dtype of the stream."""
        return self.precision.run(self.stem, images).to(self.precision.stream_dtype)

    def transform(self, stream: Tensor) -> Tensor:
        """Apply the units to the stem's output: (N, C0, H, W) to (N, C, H', W')."""
        raise NotImplementedError


def _to_dtype(dtype: torch.dtype, t: Tensor) -> Tensor:
    return t.to(dtype) if t.is_floating_point() else t


def _only_moved(fn: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """`t` where `fn` would have put it, in its own dtype."""
    target = fn(torch.empty(0, dtype=t.dtype, device=t.device))
    return fn(t) if target.dtype == t.dtype else t.to(target.device)
