"""The reversible engine: backpropagation through coupled units without their activations.

Each unit is one `autograd.Function`. Its forward saves nothing; only the last unit of a run saves the pair it
returns, and a unit that keeps its input saves the pair it receives. In the backward pass the units hand the
rebuilt pair to one another through a `Tape`, last to first (Gomez et al. 2017, algorithm 1, for any three
numbers of `revmodels.coupling.linear`), in one extra evaluation of F and G each: the value of G(y1) under
grad rebuilds x2, and the graph of the same call is then differentiated.

Parameters are inputs of the Function and their gradients are returned. So they arrive block by block, and
everything that watches the autograd graph (`torch.autograd.grad`, hooks, DDP) sees an ordinary one.

The naive twin is `revmodels.coupling.block`: the same units called as plain modules.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import NO_CONTEXT, Context, Pair
from revmodels.coupling.linear import times
from revmodels.coupling.range import Extent
from revmodels.engine.evaluation import refuse_tangents
from revmodels.engine.given import Given
from revmodels.engine.recomputed_input import Origin
from revmodels.engine.replayed_state import Autocast
from revmodels.engine.unit_replay import ParameterGradients, UnitReplay, leaf_of, single_contiguous
from revmodels.errors import DoubleBackwardError, ReplayError, TransformError
from revmodels.torch_internals import (
    MemoryMark,
    are_saved_tensors_hooked,
    are_transforms_active,
    graph_is_kept,
    has_gradient_hooks,
    storage_key,
    version,
)

Observer = Callable[[int, Tensor, Tensor], None]
"""Called in the backward pass with a unit's position and its input pair, as rebuilt or as stored."""


class Tape:
    """What the units of one forward call share until its backward pass.

    Attributes:
        autocast: the autocast state of the forward pass.
        pair: the output pair of the unit whose backward comes next.
        passed: what the last unit returned in the forward pass, to see that the next one receives it.
        side_bytes: of the side information that units keep.
        origin: makes the first unit's input again.
    """

    def __init__(self, x: Tensor, observer: Observer | None, first: int, origin: Origin | None) -> None:
        self.autocast = Autocast.current(x.device.type)
        self.origin = origin
        self.observer = observer
        self.first = first
        self.side_bytes = 0
        self.pair: Pair | None = None
        self.passed: tuple[_Identity, _Identity] | None = None
        self._given: Given | None = None
        self._leaves: dict[tuple, Tensor] = {}

    def given(self, context: tuple, options: Mapping[str, Any]) -> Given | None:
        """What a unit is given: the same object for all units that receive the same."""
        if not context and not options:
            return None
        if self._given is None or not self._given.is_of(context, options):
            self._given = Given(context, options, self._leaves)
        return self._given

    def close(self) -> None:
        """Hold the context no longer: the units do, until their backward pass is over."""
        self._given = None
        self._leaves = {}

    def put(self, index: int, x1: Tensor, x2: Tensor) -> None:
        """Leave the pair for the preceding unit."""
        if self.observer is not None:
            self.observer(self.first + index, x1, x2)
        if index > 0:
            self.pair = (x1, x2)

    def take(self) -> Pair:
        """Take the pair that the following unit has left."""
        if self.pair is None:
            raise ReplayError(
                "a unit inside a reversible sequence was differentiated without the units after it. Take "
                "gradients from the sequence's output, or use strategy='store'."
            )
        pair, self.pair = self.pair, None
        return pair


def run(
    units: Sequence[ReversibleBlock],
    x1: Tensor,
    x2: Tensor,
    observer: Observer | None = None,
    *,
    keeps: Sequence[bool],
    first: int = 0,
    extent: Extent | None = None,
    origin: Origin | None = None,
    context: Context = NO_CONTEXT,
    layers: Sequence[Sequence[str]] = (),
) -> Pair:
    """Apply `units` in turn, rebuilding activations in the backward pass.

    Args:
        units: blocks and stage entries, first to last.
        x1: first stream, of any shape that F and G keep.
        x2: second stream.
        observer: sees every input pair in the backward pass.
        keeps: whether each unit keeps its input instead of rebuilding it.
        first: position of the first unit in the network, as told to the observer.
        extent: sees every output pair in the forward pass.
        origin: makes `x1` and `x2` again, so that a first unit that would store them stores nothing.
        context: what every F and G is handed beside its stream.
        layers: of each unit, the layers whose outputs it keeps; empty if no unit keeps any.

    Raises:
        ReplayError: in the backward pass, if a parameter was replaced or modified since the forward pass.
        ResidualError: F or G changed the shape of its input.
    """
    _refuse_transforms(x1, x2)
    tape = Tape(x1, observer, first, origin)
    for index, (unit, keep) in enumerate(zip(units, keeps, strict=True)):
        holds = _Holds(keep, tuple(layers[index]) if layers else ())
        # As a module: hooks run, and what is sharded is gathered before the parameters are looked at.
        step = partial(_step, unit, holds, tape, index, index == len(units) - 1)
        x1, x2 = unit(x1, x2, *context.args, _step=step, **context.options)
        if extent is not None:
            extent.see(first + index, x1, x2)
    if extent is not None:
        extent.side_bytes += tape.side_bytes
    tape.close()
    return x1, x2


