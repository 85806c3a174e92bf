"""Measuring tools of `revmodels.testing.guarantees`: steps, errors, evaluations seen, bytes alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.torch_internals import TorchDispatchMode, storage_key


def leaves(inputs: Sequence[Tensor], requires_grad: bool = True) -> list[Tensor]:
    """Copies of the inputs to differentiate with respect to."""
    return [x.detach().clone().requires_grad_(requires_grad and x.is_floating_point()) for x in inputs]


def loss(out: Tensor | Sequence[Tensor]) -> Tensor:
    """A scalar to which every output contributes, with another weight each."""
    outs = [out] if isinstance(out, Tensor) else list(out)
    flat = torch.cat([o.flatten() for o in outs])
    flat = flat if flat.dtype == torch.float64 else flat.float()
    weights = torch.linspace(-1, 1, flat.numel(), dtype=flat.dtype, device=flat.device)
    return (flat * weights).sum() + flat.square().mean()


def step(
    net: nn.Module, inputs: Sequence[Tensor], *, inputs_need_grad: bool = True, calls: int = 1
) -> dict[str, Tensor | None]:
    """One backward pass after `calls` forward passes; the gradients of the inputs, by name."""
    torch.manual_seed(1)
    given = leaves(inputs, inputs_need_grad)
    for p in net.parameters():
        p.grad = None
    total = torch.ones((), dtype=torch.float64, device=inputs[0].device)
    for i in range(calls):
        total = total * loss(net(*(x if i == 0 else _other(x) for x in given)))
    total.backward()
    return {f"input {i}": x.grad for i, x in enumerate(given) if x.requires_grad}


def _other(x: Tensor) -> Tensor:
    """Another input of the shape and dtype of `x`: token ids in another order, numbers of half the size."""
    return x * 0.5 if x.is_floating_point() or x.is_complex() else x.flip(0)


def others_reached(net: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that a backward pass gives a gradient to and that are neither parameters nor inputs.

    A closure, an attribute or a global variable holds them.

    Args:
        net: is called once.
        inputs: what it is called with.

    Returns:
        Each once, of any shape and dtype.
    """
    torch.manual_seed(1)
    given = leaves(inputs)
    known = {id(x) for x in (*given, *net.parameters())}
    waiting, seen, found = [loss(net(*given)).grad_fn], set(), {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            found[id(variable)] = variable
        waiting += [following for following, _ in node.next_functions]
    return list(found.values())


def error(found: Tensor, exact: Tensor, floor: float = 0.0) -> float:
    """|found - exact| / max(|exact|, floor): 0 for two zeros, infinite against a zero."""
    difference, norm = (found - exact).norm().item(), max(exact.norm().item(), floor)
    if difference == 0:
        return 0.0
    return difference / norm if norm else float("inf")


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All their numbers in one vector."""
    return torch.cat([t.flatten() for t in tensors])


def changed(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> int:
    """How many of them were emptied, or hold other numbers than their copies."""
    count = 0
    for t, c in zip(tensors, copies, strict=True):
        emptied = t.untyped_storage().nbytes() < c.untyped_storage().nbytes()
        count += emptied or not torch.equal(t, c)
    return count


@contextmanager
def watched(modules: Iterable[nn.Module], call: Callable[[], object]) -> Iterator[None]:
    """A context in which `call` learns of every evaluation, even one that goes around the module's hooks."""

    def watch(forward: Callable) -> Callable:
        def evaluate(*args: Any, **options: Any) -> Tensor:
            call()
            return forward(*args, **options)

        return evaluate

    modules = list({id(module): module for module in modules}.values())
    assert not any("forward" in vars(module) for module in modules), "a module is already being watched"
    for module in modules:
        module.forward = watch(module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


class _Live(TorchDispatchMode):
    """Bytes that operations have allocated and that are alive, counting storages at their present size.

    Apart from `revmodels.measure`, so that each checks the other; and unlike it, this one notices storages
    that an implementation has emptied without freeing them. Parameters and buffers are not counted.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.peak = 0
        self._static = {storage_key(t) for t in (*net.parameters(), *net.buffers())}
        self._storages: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in out if isinstance(out, tuple | list) else (out,):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage_key(leaf) not in self._static:
                    self._storages[storage_key(leaf)] = weakref.ref(storage)
        self.peak = max(self.peak, self.held())
        return out

    def held(self) -> int:
        """Bytes alive now."""
        alive = {key: s for key, ref in self._storages.items() if (s := ref()) is not None}
        self._storages = {key: self._storages[key] for key in alive}
        return sum(s.nbytes() for s in alive.values())


def memory(net: nn.Module, inputs: Sequence[Tensor]) -> tuple[int, int]:
    """Bytes alive after the forward pass, and at the peak, with gradients freed as soon as they arrive."""
    given = leaves(inputs)
    for p in net.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    gc.collect()
    with _Live(net) as live:
        value = loss(net(*given))
        held = live.held()
        value.backward()
    return held, live.peak
