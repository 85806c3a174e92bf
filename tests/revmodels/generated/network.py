"""The network of a case, made of the same numbers every time."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from revmodels import ReversibleBlock, ReversibleSequence, StageEntry
from tests.revmodels.generated.case import Case
from tests.revmodels.generated.ordinary import (
    ANY,
    FLAT,
    IN_PLACE,
    REAL,
    WIDTH,
    WRAPPERS,
    Layer,
    Stream,
    WithParameter,
    stream_of,
)
from tests.revmodels.generated.unusual import GLOBAL, UNUSUAL

TABLES = REAL | ANY | IN_PLACE | UNUSUAL


def layer(recipe: Layer, stream: Stream) -> nn.Module:
    """Make one layer."""
    if isinstance(recipe, str):
        return TABLES[recipe][1](stream)
    name, inside = recipe
    return WRAPPERS[name](stream, [layer(inner, stream) for inner in inside])


class Network(nn.Module):
    """A sequence, perhaps between two trainable layers, and a second sequence over the same blocks."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        stream = stream_of(case.kind, case.batch)
        functions = [nn.Sequential(*(layer(r, stream) for r in recipes)) for recipes in case.residuals]
        coupling = "exact" if case.exact else "additive"
        units: list[ReversibleBlock] = []
        for f, g in case.units:
            units.append(ReversibleBlock(functions[f], functions[g], coupling, split_dim=stream.channels))
        blocks = [units[i] for i in case.order]
        if case.entry >= 0:
            f, g = blocks[case.entry].f, blocks[case.entry].g
            entry = StageEntry(f, g, _shortcut(stream), nn.Identity())
            entry.coupling = coupling
            blocks[case.entry] = entry
        self.body = ReversibleSequence(blocks, split_dim=stream.channels)
        # Not a child: it shares every block, and is made when it is first used.
        self.second: list[ReversibleSequence] = []
        self.framed = case.framed
        if case.framed:
            self.stem = WithParameter(torch.mul, 1)
            self.head = WithParameter(torch.mul, 1)

    def other_body(self) -> ReversibleSequence:
        """A second sequence over the same blocks."""
        if not self.second:
            self.second.append(ReversibleSequence(list(self.body.blocks), split_dim=self.body.split_dim))
        self.second[0].strategy = "store" if self.body.strategy == "store" else "reverse"
        return self.second[0]

    def forward(self, *streams: Tensor, second: bool = False) -> tuple[Tensor, ...]:
        body = self.other_body() if second else self.body
        if self.framed:
            streams = tuple(self.stem(x) for x in streams)
        out = body(*streams)
        outs = (out,) if isinstance(out, Tensor) else out
        return tuple(self.head(y) for y in outs) if self.framed else tuple(outs)


def _shortcut(stream: Stream) -> nn.Module:
    return nn.Linear(WIDTH, WIDTH) if stream.kind in FLAT else nn.Conv2d(WIDTH, WIDTH, 1)


def make_network(case: Case) -> Network:
    """The network of `case` in its dtype, storing."""
    random.seed(case.seed)
    torch.manual_seed(case.seed)
    GLOBAL[:] = [nn.Parameter(torch.randn((), dtype=torch.float64))]
    network = Network(case).to(getattr(torch, case.dtype))
    network.body.strategy = "store"
    return network


def trained(network: Network) -> dict[str, Tensor]:
    """All tensors that may need a gradient, by name: parameters and those reached otherwise."""
    found = dict(network.named_parameters())
    for name, module in network.named_modules():
        others = getattr(module, "others", None)
        for i, t in enumerate(others() if others else ()):
            found[f"{name}.others.{i}"] = t
    return found | {"global": GLOBAL[0]}
