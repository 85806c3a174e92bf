"""What the benchmarks compare: one network in the hands of this package, of its peers and of PyTorch.

Every contender has the same weights, and calls the same residual functions. They differ in who runs the
units:

- ``store``: plain backpropagation, the twin that says which gradients are right;
- ``reverse``, ``checkpoint``, ``segments``, ``recursive``, ``selective``, ``quantized_int8``,
  ``quantized_float8``, ``offload``, ``reverse_anchors`` (every fourth unit keeps its input): this package;
- ``checkpoint_torch``: `torch.utils.checkpoint` on each unit, non-reentrant, as users write it;
- ``budget_*``: this package within a number of bytes: those that another strategy's activations take
  (``budget_checkpoint``), or half of storing's (``budget_half``);
- ``*_parts4``: the batch in four parts, whose gradients add up, as users do when memory is short. Not for
  networks with batch norm, whose statistics would be those of a part;
- ``twin_*``: the same in the conventional network of equal parameters, which is another network;
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.subjects import Batch, Stack, Subject
from revmodels import ReversibleBlock, ReversibleSequence, StageEntry
from revmodels.measure import predict_memory
from revmodels.strategies.registry import find_strategy

TORCH, PEERS = "torch", ("memcnn", "revtorch", "revlib")
COMPILER = "inductor"
TOLERANCE = 1e-8
"""Of all gradients together against the stored twin's, relative, in float64."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a contender runs a subject.

    Attributes:
        strategy: of this package, or that the units are left to somebody else: ``torch`` or a peer.
        settings: of the network, such as ``anchor_every``, or of the strategy's session.
        level: for ``budget``, (strategy, share): the budget is that share of its activations.
        parts: in how many the batch is cut.
        twin: whether the conventional network is meant.
        compiled: whether `torch.compile` runs it.

    """

    strategy: str
    settings: dict[str, Any] = field(default_factory=dict)
    level: tuple[str, float] | None = None
    parts: int = 1
    twin: bool = False
    compiled: bool = False

    @property
    def tolerance(self) -> float:
        """What the gradients may be off by in float64."""
        return max(TOLERANCE, find_strategy(self.strategy).tolerance) if self.is_ours else TOLERANCE

    @property
    def is_ours(self) -> bool:
        """Whether this package runs the units."""
        return self.strategy != TORCH and self.strategy not in PEERS

    @property
    def reverses(self) -> bool:
        """Whether activations are rebuilt by inverting units."""
        return not self.is_ours or find_strategy(self.strategy).inverts

    @property
    def predicts(self) -> bool:
        """Whether its bytes are predicted exactly."""
        return not self.compiled and self.strategy not in PEERS


WAYS = {
    "store": Way(strategy="store"),
    "reverse": Way(strategy="reverse"),
    "checkpoint": Way(strategy="checkpoint"),
    "checkpoint_torch": Way(strategy=TORCH),
    "segments": Way(strategy="segments"),
    "recursive": Way(strategy="recursive"),
    "selective": Way(strategy="selective"),
    "quantized_int8": Way(strategy="quantized", settings={"saved_format": "int8"}),
    "quantized_float8": Way(strategy="quantized", settings={"saved_format": "float8_e4m3fn"}),
    "offload": Way(strategy="offload"),
    "reverse_anchors": Way(strategy="reverse", settings={"anchor_every": 4}),
    "budget_checkpoint": Way(strategy="budget", level=("checkpoint", 1.0)),
    "budget_segments": Way(strategy="budget", level=("segments", 1.0)),
    "budget_selective": Way(strategy="budget", level=("selective", 1.0)),
    "budget_half": Way(strategy="budget", level=("store", 0.5)),
    "store_parts4": Way(strategy="store", parts=4),
    "selective_parts4": Way(strategy="selective", parts=4),
    "reverse_parts4": Way(strategy="reverse", parts=4),
    "twin_store": Way(strategy="store", twin=True),
    "twin_checkpoint_torch": Way(strategy=TORCH, twin=True),
    "twin_selective": Way(strategy="selective", twin=True),
    "twin_segments": Way(strategy="segments", twin=True),
    "twin_store_parts4": Way(strategy="store", twin=True, parts=4),
    **{peer: Way(strategy=peer) for peer in PEERS},
    "compile": Way(strategy="store", compiled=True),
    "compile_reverse": Way(strategy="reverse", compiled=True),
}
NAMES = tuple(WAYS)
EAGER = ("store", "reverse", "checkpoint", "checkpoint_torch", "segments", "selective", *PEERS)
"""What speed and memory compare unless told otherwise."""


class Outside(nn.Module):
    """A network with its units run by somebody else; stem and head as they are, without recomputation.

    Args:
        network: from `Subject.build`.
        run: applies the parts to what the stem returns.
        parts: the units, as they are run.

    """

    def __init__(
        self, network: nn.Module, run: Callable[[Tensor, nn.ModuleList], Tensor], parts: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.network, self.run, self.parts = network, run, nn.ModuleList(parts)

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Any:
        """Logits, or the loss against targets."""
        hidden = self.run(self.network.start(inputs), self.parts)  # type: ignore[operator]
        given = {} if targets is None else {"targets": targets}
        return self.network.head(hidden, **given)  # type: ignore[operator]


class Checkpointed(nn.Module):
    """A unit under `torch.utils.checkpoint`."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Any) -> Any:
        """A stream, both streams in one tensor, or a pair of them."""
        return checkpoint(self.unit, x, use_reentrant=False)


