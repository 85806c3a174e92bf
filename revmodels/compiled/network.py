"""The reversible engine for `torch.compile`: the network in one graph, activation memory flat in depth.

`revmodels.engine.eager` hands the rebuilt pair from unit to unit through a Python object, which no graph can
hold. Here the pair travels where autograd already carries data backwards: in the gradients. Next to (y1, y2)
every unit returns two tokens, tensors without content but of the pair's shape, and the backward pass of the
unit after it returns as *their* gradients the pair it has rebuilt::

    forward    x1, x2, s1, s2                ->  y1 = P1(x1) + F(x2), y2 = P2(x2) + G(y1), t1, t2
    backward   dL/dy1, dL/dy2, y1, y2        ->  dL/dx1, dL/dx2, x1, x2, dL/dparameters

(equations 6 to 8 of Gomez et al. 2017; P is the identity but in stage entries, which keep their input). The
last tokens receive the output pair. So a unit saves its parameters only, and what it recomputes depends on
what arrives in the backward pass: no partitioner can move that forward and store the result.

Each unit is a nested compile region whose content `revmodels.compiled.unit_graph` provides. Units of equal
structure name the same template (`revmodels.compiled.shared_unit`) and so share one graph: compile time
hardly grows with depth.

The naive twin is `revmodels.coupling.block`, as for the eager engine.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.compiled.autocast import autocast_state
from revmodels.compiled.context import taken_apart
from revmodels.compiled.refusals import refuse_uncompilable
from revmodels.compiled.shared_unit import layout, moving_buffers, template_keys, watch
from revmodels.compiled.unit_graph import late, record, replay
from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import NO_CONTEXT, Context, Pair


def run(
    blocks: nn.ModuleList,
    positions: range,
    x1: Tensor,
    x2: Tensor,
    *,
    keeps: tuple[bool, ...],
    context: Context = NO_CONTEXT,
) -> Pair:
    """Apply units of `blocks` in turn, in a graph that `torch.compile` is tracing.

    Args:
        blocks: blocks and stage entries.
        positions: those to apply, first to last.
        x1: first stream, of any shape that F and G keep.
        x2: second stream, of the same shape and dtype.
        keeps: of each unit that is applied, whether it keeps its input instead of rebuilding it.
        context: what every F and G is handed beside its stream.

    Returns:
        The two streams behind the last of them.

    Raises:
        CompileError: F or G cannot be traced; the message names it. See also `refuse_uncompilable`.
        ResidualError: F or G changed the shape of its input.

    """
    refuse_uncompilable(blocks)
    autocast, dtype = autocast_state(x1.device.type)
    given, form = taken_apart(context)
    keys = template_keys(blocks, tuple(positions), keeps, form)
    # They may be views of one tensor: a region takes no inputs that share memory.
    x1, x2 = x1.clone(), x2.clone()
    given = [t.clone() for t in given]
    t1, t2 = _Open.apply(x1, x2)
    for place, position in enumerate(positions):
        unit = blocks[position]
        assert isinstance(unit, ReversibleBlock)
        watch(unit)
        moving = moving_buffers(unit)
        still = [b for b in unit.buffers() if not any(b is m for m in moving)]
        # Batch norm moves copies: a region may not write to its inputs. The key is a new number, without the
        # source that `keys` has: regions whose arguments differ only where they have sources are taken for
        # one and the same.
        x1, x2, t1, t2, *moved = _unit(
            keys[place] + 0,
            autocast,
            dtype,
            x1,
            x2,
            t1,
            t2,
            *unit.parameters(),
            *still,
            *[b.clone() for b in moving],
            *given,
        )
        with torch.no_grad():
            for buffer, value in zip(moving, moved, strict=True):
                buffer.copy_(value)
    return _Close.apply(x1, x2, t1, t2)


_region: Any = torch.compiler.nested_compile_region
if "max_reuse_entries" in inspect.signature(_region).parameters:
    # Newer versions of PyTorch refuse more than 8 different graphs for one function unless told otherwise.
    _region = partial(_region, max_reuse_entries=2**16)


@_region
def _unit(key: int, autocast: bool, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
    return _Unit.apply(key, autocast, dtype, *tensors)


class _Open(torch.autograd.Function):
    """The tokens before the first unit, whose gradients nobody needs."""

    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor) -> Pair:
        return torch.zeros_like(x1), torch.zeros_like(x2)

    @staticmethod
    def backward(ctx: Any, x1: Tensor, x2: Tensor) -> tuple[None, None]:
        return None, None


class _Close(torch.autograd.Function):
    """Keeps the output pair, and starts it on its way back."""

    @staticmethod
    def forward(ctx: Any, y1: Tensor, y2: Tensor, t1: Tensor, t2: Tensor) -> Pair:
        ctx.save_for_backward(y1, y2)
        return y1.clone(), y2.clone()

    @staticmethod
    def backward(ctx: Any, dy1: Tensor, dy2: Tensor) -> tuple[Tensor, ...]:
        y1, y2 = ctx.saved_tensors
        # In the layout of the streams, as units hand gradients on, so that the last unit can share a graph.
        dy1, dy2 = torch.empty_like(y1).copy_(dy1), torch.empty_like(y2).copy_(dy2)
        return dy1, dy2, late(y1.detach(), dy1), late(y2.detach(), dy2)


class _Unit(torch.autograd.Function):
    """One unit: the shell in which `_record` and `_replay` meet autograd."""

    @staticmethod
    def forward(
        ctx: Any,
        key: int,
        autocast: bool,
        dtype: torch.dtype,
        x1: Tensor,
        x2: Tensor,
        t1: Tensor,
        t2: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        stores, own, moving = layout(key)
        y1, y2, t1, t2, *rest = record(key, autocast, dtype, x1, x2, *tensors)
        moved, seeds = rest[:moving], rest[moving:]
        ctx.mark_non_differentiable(*moved)
        kept = *tensors[:own], *tensors[own + moving :]
        ctx.save_for_backward(*((x1, x2) if stores else ()), *kept, *seeds)
        ctx.settings = key, autocast, dtype
        return y1, y2, t1, t2, *moved

    @staticmethod
    def backward(ctx: Any, dy1: Tensor, dy2: Tensor, y1: Tensor, y2: Tensor, *_: Tensor) -> tuple:
        dx1, dx2, x1, x2, *gradients = replay(*ctx.settings, dy1, dy2, y1, y2, *ctx.saved_tensors)
        return None, None, None, dx1, dx2, x1, x2, *gradients
