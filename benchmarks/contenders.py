"""What the benchmarks compare: one network in the hands of this package, of its peers and of PyTorch.

A subject is a network with a batch. Every contender has the same weights, and calls the same residual
functions; they differ in who runs the reversible units:

- ``store``: plain backpropagation, the twin that says which gradients are right;
- ``reverse``: this package;
- ``checkpoint``: `torch.utils.checkpoint`, one checkpoint a unit, non-reentrant;
- ``memcnn``: a chain of `InvertibleModuleWrapper(AdditiveCoupling(f, g))`;
- ``revtorch``: a `ReversibleSequence` for every row of units;
- ``revlib``: a `ReversibleSequential` for every row of units, in its default memory mode;
- ``compile``: `torch.compile` of the storing network, whose partitioner decides what is kept;
- ``compile_reverse``: `torch.compile` of this package's reversing network. Both take minutes to compile.

momentumnet is not among them: a velocity stands for its second stream, so it computes another network.

Peers have no unit that halves the image, so with them the first unit of a stage, the stem and the head run as
ordinary modules and store what they need; this package recomputes stem and stage entries, and pays for it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revmodels import Precision, ReversibleBlock, ReversibleSequence, StageEntry, create_model

EAGER = ("store", "reverse", "checkpoint", "memcnn", "revtorch", "revlib")
COMPILED = {"compile": "store", "compile_reverse": "reverse"}
"""Strategies of the networks that are compiled."""
NAMES = (*EAGER, *COMPILED)
COMPILER = "inductor"
TOLERANCE = 1e-8
"""Of all gradients together against the stored twin's, relative, in float64."""

MLP_BLOCKS, MLP_CHANNELS, MLP_HIDDEN = 64, 128, 512


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network and its batch.

    Attributes:
        name: in the tables.
        build: makes the network of a dtype with fresh weights from the global generator.
        shape: of the inputs without the batch.
        batch: examples for measurements of memory.
        timed_batch: examples for measurements of time; smaller where a step would take many seconds.

    """

    name: str
    build: Callable[[torch.dtype], nn.Module]
    shape: tuple[int, ...]
    batch: int
    timed_batch: int

    def data(self, batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Inputs and targets for `batch` examples, images in channels_last."""
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(batch, *self.shape, generator=generator).to(dtype)
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs, torch.arange(batch) % 10


class Stack(nn.Module):
    """Reversible units of multilayer perceptrons, and a classifier."""

    def __init__(self, blocks: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.body = ReversibleSequence(
            [ReversibleBlock(_mlp(channels, hidden), _mlp(channels, hidden)) for _ in range(blocks)]
        )
        self.head = nn.Linear(2 * channels, 10)

    def start(self, inputs: Tensor) -> Tensor:
        """Inputs are the streams."""
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 2 x channels) to (N, 10)."""
        return self.head(self.body(inputs))


def _mlp(channels: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
    )


def _network(name: str, depth: int | None = None) -> Callable[[torch.dtype], nn.Module]:
    def build(dtype: torch.dtype) -> nn.Module:
        format = "fp64" if dtype == torch.float64 else "fp32"
        return create_model(
            name, num_classes=10, depth=depth, precision=Precision(compute=format, stream=format)
        )

    return build


SUBJECTS = {
    s.name: s
    for s in (
        Subject(name="revnet110", build=_network("revnet110"), shape=(3, 32, 32), batch=100, timed_batch=16),
        Subject(name="revnet164", build=_network("revnet164"), shape=(3, 32, 32), batch=100, timed_batch=8),
        Subject(
            name="mlp64",
            build=lambda dtype: Stack(MLP_BLOCKS, MLP_CHANNELS, MLP_HIDDEN).to(dtype),
            shape=(2 * MLP_CHANNELS,),
            batch=512,
            timed_batch=128,
        ),
        Subject(name="small", build=_network("revnet38", 26), shape=(3, 16, 16), batch=4, timed_batch=4),
    )
}
"""`small` is for a look at whether everything works."""


class Checkpointed(nn.Module):
    """A unit under `torch.utils.checkpoint`."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """Both streams in one tensor."""
        return checkpoint(self.unit, x, use_reentrant=False)


class Contender(nn.Module):
    """The network of a subject with its units run by somebody else.

    Args:
        network: from `Subject.build`; its stem and head are used as they are, without recomputation.
        body: runs the units, on both streams in one tensor.

    """

    def __init__(self, network: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.network, self.body = network, body

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.network.head(self.body(self.network.start(inputs)))  # type: ignore[operator]


def contend(name: str, network: nn.Module) -> nn.Module:
    """`network`, a copy of its own for each contender, as the contender runs it."""
    if name in ("store", "reverse", *COMPILED):
        target = network.body if isinstance(network, Stack) else network
        target.strategy = COMPILED.get(name, name)
        if name not in COMPILED:
            return network
        return torch.compile(network, fullgraph=True, backend=COMPILER)  # type: ignore[return-value]
    body = network.body
    assert isinstance(body, ReversibleSequence)
    body.strategy = "store"  # so that the stem is run as an ordinary module
    units = list(body.units())
    if name == "checkpoint":
        return Contender(network, nn.Sequential(*map(Checkpointed, units)))
    parts: list[nn.Module] = []
    for is_entry, found in groupby(units, key=lambda unit: isinstance(unit, StageEntry)):
        group = list(found)
        parts += group if is_entry else _peer_units(name, group)
    return Contender(network, nn.Sequential(*parts))


def _peer_units(name: str, units: Sequence[ReversibleBlock]) -> list[nn.Module]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "memcnn":
            from memcnn import AdditiveCoupling, InvertibleModuleWrapper

            return [InvertibleModuleWrapper(AdditiveCoupling(unit.f, unit.g)) for unit in units]
        if name == "revlib":
            import revlib

            return [revlib.ReversibleSequential(*(module for unit in units for module in (unit.f, unit.g)))]
        import revtorch

        blocks = [revtorch.ReversibleBlock(unit.f, unit.g) for unit in units]
        return [revtorch.ReversibleSequence(nn.ModuleList(blocks))]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender, and its parameters in the order of the subject's own network."""

    name: str
    model: nn.Module
    parameters: tuple[nn.Parameter, ...]