def _in_turn(x: Any, parts: nn.ModuleList) -> Any:
    for part in parts:
        x = part(x)
    return x


def _two_copies(stream: Tensor, parts: nn.ModuleList) -> Tensor:
    """As a `revgpt` starts and ends, on a pair."""
    y1, y2 = _in_turn((stream, stream), parts)
    return (y1 + y2) / 2


def _two_copies_in_one(stream: Tensor, parts: nn.ModuleList) -> Tensor:
    """The same on both streams in one tensor, which is what the peers take."""
    y1, y2 = _in_turn(torch.cat((stream, stream), -1), parts).chunk(2, -1)
    return (y1 + y2) / 2


def contend(name: str, network: nn.Module, budget_bytes: int | None = None) -> nn.Module:
    """`network`, a copy of its own for each contender, as the contender runs it.

    Args:
        name: one of `WAYS`.
        network: from `Subject.build`, or from its twin's.
        budget_bytes: for ``budget``, the bytes of its level.

    Returns:
        A module that is called as the network is.

    """
    way = WAYS[name]
    if way.is_ours:
        target: Any = network.body if isinstance(network, Stack) else network
        target.strategy = way.strategy
        if way.strategy == "budget":
            target.memory_budget_bytes = budget_bytes
        for setting, value in way.settings.items():
            if hasattr(target, setting):
                setattr(target, setting, value)
        if not way.compiled:
            return network
        return torch.compile(network, fullgraph=True, backend=COMPILER)  # type: ignore[return-value]
    body: Any = network.body
    if isinstance(body, nn.ModuleList):
        return Outside(network, _in_turn, [Checkpointed(unit) for unit in body])
    assert isinstance(body, ReversibleSequence)
    body.strategy = "store"  # so that the stem is run as an ordinary module
    units = list(body.units())
    is_language = hasattr(network, "vocab_size")
    if way.strategy == TORCH:
        return Outside(network, _two_copies if is_language else _in_turn, [Checkpointed(u) for u in units])
    parts: list[nn.Module] = []
    for is_entry, found in groupby(units, key=lambda unit: isinstance(unit, StageEntry)):
        group = list(found)
        parts += group if is_entry else _peer_units(way.strategy, group)
    return Outside(network, _two_copies_in_one if is_language else _in_turn, parts)


def _peer_units(name: str, units: Sequence[ReversibleBlock]) -> list[nn.Module]:
    dim = 2 if units[0].split_dim == -1 else units[0].split_dim
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "memcnn":
            from memcnn import AdditiveCoupling, InvertibleModuleWrapper

            return [InvertibleModuleWrapper(AdditiveCoupling(u.f, u.g, split_dim=dim)) for u in units]
        if name == "revlib":
            import revlib

            functions = [module for unit in units for module in (unit.f, unit.g)]
            return [revlib.ReversibleSequential(*functions, split_dim=dim)]
        import revtorch

        blocks = [revtorch.ReversibleBlock(unit.f, unit.g, split_along_dim=dim) for unit in units]
        return [revtorch.ReversibleSequence(nn.ModuleList(blocks))]


class Step(nn.Module):
    """A training step up to the backward pass of its last part: called with a batch, it returns the loss.

    Args:
        subject: whose loss it is.
        model: from `contend`.
        way: how many parts there are, and what the strategy's session is given.

    """

    def __init__(self, subject: Subject, model: nn.Module, way: Way) -> None:
        super().__init__()
        self.subject, self.model, self.way = subject, model, way

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of the last part, whose gradients are still to be added to those of the others."""
        count = self.way.parts
        *first, last = zip(inputs.chunk(count), targets.chunk(count), strict=True)
        with self._session():
            for part in first:
                (self.subject.loss(self.model, part) / count).backward()
            return self.subject.loss(self.model, last) / count

    def _session(self) -> AbstractContextManager:
        if not self.way.is_ours or "saved_format" not in self.way.settings:
            return nullcontext()
        return find_strategy(self.way.strategy).session(**self.way.settings)


def returned(output: Tensor, _: object) -> Tensor:
    """The loss of a `Step`, for `revmodels.measure`."""
    return output


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender, and its parameters in the order of the subject's own network.

    Attributes:
        name: one of `WAYS`.
        step: what is called with a batch.
        parameters: of the network.
        budget_bytes: what it was given, if anything.

    """

    name: str
    step: Step
    parameters: tuple[nn.Parameter, ...]
    budget_bytes: int | None = None

    @property
    def model(self) -> nn.Module:
        """The network as the contender runs it, without the loss."""
        return self.step.model


