"""How much each residual function can amplify an error: Lipschitz estimates by power iteration.

A block inverts through ``x2 = y2 - G(y1)`` and ``x1 = y1 - F(x2)``, so an error in a rebuilt stream reaches
the other through F and G, multiplied by up to the spectral norm of their Jacobians (Behrmann et al.,
"Understanding and Mitigating Exploding Inverses in Invertible Neural Networks", AISTATS 2021, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from revmodels.coupling.block import ReversibleBlock, received
from revmodels.coupling.context import Context, Given, Pair, as_context
from revmodels.errors import NotReversibleError
from revmodels.memory.preserved_state import buffers_kept, random_state_kept
from revmodels.running_statistics import batch_norms, frozen_statistics
from revmodels.sequence import ReversibleSequence


@dataclass(frozen=True, kw_only=True)
class BlockLipschitz:
    """Local Lipschitz constants of one unit: spectral norms of Jacobians, where the batch has led.

    Attributes:
        index: position, 0 first.
        name: module path.
        f: of F at the unit's second stream.
        g: of G at the unit's first output.
    """

    index: int
    name: str
    f: float
    g: float


def lipschitz(
    model: nn.Module, inputs: Tensor, *, iterations: int = 10, context: Given = ()
) -> tuple[BlockLipschitz, ...]:
    """Estimate the spectral norm of the Jacobian of every F and G on a batch.

    The norm is that of the map from the whole batch to the whole batch, in which batch norm couples examples.
    Power iteration approaches it from below. Model, buffers and random generators are left as they were.

    Args:
        model: any module that contains a `ReversibleSequence`, in the mode (train or eval) to be judged.
        inputs: what it is called with.
        iterations: products with the Jacobian and its transpose.
        context: what the model is called with behind `inputs`: a sequence of values by position, or a mapping
            by name. Only the streams vary in the Jacobians.

    Returns:
        One entry for each reversible unit, first to last; norms are pure numbers.

    Raises:
        NotReversibleError: `model` holds no reversible sequence.
    """
    units = {
        ".".join(part for part in (name, "blocks", str(index)) if part): unit
        for name, sequence in model.named_modules()
        if isinstance(sequence, ReversibleSequence)
        for index, unit in enumerate(sequence.units())
    }
    if not units:
        raise NotReversibleError(
            "Lipschitz estimates are of the F and G of reversible units; "
            f"{type(model).__name__} holds no ReversibleSequence. Measure a RevNet."
        )
    found: dict[str, tuple[Tensor, Tensor, Context]] = {}

    def see(name: str, _: nn.Module, args: tuple, options: dict[str, Any], out: Pair) -> None:
        pair, given = received(args, options)
        found[name] = pair[1].detach(), out[0].detach(), given

    hooks = [unit.register_forward_hook(partial(see, name), with_kwargs=True) for name, unit in units.items()]
    behind = as_context(context)
    try:
        with buffers_kept(model), random_state_kept(inputs.device), torch.no_grad():
            model(inputs, *behind.args, **behind.options)
    finally:
        for hook in hooks:
            hook.remove()
    with random_state_kept(inputs.device):
        return tuple(
            BlockLipschitz(
                index=index,
                name=name,
                f=_of_residual(unit, unit.f, found[name][0], found[name][2], iterations),
                g=_of_residual(unit, unit.g, found[name][1], found[name][2], iterations),
            )
            for index, (name, unit) in enumerate(units.items())
        )


def _of_residual(unit: ReversibleBlock, fn: nn.Module, x: Tensor, given: Context, iterations: int) -> float:
    # Efficient attention kernels have no second derivative, which a product with the Jacobian takes.
    with frozen_statistics(batch_norms((fn,))), sdpa_kernel(SDPBackend.MATH):
        return spectral_norm(lambda x: unit.residual(fn, x, *given.args, **given.options), x, iterations)


def spectral_norm(fn: Callable[[Tensor], Tensor], x: Tensor, iterations: int) -> float:
    """Largest singular value of the Jacobian of `fn` at `x`, from below; 0 where `x` does not matter."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        y = fn(x)
        if not y.requires_grad:
            return 0.0
        # The gradient with respect to x is linear in u; its derivative by u is the Jacobian (twice vjp).
        u = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, u, create_graph=True, allow_unused=True)
    if pulled is None or not pulled.requires_grad:
        return 0.0
    start = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    v, norm = start.to(x), torch.zeros(())
    for _ in range(iterations):
        v = v / v.norm()
        (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
        norm = pushed.norm()
        if not norm > 0:
            break
        (v,) = torch.autograd.grad(y, x, pushed, retain_graph=True)
        if not v.norm() > 0:
            break
    return norm.item()
