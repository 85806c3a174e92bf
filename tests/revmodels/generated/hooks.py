"""Hooks of every kind, and what they have seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from tests.revmodels.generated.case import Case
from tests.revmodels.generated.network import Network


class Seen:
    """What hooks have kept.

    Attributes:
        outputs: of the forward passes, by hook; the tensors themselves, to be read at the end.
        gradients: of the backward passes, by hook.
        supervised: outputs that join the loss of the present call.
        in_call: whether a forward pass is under way: a replay is no call of the user's.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, list[Tensor]] = defaultdict(list)
        self.gradients: dict[str, list[Tensor]] = defaultdict(list)
        self.supervised: list[Tensor] = []
        self.in_call = False

    def keep(self, name: str, *tensors: Any) -> None:
        """Keep outputs of a forward pass; those of a compiler's trace have no numbers."""
        if self.in_call:
            self.outputs[name] += [t for t in tensors if type(t) in (Tensor, nn.Parameter)]

    def grads(self, name: str, *tensors: Any) -> None:
        """Keep gradients that a hook sees in the backward pass; a zero is as good as none."""
        self.gradients[name] += [t for t in tensors if isinstance(t, Tensor) and t.any()]


def put_on(case: Case, network: Network, seen: Seen, stack: ExitStack) -> None:
    """Register the hooks of `case`; global ones are taken off when `stack` is closed."""
    for number, (kind, where) in enumerate(case.hooks):
        name = f"hook {number}: {kind}"
        unit = network.body.blocks[where % len(network.body.blocks)]
        f = unit.f if where % 2 else unit.g  # type: ignore[union-attr]
        inner = f[where % len(f)]  # type: ignore[arg-type, index]
        _REGISTER[kind](name, network, unit, f, inner, seen, stack)


def _keep(name: str, module: nn.Module, seen: Seen) -> None:
    module.register_forward_hook(lambda m, args, out: seen.keep(name, *_tensors(out)))


def _tensors(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _backward(name: str, module: nn.Module, seen: Seen, *, both: bool = False) -> None:
    # F's input needs a gradient in a replay, even where nobody asks for it.
    module.register_full_backward_hook(
        lambda m, d_in, d_out: seen.grads(name, *(d_in if both else ()), *d_out)
    )


def _supervise(module: nn.Module, seen: Seen) -> None:
    def hook(m: nn.Module, args: Any, out: Any) -> None:
        if seen.in_call:
            seen.supervised += _tensors(out)

    module.register_forward_hook(hook)


def _in_graph(name: str, module: nn.Module, seen: Seen, factor: float | None) -> None:
    def on_gradient(d: Tensor) -> Tensor | None:
        seen.grads(name, d)
        return None if factor is None else d * factor

    def hook(m: nn.Module, args: Any, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(on_gradient)

    module.register_forward_hook(hook)


def _halve_parameter(name: str, module: nn.Module, seen: Seen) -> None:
    for p in module.parameters():
        if p.requires_grad:
            p.register_hook(lambda d: d * 0.5)


def _accumulated(name: str, module: nn.Module, seen: Seen) -> None:
    for i, p in enumerate(module.parameters()):
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(
                lambda p, i=i: seen.grads(f"{name} {i}", p.grad.detach().clone())
            )


def _step(module: nn.Module) -> None:
    def step(p: Tensor) -> None:
        with torch.no_grad():
            p.sub_(p.grad, alpha=0.1)
        p.grad = None

    for p in module.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(step)


def _global_forward(name: str, network: Network, seen: Seen, stack: ExitStack) -> None:
    # A compiler's own modules are none of the network's: `OptimizedModule`, and the graphs that it traces.
    kinds = {type(m) for m in network.modules()} - {Network}

    def hook(m: nn.Module, args: Any, out: Any) -> None:
        if type(m) in kinds:
            seen.keep(f"{name} {type(m).__name__}", *_tensors(out))

    stack.callback(global_hooks.register_module_forward_hook(hook).remove)


def _global_backward(name: str, seen: Seen, stack: ExitStack) -> None:
    def hook(m: nn.Module, d_in: Any, d_out: Any) -> None:
        if isinstance(m, nn.Linear | nn.Conv2d):
            seen.grads(name, *d_out)

    stack.callback(global_hooks.register_module_full_backward_hook(hook).remove)


_REGISTER: dict[str, Callable[[str, Network, Any, Any, Any, Seen, ExitStack], object]] = {
    "keep output": lambda name, n, u, f, i, seen, _: _keep(name, f, seen),
    "keep inner output": lambda name, n, u, f, i, seen, _: _keep(name, i, seen),
    "keep pair": lambda name, n, u, f, i, seen, _: _keep(name, u, seen),
    "keep input": lambda name, n, u, f, i, seen, _: u.register_forward_pre_hook(
        lambda m, args: seen.keep(name, *args)
    ),
    "halve input of F": lambda name, n, u, f, i, seen, _: f.register_forward_pre_hook(
        lambda m, args: (args[0] * 0.5,)
    ),
    "double output of F": lambda name, n, u, f, i, seen, _: f.register_forward_hook(
        lambda m, args, out: out * 2
    ),
    "double output of unit": lambda name, n, u, f, i, seen, _: u.register_forward_hook(
        lambda m, args, out: tuple(y * 2 for y in out)
    ),
    "backward of F": lambda name, n, u, f, i, seen, _: _backward(name, f, seen),
    "backward of layer": lambda name, n, u, f, i, seen, _: _backward(name, i, seen),
    "backward of unit": lambda name, n, u, f, i, seen, _: _backward(name, u, seen, both=True),
    "halve gradient of F": lambda name, n, u, f, i, seen, _: f.register_full_backward_hook(
        lambda m, d_in, d_out: tuple(None if d is None else d * 0.5 for d in d_in)
    ),
    "backward pre of F": lambda name, n, u, f, i, seen, _: f.register_full_backward_pre_hook(
        lambda m, d_out: tuple(d * 0.5 for d in d_out)
    ),
    "tensor in F": lambda name, n, u, f, i, seen, _: _in_graph(name, i, seen, None),
    "halve gradient in F": lambda name, n, u, f, i, seen, _: _in_graph(name, i, seen, 0.5),
    "deep supervision": lambda name, n, u, f, i, seen, _: _supervise(u, seen),
    "supervision inside F": lambda name, n, u, f, i, seen, _: _supervise(i, seen),
    "parameter": lambda name, n, u, f, i, seen, _: _halve_parameter(name, u, seen),
    "accumulated": lambda name, n, u, f, i, seen, _: _accumulated(name, f, seen),
    "step when accumulated": lambda name, n, u, f, i, seen, _: _step(u),
    "global forward": lambda name, n, u, f, i, seen, stack: _global_forward(name, n, seen, stack),
    "global backward": lambda name, n, u, f, i, seen, stack: _global_backward(name, seen, stack),
    "gradient of input": lambda name, n, u, f, i, seen, _: u.register_forward_pre_hook(
        lambda m, args: [x.register_hook(lambda d: d * 0.5) for x in args if x.requires_grad] and None
    ),
}
