"""Random numbers that a recomputation draws again, in a graph.

In a graph, generator states cannot be saved and put back around a whole function: compilers move and replace
the operations that draw. Here every drawing operation is intercepted while F and G are traced and runs on a
state of its own, made from a seed. The seed, one number, comes from the caller's generator in the forward
pass and is saved; the same operation on the same state gives the same numbers in the backward pass.

So a compiled network draws other dropout masks than the eager one from the same generator state, as
`torch.compile` with inductor does anyhow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from revmodels.errors import CompileError
from revmodels.torch_internals import (
    TorchDispatchMode,
    argument_names,
    run_with_rng_state,
    writes_in_place,
)

_FUNCTIONAL = {
    torch.ops.aten.bernoulli_.float: torch.ops.aten.bernoulli.p,
    torch.ops.aten.bernoulli_.Tensor: torch.ops.aten.bernoulli.Tensor,
    torch.ops.aten.uniform_.default: torch.ops.aten.uniform.default,
    torch.ops.aten.normal_.default: torch.ops.aten.normal_functional.default,
    torch.ops.aten.exponential_.default: torch.ops.aten.exponential.default,
}
"""In-place drawing operations, and those that return what they would have written."""

_LARGEST_SEED = 2**62


@torch.library.custom_op("revmodels::generator_state", mutates_args=())
def generator_state(seed: Tensor, device: torch.device, after: Tensor | None = None) -> Tensor:
    """Return the state of a generator of `device` with this seed.

    Args:
        seed: one integer.
        device: where the numbers will be drawn.
        after: not read; a tensor of the backward pass keeps the call there, and what is drawn from it.

    """
    return torch.Generator(device).manual_seed(int(seed)).get_state()


@generator_state.register_fake
def _(seed: Tensor, device: torch.device, after: Tensor | None = None) -> Tensor:
    return torch.empty(torch.Generator(device).get_state().numel(), dtype=torch.uint8, device="cpu")


class Seeded(TorchDispatchMode):
    """A context in which every operation that draws random numbers does so from a seed.

    Args:
        seeds: those of an earlier context, to draw the same numbers; None draws new seeds.
        after: see `generator_state`.

    Attributes:
        seeds: one for each operation that drew, in order.
        used: how many operations have drawn.

    """

    def __init__(self, seeds: Sequence[Tensor] | None = None, after: Tensor | None = None) -> None:
        super().__init__()
        self.seeds: list[Tensor] = [] if seeds is None else list(seeds)
        self._replays = seeds is not None
        self.used = 0
        self._after = after

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run `func`, on a seeded state if it draws."""
        kwargs = kwargs or {}
        if not _draws(func, args, kwargs):
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            raise CompileError(
                f"{func} draws from a generator of the module's own, whose state no graph holds; the "
                "recomputation would draw other numbers. Draw from PyTorch's global generator, or call the "
                "network uncompiled."
            )
        device = _device(args, kwargs)
        state = generator_state(self._next_seed(), device, self._after)
        if not writes_in_place(func):
            return run_with_rng_state(state, func, *args, **kwargs)
        if func not in _FUNCTIONAL:
            raise CompileError(
                f"{func} draws random numbers in place, which a compiled replay cannot repeat. Use its "
                "out-of-place form, or strategy='checkpoint'."
            )
        target, *rest = args
        return target.copy_(run_with_rng_state(state, _FUNCTIONAL[func], target, *rest, **kwargs))

    def _next_seed(self) -> Tensor:
        if not self._replays:
            self.seeds.append(torch.randint(_LARGEST_SEED, ()))
        self.used += 1
        if self.used > len(self.seeds):
            raise CompileError(
                "F or G draws random numbers more often in its recomputation than in the forward pass."
            )
        return self.seeds[self.used - 1]


def _draws(func: Any, args: tuple, kwargs: dict) -> bool:
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    # Attention kernels carry the tag whether they drop anything or not.
    for position, (name, default) in enumerate(argument_names(func)):
        if name == "dropout_p":
            given = args[position] if position < len(args) else kwargs.get(name, default)
            return given != 0.0
    return True


def _device(args: tuple, kwargs: dict) -> torch.device:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value.device
    return torch.device(kwargs.get("device") or "cpu")
