"""The implementations that `benchmarks.conformance` measures, each around the same residual functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.conformance_uses import drawing, dropping, smooth
from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.testing import guarantees
from revmodels.testing.network_under_test import Check

Residuals = Sequence[tuple[nn.Module, nn.Module]]


@dataclass(frozen=True)
class Row:
    """A guarantee, and what it is measured with.

    Attributes:
        name: in the table.
        check: measures it.
        residual: makes F, and G.
        depth: blocks.
        nested: F and G are each a sequence of one block, whose F and G are `residual`'s.
        anchor_every: of this package's sequence; the peers have no such setting.

    """

    name: str
    check: Check
    residual: Callable[[], nn.Module] = smooth
    depth: int = 4
    nested: bool = False
    anchor_every: int | None = None


class Implementation(nn.Module):
    """Somebody's network. `residuals` has F and G of each block; `round_trips` is None without an inverse."""

    round_trips: Callable | None = None

    def __init__(self, residuals: Residuals) -> None:
        super().__init__()
        self.residuals = tuple(residuals)  # In a tuple: that makes them no parts of this module.

    @staticmethod
    def stored(residuals: Residuals, row: Row) -> Implementation:
        """The network that says what is right: this package's, by plain backpropagation."""
        return Ours(residuals, row, "store")


class Memcnn(Implementation):
    """A chain of memcnn's invertible wrappers."""

    def __init__(self, residuals: Residuals, row: Row) -> None:
        super().__init__(residuals)
        from memcnn import AdditiveCoupling, InvertibleModuleWrapper

        passes = 2 if row.check is guarantees.retained_graph else 1
        settings = {"preserve_rng_state": True, "num_bwd_passes": passes}
        blocks = [InvertibleModuleWrapper(AdditiveCoupling(f, g), **settings) for f, g in residuals]
        self.blocks = nn.Sequential(*blocks)
        self.is_given_a_copy = row.check is not guarantees.inputs_kept

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor. memcnn empties it, so that it is given a copy."""
        return self.blocks(x.clone() if self.is_given_a_copy else x)

    def round_trips(self, x: Tensor) -> Iterator[tuple[str, Sequence[Tensor], Sequence[Tensor]]]:
        """Each block's input, and that input rebuilt."""
        for i, block in enumerate(self.blocks):
            y = block._fn(x)
            yield f"blocks.{i}", [x], [block._fn.inverse(y)]
            x = y


class Revtorch(Implementation):
    """RevTorch's sequence. It offers no inverse to call."""

    def __init__(self, residuals: Residuals, row: Row) -> None:
        super().__init__(residuals)
        import revtorch

        random, discard = row.residual in (dropping, drawing), row.check is not guarantees.retained_graph
        blocks = [revtorch.ReversibleBlock(f, g, fix_random_seed=random) for f, g in residuals]
        self.blocks = revtorch.ReversibleSequence(nn.ModuleList(blocks), eagerly_discard_variables=discard)

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return self.blocks(x)


class Revlib(Implementation):
    """RevLib's sequence: a module for each F and each G. It offers no inverse of the whole to call."""

    def __init__(self, residuals: Residuals, row: Row) -> None:
        super().__init__(residuals)
        import revlib

        self.blocks = revlib.ReversibleSequential(*(module for pair in residuals for module in pair))

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return self.blocks(x)


class Both(nn.Module):
    """F on the first half of the channels, and G on the second: what momentumnet calls a function."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        first, second = x.chunk(2, 1)
        return torch.cat([self.f(first), self.g(second)], 1)


class Momentumnet(Implementation):
    """A momentum residual network. It has a velocity where the others have a second stream."""

    def __init__(self, residuals: Residuals, row: Row, *, stores: bool = False) -> None:
        super().__init__(residuals)
        from momentumnet import MomentumNet

        functions = [Both(f, g) for f, g in residuals]
        self.blocks = MomentumNet(functions, gamma=0.9, use_backprop=stores)

    @staticmethod
    def stored(residuals: Residuals, row: Row) -> Implementation:
        """The same network, by plain backpropagation."""
        return Momentumnet(residuals, row, stores=True)

    def forward(self, x: Tensor) -> Tensor:
        """Both halves in one tensor."""
        return self.blocks(x)


class Ours(Implementation):
    """`ReversibleSequence`, in the given strategy."""

    def __init__(self, residuals: Residuals, row: Row, strategy: str = "reverse") -> None:
        super().__init__(residuals)
        blocks = [ReversibleBlock(f, g) for f, g in residuals]
        self.blocks = ReversibleSequence(blocks, strategy, anchor_every=row.anchor_every)

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return self.blocks(x)

    def round_trips(self, x: Tensor) -> Iterator[tuple[str, Sequence[Tensor], Sequence[Tensor]]]:
        """Each block's input, and that input rebuilt."""
        for i, block in enumerate(self.blocks.units()):
            y = block(x)
            yield f"blocks.{i}", [x], [block.inverse(y)]
            x = y


IMPLEMENTATIONS: dict[str, type[Implementation]] = {
    "ours": Ours,
    "memcnn": Memcnn,
    "revtorch": Revtorch,
    "revlib": Revlib,
    "momentumnet": Momentumnet,
}