def enter(subject: Subject, names: Sequence[str] = EAGER, dtype: torch.dtype = torch.float32) -> list[Entry]:
    """Every contender on copies of the same weights, images in channels_last."""
    torch.manual_seed(0)
    original = subject.build(dtype)
    if len(subject.shape) == 3:
        original = original.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    entries = []
    for name in names:
        network = copy.deepcopy(original)
        parameters = tuple(network.parameters())
        entries.append(Entry(name=name, model=contend(name, network).train(), parameters=parameters))
    return entries


def backward(entry: Entry, batch: tuple[Tensor, Tensor]) -> None:
    """One forward and backward pass; gradients are left on the parameters."""
    inputs, targets = batch
    for p in entry.parameters:
        p.grad = None
    # A stack starts with its inputs. memcnn empties the tensor that it is called with, so it gets a copy, and
    # so do all; RevTorch and RevLib compute nothing for inputs that need no gradient.
    inputs = inputs.clone().requires_grad_(inputs.dim() == 2)
    F.cross_entropy(entry.model(inputs), targets).backward()


def gradient_errors(entries: Sequence[Entry], batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Relative error of each contender's gradients, all together, against the stored twin's.

    Returns:
        The norm of the difference over the norm of the twin's gradients, by name of contender.

    Raises:
        ValueError: ``store`` is not among the entries, or a parameter got no gradient.

    """
    by_name = {entry.name: entry for entry in entries}
    if "store" not in by_name:
        raise ValueError("gradients are compared with the stored twin's: enter 'store' as well")
    flat = {}
    for entry in entries:
        backward(entry, batch)
        gradients = [p.grad for p in entry.parameters]
        if any(g is None for g in gradients):
            raise ValueError(f"{entry.name}: {sum(g is None for g in gradients)} parameters got no gradient")
        flat[entry.name] = torch.cat([g.double().flatten() for g in gradients if g is not None])
        for p in entry.parameters:
            p.grad = None
    right = flat["store"]
    return {name: float((g - right).norm() / right.norm()) for name, g in flat.items()}


def check(subject: Subject, names: Sequence[str], batch: int) -> dict[str, float]:
    """`gradient_errors` in float64, refused where a contender computes something else.

    In float32 the gradients of a network of a hundred layers at initialization move by up to a hundredth when
    the order of a sum changes, whoever computes them; in float64 a wrong gradient cannot hide behind that.

    Returns:
        The errors of `gradient_errors`, all of them within `TOLERANCE`.

    Raises:
        SystemExit: a gradient is off by more than `TOLERANCE`; no figure is worth reporting then.

    """
    dtype = torch.float64
    errors = gradient_errors(enter(subject, names, dtype), subject.data(batch, dtype))
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    if wrong:
        told = ", ".join(f"{name} {error:.1e}" for name, error in wrong.items())
        raise SystemExit(f"gradients must equal the stored twin's to {TOLERANCE:g}; off: {told}")
    return errors