def enter(
    subject: Subject,
    names: Sequence[str] = EAGER,
    dtype: torch.dtype = torch.float32,
    *,
    batch: Batch | None = None,
) -> list[Entry]:
    """Every contender on the same weights, of which there is one copy, images in channels_last.

    Args:
        subject: what they run.
        names: of `WAYS`.
        dtype: of the weights.
        batch: what budgets are measured on; None is the subject's.

    Returns:
        The contenders in the order of `names`.

    """
    batch = subject.data(subject.timed_batch, dtype) if batch is None else batch
    originals: dict[bool, nn.Module] = {}
    entries = []
    for name in names:
        way = WAYS[name]
        if way.twin not in originals:
            originals[way.twin] = _built(subject, dtype, twin=way.twin)
        original = originals[way.twin]
        budget = None
        if way.level is not None:
            strategy, share = way.level
            rival = _entry(strategy, subject, original, None)
            found = predict_memory(rival.step, (batch, batch[1]), subject.optimizer, loss=returned)
            budget = int(share * found.activation_bytes)
        entries.append(_entry(name, subject, original, budget))
    return entries


def _built(subject: Subject, dtype: torch.dtype, *, twin: bool) -> nn.Module:
    build = subject.twin if twin else subject.build
    assert build is not None, f"{subject.name} has no twin"
    torch.manual_seed(0)
    made = build(dtype)
    return made.to(memory_format=torch.channels_last) if len(subject.shape) == 3 else made  # type: ignore[call-overload]


def _entry(name: str, subject: Subject, original: nn.Module, budget: int | None) -> Entry:
    shared = {id(p): p for p in original.parameters()}
    network = copy.deepcopy(original, shared)  # type: ignore[arg-type]
    step = Step(subject, contend(name, network, budget), WAYS[name]).train()
    return Entry(name=name, step=step, parameters=tuple(network.parameters()), budget_bytes=budget)


def backward(entry: Entry, batch: Batch) -> None:
    """One forward and backward pass; gradients are left on the parameters."""
    for p in entry.parameters:
        p.grad = None
    entry.step(*batch).backward()


def gradient_errors(entries: Sequence[Entry], batch: Batch) -> dict[str, float]:
    """Relative error of each contender's gradients, all together, against the stored twin's.

    Returns:
        The norm of the difference over the norm of the twin's gradients, by name of contender.

    Raises:
        ValueError: ``store`` is not among the entries, or a parameter got no gradient.

    """
    flat: dict[bool, Tensor] = {}
    errors = {}
    for entry in sorted(entries, key=lambda entry: not _is_right(entry)):
        backward(entry, batch)
        gradients = [p.grad for p in entry.parameters]
        if any(g is None for g in gradients):
            raise ValueError(f"{entry.name}: {sum(g is None for g in gradients)} parameters got no gradient")
        found = torch.cat([g.double().flatten() for g in gradients if g is not None])
        for p in entry.parameters:
            p.grad = None
        twin = WAYS[entry.name].twin
        if _is_right(entry):
            flat[twin] = found
        if twin not in flat:
            right = "twin_store" if twin else "store"
            raise ValueError(f"gradients are compared with the stored twin's: enter {right!r} as well")
        errors[entry.name] = float((found - flat[twin]).norm() / flat[twin].norm())
    return {entry.name: errors[entry.name] for entry in entries}


def _is_right(entry: Entry) -> bool:
    return entry.name in ("store", "twin_store")


def small_of(subject: Subject) -> Subject:
    """The subject with the little networks of its design, where it has them."""
    return replace(subject, build=subject.little or subject.build, twin=subject.little_twin or subject.twin)


def check(subject: Subject, names: Sequence[str], batch: int) -> dict[str, float]:
    """`gradient_errors` in float64, refused where a contender computes something else.

    In float32 the gradients of a network of a hundred layers at initialization move by up to a hundredth when
    the order of a sum changes, whoever computes them; in float64 a wrong gradient cannot hide behind that. A
    subject may have a little network of its design for this.

    Returns:
        The errors of `gradient_errors`, all of them within what the contender promises.

    Raises:
        SystemExit: a gradient is off by more; no figure is worth reporting then.

    """
    dtype = torch.float64
    data = subject.data(batch, dtype)
    errors = gradient_errors(enter(small_of(subject), names, dtype, batch=data), data)
    wrong = {name: error for name, error in errors.items() if not error <= WAYS[name].tolerance}
    if wrong:
        told = ", ".join(f"{name} {error:.1e} ({WAYS[name].tolerance:g})" for name, error in wrong.items())
        raise SystemExit(f"gradients must equal the stored twin's to {TOLERANCE:g}; off: {told}")
    return errors


def turns(names: Sequence[str], rounds: int, warmup: int) -> Iterator[tuple[int, list[str]]]:
    """The order of each round, which moves on by one from round to round; those below 0 are warm-up."""
    for index in range(-warmup, rounds):
        yield index, [names[(place + index) % len(names)] for place in range(len(names))]
