"""The running statistics of batch norms, which move once a step however often a layer is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn

from revmodels.torch_internals import BatchNorm, own_buffers


def batch_norms(modules: Iterable[nn.Module]) -> list[BatchNorm]:
    """The batch norms within `modules` whose running statistics a call would move, each once."""
    found = {id(layer): layer for module in modules for layer in module.modules() if moves_statistics(layer)}
    return list(found.values())


def moves_statistics(layer: nn.Module) -> bool:
    """Whether a call of `layer` in its present mode moves the running statistics of a batch norm."""
    return isinstance(layer, BatchNorm) and layer.training and layer.track_running_stats


@contextmanager
def frozen_statistics(layers: Iterable[BatchNorm]) -> Iterator[None]:
    """A context in which `layers` normalize by batch statistics and move nothing.

    With ``track_running_stats`` off, a training-mode batch norm passes no running buffers to the same kernel,
    so the values it returns are bit for bit those of the forward pass.
    """
    layers = tuple(layers)
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


class ScratchStatistics(AbstractContextManager):
    """As `frozen_statistics`, with throw-away running buffers in place of none; it may be entered again.

    Autograd then saves as many tensors as in the forward pass, which `torch.utils.checkpoint` insists on.
    """

    def __init__(self, layers: Iterable[BatchNorm]) -> None:
        self._layers = tuple(layers)
        self._kept: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self._kept = [dict(own_buffers(layer)) for layer in self._layers]
        for layer, buffers in zip(self._layers, self._kept, strict=True):
            own_buffers(layer).update({n: None if b is None else b.clone() for n, b in buffers.items()})

    def __exit__(self, *_: object) -> None:
        for layer, buffers in zip(self._layers, self._kept, strict=True):
            own_buffers(layer).update(buffers)
        self._kept = []