class _Holds(NamedTuple):
    """What a unit holds until its backward pass: its input, or the outputs of some layers."""

    input: bool
    layers: tuple[str, ...]


def _step(
    unit: ReversibleBlock,
    holds: _Holds,
    tape: Tape,
    index: int,
    is_last: bool,
    x1: Tensor,
    x2: Tensor,
    *context: Any,
    **options: Any,
) -> Pair:
    if index > 0 and tape.passed != (_Identity(x1), _Identity(x2)):
        raise ReplayError(
            f"a hook changed the pair between units {tape.first + index - 1} and {tape.first + index} of a "
            "reversible sequence; the backward pass rebuilds what the unit returned. Change it inside F or "
            "G, or use strategy='store'."
        )
    given = tape.given(context, options)
    replay = UnitReplay(unit, holds.input, f"unit {tape.first + index}", given, holds.layers)
    replay.record(x1, x2)
    y1, y2 = _Unit.apply(replay, tape, index, is_last, x1, x2, *replay.sources)
    tape.passed = None if is_last else (_Identity(y1), _Identity(y2))
    return y1, y2


def _refuse_transforms(*streams: Tensor) -> None:
    if are_transforms_active():
        raise TransformError("a transform of torch.func (grad, vmap, jvp, ...)")
    refuse_tangents(*streams)


class _Identity:
    """Equal for two tensors only if they are the same numbers in the same memory, not written to since."""

    def __init__(self, x: Tensor) -> None:
        # Held, so that its key is not given to another.
        self.storage, self.key = x.untyped_storage(), storage_key(x)
        self.layout = x.storage_offset(), x.shape, x.stride(), x.dtype, version(x)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Identity)
        return self.key == other.key and self.layout == other.layout

    __hash__ = None  # type: ignore[assignment]


