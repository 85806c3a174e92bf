"""The same guarantees measured on this package and on its peers memcnn and RevTorch.

Usage: ``python benchmarks/conformance.py [--only ours memcnn revtorch] [--details]``. The peers come with the
``bench`` extra. Prints a table with a row for each guarantee, from measurements made now; exit code 1 if one
of ours does not hold.

Every implementation wraps the same residual functions with the same weights, in the settings that its
documentation offers for what the row asks: memcnn with ``preserve_rng_state=True`` and, for a retained graph,
``num_bwd_passes=2``; RevTorch with ``fix_random_seed=True`` for dropout and, for a retained graph,
``eagerly_discard_variables=False``. The reference is this package's stored twin: plain backpropagation.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.testing import guarantees
from revmodels.testing.check import BROKEN, HOLDS, Finding, examine
from revmodels.testing.instruments import loss
from revmodels.testing.network_under_test import Check, Figure, Make, Subject, Unit, errors

CHANNELS = 8
"""Of one stream."""

Residuals = Sequence[tuple[nn.Module, nn.Module]]


class SeenDropout(nn.Module):
    """Dropout that remembers its masks, so that a twin can repeat the first one however it was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor] = []
        self.repeats: list[SeenDropout] = []

    def forward(self, x: Tensor) -> Tensor:
        """Zero half of `x` and double the rest."""
        if self.repeats:
            return x * self.repeats[0].masks[0]
        self.masks.append((torch.rand_like(x) > 0.5).to(x.dtype) * 2)
        return x * self.masks[-1]


def smooth() -> nn.Module:
    """Without batch norm or dropout."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 1)
    )


def normalized() -> nn.Module:
    """With batch norm."""
    return nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))


def dropping() -> nn.Module:
    """With dropout."""
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), SeenDropout(), nn.Tanh())


def drawing() -> nn.Module:
    """With PyTorch's dropout."""
    return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Dropout(0.5), nn.Tanh())


class Memcnn(nn.Module):
    """A chain of memcnn's invertible wrappers."""

    def __init__(self, residuals: Residuals, row: Row) -> None:
        super().__init__()
        from memcnn import AdditiveCoupling, InvertibleModuleWrapper

        passes = 2 if row.check is guarantees.retained_graph else 1
        settings = {"preserve_rng_state": True, "num_bwd_passes": passes}
        blocks = [InvertibleModuleWrapper(AdditiveCoupling(f, g), **settings) for f, g in residuals]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return self.blocks(x)

    def round_trips(self, x: Tensor) -> Iterator[tuple[str, Sequence[Tensor], Sequence[Tensor]]]:
        """Each block's input, and that input rebuilt."""
        for i, block in enumerate(self.blocks):
            y = block._fn(x)
            yield f"blocks.{i}", [x], [block._fn.inverse(y)]
            x = y


class Revtorch(nn.Module):
    """RevTorch's sequence. It offers no inverse to call."""

    round_trips = None

    def __init__(self, residuals: Residuals, row: Row) -> None:
        super().__init__()
        import revtorch

        random, discard = row.residual in (dropping, drawing), row.check is not guarantees.retained_graph
        blocks = [revtorch.ReversibleBlock(f, g, fix_random_seed=random) for f, g in residuals]
        self.blocks = revtorch.ReversibleSequence(nn.ModuleList(blocks), eagerly_discard_variables=discard)

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return self.blocks(x)


class Ours(nn.Module):
    """`ReversibleSequence`, in the given strategy."""

    def __init__(self, residuals: Residuals, row: Row, strategy: str = "reverse") -> None:
        super().__init__()
        self.blocks = ReversibleSequence([ReversibleBlock(f, g) for f, g in residuals], strategy)

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return self.blocks(x)

    def round_trips(self, x: Tensor) -> Iterator[tuple[str, Sequence[Tensor], Sequence[Tensor]]]:
        """Each block's input, and that input rebuilt."""
        for i, block in enumerate(self.blocks.units()):
            y = block(x)
            yield f"blocks.{i}", [x], [block.inverse(y)]
            x = y


IMPLEMENTATIONS: dict[str, Callable[[Residuals, Row], Any]] = {
    "ours": Ours,
    "memcnn": Memcnn,
    "revtorch": Revtorch,
}


@dataclass(frozen=True)
class Row:
    """A guarantee, and the residual functions and depth it is measured with."""

    name: str
    check: Check
    residual: Callable[[], nn.Module] = smooth
    depth: int = 4


def distributed(make: Make, tolerance: float, **flags: bool) -> list[Figure]:
    """Gradients under DistributedDataParallel, three steps in one process."""
    subject = make(torch.float64)
    parallel = DistributedDataParallel(subject.model, **flags)
    for net in (parallel, subject.twin):
        for i in range(3):
            x = (subject.inputs[0] / (i + 1)).requires_grad_(True)
            loss(net(x.clone())).backward()
    return errors({n: (p.grad, q.grad) for n, (p, q) in subject.parameters.items()}, tolerance)


