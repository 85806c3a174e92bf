"""What a unit's part of a compiled graph contains: its forward pass, and its replay in the backward pass.

Both run under ordinary Python when a graph is traced, on tensors without content, and leave their operations
in it, for any three numbers of `revmodels.coupling.linear`. `revmodels.compiled.network` says how they are
put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from revmodels.compiled.autocast import autocast_as
from revmodels.compiled.context import put_together
from revmodels.compiled.random_numbers import Seeded
from revmodels.compiled.shared_unit import Template, templates
from revmodels.compiled.side_effects import check_buffers, refused
from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import Pair
from revmodels.coupling.linear import TRACED, Numbers, RandomCoupling, combine, separate, times
from revmodels.errors import CompileError
from revmodels.running_statistics import batch_norms, frozen_statistics
from revmodels.torch_internals import version


@torch.compiler.allow_in_graph
def record(key: int, autocast: bool, dtype: torch.dtype, x1: Tensor, x2: Tensor, *tensors: Tensor) -> tuple:
    """The forward pass of a unit: (y1, y2, t1, t2, moved buffers, seeds), all without a graph."""
    template = templates[key]
    names = template.kept + template.moving
    state = dict(zip(names, tensors, strict=False))
    state |= {name: state[name].clone() for name in template.moving}
    state |= {name: state[name].detach() for name in template.still}
    # With gradients on, so that PyTorch chooses the kernels that it will choose in the replay.
    state |= {name: state[name].detach().requires_grad_(True) for name in template.trainable}
    given = _leaves(template, tensors[len(names) :])
    with torch.enable_grad(), autocast_as(x1.device.type, autocast, dtype):
        y1, y2, seeds = template.call(_forward, state, _leaf(x1), _leaf(x2), given)
    moved = [state[name] for name in template.moving]
    for name in template.still:
        if version(state[name]):
            raise CompileError(
                f"{template.path} writes to its buffer {name} in the forward pass, and its replay would "
                "write again. Only batch norm's running statistics may move in a compiled network. Make the "
                "write outside F and G, or call the network uncompiled."
            )
    return y1.detach(), y2.detach(), torch.zeros_like(y1), torch.zeros_like(y2), *moved, *seeds


def _forward(unit: ReversibleBlock, template: Template, x1: Tensor, x2: Tensor, given: list[Tensor]) -> tuple:
    check_buffers(template.buffers_with_gradient, template.path)
    context = put_together(template.form, given)
    before = [version(t) for t in given]
    drawn = _drawn(unit)
    with Seeded() as seeded:
        numbers = unit.numbers(x1, drawn)
        with template.naming("f"), refused(unit.f, f"{template.path}.f"):
            r = unit.residual(unit.f, x2, *context.args, **context.options)
        with template.naming("p1"):
            s1 = unit.shortcut1(x1)
        y1 = combine(numbers, s1, x2, r)
        template.draws = len(seeded.seeds)
        numbers = unit.numbers(x2, drawn)
        with template.naming("g"), refused(unit.g, f"{template.path}.g"):
            r = unit.residual(unit.g, _leaf(y1), *context.args, **context.options)
        with template.naming("p2"):
            s2 = unit.shortcut2(x2)
        y2 = combine(numbers, s2, y1, r)
    if [version(t) for t in given] != before:
        raise CompileError(
            f"{template.path} changes a tensor of its context in place, and its replay would start from the "
            "changed one. Let it change a copy, or call the network uncompiled."
        )
    return y1, y2, seeded.seeds


@torch.compiler.allow_in_graph
def replay(
    key: int,
    autocast: bool,
    dtype: torch.dtype,
    dy1: Tensor,
    dy2: Tensor,
    y1: Tensor,
    y2: Tensor,
    *saved: Tensor,
) -> tuple:
    """The backward pass of a unit: (dx1, dx2, x1, x2, and of each tensor that was given its gradient)."""
    template = templates[key]
    inputs, tensors = (saved[:2], saved[2:]) if template.keeps_input else ((), saved)
    state = dict(zip(template.kept, tensors, strict=False))
    state |= {name: state[name].detach().requires_grad_(True) for name in template.trainable}
    # The running statistics are frozen in a replay: stand-ins that nothing reads.
    tensors = tensors[len(template.kept) :]
    count = len(template.given_trainable)
    given, seeds = _leaves(template, tensors[:count]), tensors[count:]
    with torch.enable_grad(), autocast_as(y1.device.type, autocast, dtype):
        return template.call(_backward, state, state, inputs, given, seeds, (dy1, dy2), (y1, y2))


def _backward(
    unit: ReversibleBlock,
    template: Template,
    state: dict[str, Tensor],
    inputs: tuple[Tensor, ...],
    given: list[Tensor],
    seeds: Sequence[Tensor],
    dy: Pair,
    y: Pair,
) -> tuple:
    (dy1, dy2), (y1, y2) = dy, y
    context = put_together(template.form, given)
    parameters = [*(state[name] for name in template.trainable), *(t for t in given if t.requires_grad)]
    sums: list[Tensor | None] = [None] * len(parameters)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "f": lambda x: unit.residual(unit.f, x, *context.args, **context.options),
        "g": lambda x: unit.residual(unit.g, x, *context.args, **context.options),
        "p1": unit.shortcut1,
        "p2": unit.shortcut2,
    }

    def through(name: str, x: Tensor, d: Tensor, seeds: Sequence[Tensor] = ()) -> Pair:
        """The value of a function of the unit; the gradient of x, and in `sums` of the parameters."""
        leaf = _leaf(x)
        with template.naming(name):
            with Seeded(seeds, after=dy1):
                out = functions[name](leaf)
            if not out.requires_grad:
                return out, torch.zeros_like(x)
            dx, *found = torch.autograd.grad(out, (leaf, *parameters), d, allow_unused=True)
        sums[:] = [b if a is None else a if b is None else a + b for a, b in zip(sums, found, strict=True)]
        return out.detach(), torch.zeros_like(x) if dx is None else dx

    def numbers(x: Tensor, seeds: Sequence[Tensor]) -> tuple[Numbers, Sequence[Tensor]]:
        """The numbers of a half, and the seeds behind those that they were drawn from."""
        with Seeded(seeds, after=dy1) as seeded:
            found = unit.numbers(x, _drawn(unit))
        return found, seeds[seeded.used :]

    with frozen_statistics(batch_norms((unit,))):
        if template.keeps_input:
            x1, x2 = late(inputs[0], dy1), late(inputs[1], dy1)
        n, rest = numbers(y2, seeds[template.draws :])
        g, d = through("g", y1, times(dy2, n.scale), rest)
        dy1 = _plus(dy1 + d, dy2, n.beta)
        if not template.keeps_input:
            x2 = separate(n, y2, y1, g)
        dy2 = times(dy2, n.alpha)
        n, rest = numbers(y1, seeds[: template.draws])
        f, dx2 = through("f", x2, times(dy1, n.scale), rest)
        dx2, dx1 = _plus(dx2, dy1, n.beta), times(dy1, n.alpha)
        if template.keeps_input:
            dx1 = through("p1", x1, dx1)[1]
            dx2 = dx2 + through("p2", x2, dy2)[1]
        else:
            x1 = separate(n, y1, x2, f)
            dx2 = dx2 + dy2
    of_given = iter(sums[len(template.trainable) :])
    gradients = dict(zip(template.trainable, sums, strict=False))
    names = [*template.kept, *template.moving]
    return (
        *(dx1, dx2, x1.detach(), x2.detach()),
        *(gradients.get(name) for name in names),
        *(next(of_given) if t.requires_grad else None for t in given),
    )


@torch.library.custom_op("revmodels::late", mutates_args=())
def late(x: Tensor, after: Tensor) -> Tensor:
    """Return a copy of `x` in the backward pass.

    What depends on saved tensors alone, a compiler may compute in the forward pass, or take from there, and
    save instead. `after` keeps it from that: any tensor that only the backward pass has.
    """
    return x.clone()


@late.register_fake
def _(x: Tensor, after: Tensor) -> Tensor:
    return torch.empty_like(x)


def _drawn(unit: ReversibleBlock) -> int | None:
    """Says to a coupling that a graph records what it draws, if it draws."""
    return TRACED if isinstance(unit.rule, RandomCoupling) and unit.training else None


def _plus(d: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    return d if not isinstance(factor, Tensor) and factor == 0 else d + times(other, factor)


def _leaves(template: Template, given: Sequence[Tensor]) -> list[Tensor]:
    """The tensors of the context, those that need a gradient as leaves."""
    pairs = zip(given, template.given_trainable, strict=True)
    return [t.detach().requires_grad_(needs) for t, needs in pairs]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(True)