class _Unit(torch.autograd.Function):
    """One unit: forward without a graph, backward by replay."""

    @staticmethod
    def forward(
        ctx: Any,
        replay: UnitReplay,
        tape: Tape,
        index: int,
        is_last: bool,
        x1: Tensor,
        x2: Tensor,
        *parameters: Tensor,
    ) -> Pair:
        assert replay.outputs is not None
        (y1, y2), replay.outputs = replay.outputs, None
        side, replay.side = replay.side, ()
        tape.side_bytes += sum(bits.nbytes for bits in side)
        origin = tape.origin if index == 0 else None
        saved = (x1, x2) if replay.keeps_input and origin is None else ()
        kept = (*saved, *side, *((y1, y2) if is_last else ()), *replay.take_kept())
        ctx.save_for_backward(*kept)
        # Hooks that pack what is saved may hand back the same memory, and autograd then looks at no version.
        ctx.marks = [t if t is None else MemoryMark(t) for t in kept] if are_saved_tensors_hooked() else ()
        ctx.has_side = bool(side)
        # Hooks on a stream lie in its graph, whether or not the tensor that they were put on is still there.
        ctx.streams = [(weakref.ref(x), has_gradient_hooks(x)) for x in (x1, x2)]
        # A gradient that is not there is none inside either: no zeros, and no hook is called with them.
        ctx.set_materialize_grads(False)
        needs = replay.outputs_need
        ctx.mark_non_differentiable(*(y for y, need in zip((y1, y2), needs, strict=True) if not need))
        ctx.replay, ctx.tape, ctx.index, ctx.is_last, ctx.origin = replay, tape, index, is_last, origin
        return y1, y2

    @staticmethod
    def backward(ctx: Any, dy1: Tensor | None, dy2: Tensor | None) -> tuple:
        if torch.is_grad_enabled():
            raise DoubleBackwardError()
        replay, tape = ctx.replay, ctx.tape
        saved = _saved(ctx)
        kept_f, kept_g = replay.split_kept(saved)
        if replay.keeps_input and ctx.origin is None:
            x1, x2 = saved.pop(0), saved.pop(0)
        side1, side2 = (saved.pop(0), saved.pop(0)) if ctx.has_side else (None, None)
        y1, y2 = saved if ctx.is_last else tape.take()
        del saved
        replay.check_context()
        gradients = ParameterGradients(replay.parameters, Autocast.current(y1.device.type))

        with tape.autocast.restored():
            # G: its value rebuilds x2, its graph gives dL/dy1.
            numbers = replay.numbers(1, y2)
            leaf = leaf_of(y1, needs_gradient=replay.outputs_need[0])
            g, root = replay.g.replay(leaf, for_value=replay.needs_values, kept=kept_g)
            if not replay.keeps_input:
                x2 = replay.separated(numbers, y2, y1, g, side2)
            del y2, g, side2
            dy1 = _plus(gradients.through(replay.g, root, leaf, _times(dy2, numbers.scale)), dy1)
            dy1 = _plus(dy1, _times(dy2, numbers.beta))
            dy2 = _times(dy2, numbers.alpha)
            del root, leaf

            # F: the same for x1 and dL/dx2.
            if replay.keeps_input and ctx.origin is not None:
                x1, x2 = ctx.origin.pair()
            numbers = replay.numbers(0, y1)
            needs1, needs2 = replay.inputs_need
            leaf = leaf_of(x2, needs_gradient=needs2)
            f, root = replay.f.replay(leaf, for_value=replay.needs_values, kept=kept_f)
            if not replay.keeps_input:
                x1 = replay.separated(numbers, y1, x2, f, side1)
            del y1, f, side1
            tape.put(ctx.index, x1, x2)
            dx2 = gradients.through(replay.f, root, leaf, _times(dy1, numbers.scale))
            dx2 = _plus(dx2, _times(dy1, numbers.beta))
            dy1 = _times(dy1, numbers.alpha)
            del root, leaf

            # The shortcuts: identities, or small modules of a stage entry.
            dx2 = _plus(dx2, gradients.through_shortcut(replay.p2, x2, dy2, needs_gradient=needs2))
            dx1 = gradients.through_shortcut(replay.p1, x1, dy1, needs_gradient=needs1)
        found = gradients.in_order()
        _refuse_hooks_without_gradient(replay, found)
        streams = zip(ctx.streams, (dx1, dx2), replay.inputs_need, strict=True)
        if any(d is None and needs and _is_hooked(*stream) for stream, d, needs in streams):
            raise ReplayError(_HOOK_WITHOUT_GRADIENT.format(name=replay.name))
        if replay.has_context and not graph_is_kept():
            ctx.replay = None  # It holds the context, and the graph may live on.
        dx1, dx2 = (None if d is None else single_contiguous(d) for d in (dx1, dx2))
        return None, None, None, None, dx1, dx2, *found


def _refuse_hooks_without_gradient(replay: UnitReplay, gradients: Sequence[Tensor | None]) -> None:
    """Refuse to have a hook called that is not called with stored activations.

    Autograd goes on to every input of an operation, and calls its hooks with None where there is no gradient.
    """
    for source, gradient in zip(replay.sources, gradients, strict=True):
        if gradient is None and has_gradient_hooks(source):
            raise ReplayError(_HOOK_WITHOUT_GRADIENT.format(name=replay.name))


def _is_hooked(reference: weakref.ref[Tensor], was_hooked: bool) -> bool:
    stream = reference()
    return was_hooked or (stream is not None and has_gradient_hooks(stream))


_HOOK_WITHOUT_GRADIENT = (
    "the loss does not depend on some tensors that {name} reads (it uses one stream of two, say), and a hook "
    "on the gradient of one of them would be called without a gradient. Let the loss use both streams, take "
    "the hook off, or use strategy='store'."
)

_WRITTEN_TO = (
    "what a reversible sequence keeps for its backward pass (its output, the input of a stage entry or "
    "anchor, or the output of a layer) was modified by an inplace operation. Change a copy of it, or use "
    "strategy='store'."
)


def _saved(ctx: Any) -> list[Tensor]:
    try:
        saved = list(ctx.saved_tensors)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise ReplayError(_WRITTEN_TO) from error
    marked = zip(ctx.marks, saved, strict=True) if ctx.marks else ()
    if any(mark is not None and mark.is_stale(t) for mark, t in marked):
        raise ReplayError(_WRITTEN_TO)
    return saved


def _times(d: Tensor | None, factor: float | Tensor) -> Tensor | None:
    """``factor d``; None stands for zero, and is what a factor of 0 leaves."""
    if d is None or (not isinstance(factor, Tensor) and factor == 0):
        return None
    return times(d, factor)


def _plus(a: Tensor | None, b: Tensor | None) -> Any:
    """``a + b`` in memory of its own; None stands for zero.

    Never in place: autograd may hand one tensor to several inputs as their gradient, and hooks may keep it.
    """
    if a is None or b is None:
        return b if a is None else a
    return a + b