def compiled(make: Make, tolerance: float) -> list[Figure]:
    """Gradients under ``torch.compile(fullgraph=True)``: no part of the network is left to Python."""
    subject = make(torch.float64)
    torch._dynamo.reset()
    for net in (torch.compile(subject.model, fullgraph=True, backend="aot_eager"), subject.twin):
        loss(net(subject.inputs[0].clone().requires_grad_(True).clone())).backward()
    return errors({n: (p.grad, q.grad) for n, (p, q) in subject.parameters.items()}, tolerance)


SPECIAL = (guarantees.gradients, guarantees.random_state, guarantees.statistics_once)
ROWS = (
    Row("gradients, even depth", guarantees.gradients),
    Row("gradients, odd depth", guarantees.gradients, depth=5),
    Row("gradients, 64 blocks", guarantees.gradients, depth=64),
    Row("gradients, batch norm", guarantees.gradients, normalized),
    Row("gradients, dropout", guarantees.gradients, dropping),
    Row("random state, dropout", guarantees.random_state, drawing),
    Row("statistics once", guarantees.statistics_once, normalized),
    *(
        Row(name.replace("_", " "), check)
        for name, check in guarantees.GUARANTEES.items()
        if check not in SPECIAL
    ),
    Row("DDP", distributed),
    Row("DDP static_graph", partial(distributed, static_graph=True)),
    Row("DDP find_unused_parameters", partial(distributed, find_unused_parameters=True)),
    Row("torch.compile fullgraph", compiled, depth=2),
)


def make_subject(build: Callable[[Residuals, Row], Any], row: Row, dtype: torch.dtype) -> Subject:
    """An implementation around the row's residual functions, and our stored twin around copies of them."""
    torch.manual_seed(0)
    residuals = [(row.residual().to(dtype), row.residual().to(dtype)) for _ in range(row.depth)]
    copies = [(copy.deepcopy(f), copy.deepcopy(g)) for f, g in residuals]
    for originals, others in zip(residuals, copies, strict=True):
        for original, other in zip(originals, others, strict=True):
            for a, b in zip(original.modules(), other.modules(), strict=True):
                if isinstance(b, SeenDropout):
                    b.repeats = [a]  # In a list: it is no part of the twin.
    model = build(residuals, row)
    parameters: dict[str, tuple[Tensor, Tensor]] = {}
    buffers: dict[str, tuple[Tensor, Tensor]] = {}
    units = []
    for i, (originals, others) in enumerate(zip(residuals, copies, strict=True)):
        names = []
        for letter, original, other in zip("fg", originals, others, strict=True):
            for (name, p), q in zip(original.named_parameters(), other.parameters(), strict=True):
                names.append(f"blocks.{i}.{letter}.{name}")
                parameters[names[-1]] = p, q
            for (name, b), c in zip(original.named_buffers(), other.buffers(), strict=True):
                buffers[f"blocks.{i}.{letter}.{name}"] = b, c
        units.append(Unit(name=f"blocks.{i}", residuals=originals, parameters=tuple(names)))

    def deepened(more: int) -> nn.Module:
        return build(
            [(row.residual().to(dtype), row.residual().to(dtype)) for _ in range(row.depth + more)], row
        )

    x = torch.randn(4, 2 * CHANNELS, 6, 6, dtype=dtype)
    return Subject(
        model=model,
        twin=Ours(copies, row, "store"),
        inputs=(x,),
        parameters=parameters,
        buffers=buffers,
        units=tuple(units),
        deepened=deepened,
        round_trips=partial(model.round_trips, x) if model.round_trips is not None else None,
    )


def measure(implementation: str) -> dict[str, Finding]:
    """Every row on one implementation."""
    build, found = IMPLEMENTATIONS[implementation], {}
    with warnings.catch_warnings(), one_process_group():
        warnings.simplefilter("ignore")
        for row in ROWS:
            (found[row.name],) = examine(partial(make_subject, build, row), {row.name: row.check}).findings
    return found


@contextmanager
def one_process_group() -> Iterator[None]:
    """A context with a process group of this process alone."""
    with TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def table(columns: dict[str, dict[str, Finding]]) -> str:
    """Rows are guarantees, columns implementations; Markdown."""
    words = {HOLDS: "yes", BROKEN: "**no**"}
    lines = ["| guarantee | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for row in ROWS:
        cells = [words.get(found[row.name].outcome, "–") for found in columns.values()]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(IMPLEMENTATIONS), default=list(IMPLEMENTATIONS))
    parser.add_argument("--details", action="store_true", help="print what was measured for every no")
    chosen = parser.parse_args(arguments)
    columns = {}
    for name in chosen.only:
        label = name if name == "ours" else f"{name} {version(name)}"
        columns[label] = measure(name)
    print(table(columns))
    if chosen.details:
        for label, findings in columns.items():
            for row, finding in findings.items():
                if finding.outcome == BROKEN:
                    print(f"{label}: {row}: {finding.detail.splitlines()[0][:200]}")
    ours = columns.get("ours", {})
    return int(any(finding.outcome != HOLDS for finding in ours.values()))


if __name__ == "__main__":
    sys.exit(main())
