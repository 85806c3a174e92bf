"""The autograd graph of one evaluation of F or G: what it reaches, and what of it may be used later.

In the forward pass, a function whose layers are not all known is evaluated with a graph, as in the replay, so
that both take the same path. Nothing is saved for that graph. It shows which tensors with a gradient the
function reads beside its argument and its parameters; and whatever the function keeps of it (an auxiliary
loss, a tensor held by a hook) is refused when somebody differentiates it.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, saved_tensors_hooks

from revmodels.errors import KeptTensorError, OutsideTensorError
from revmodels.torch_internals import node_number

_LEAF = "torch::autograd::AccumulateGrad"


_collecting: list[list[weakref.ref]] = []


@contextmanager
def kept_graphs() -> Iterator[list[str]]:
    """A context that tells at its end which functions have kept a tensor of their graph beside their result.

    Yields:
        A list that is filled then, with the names of the functions, once for each call.
    """
    found: list[str] = []
    begun: list[weakref.ref] = []
    _collecting.append(begun)
    try:
        yield found
    finally:
        _collecting.remove(begun)
    gc.collect()
    found += [node.name for ref in begun if (node := ref()) is not None]


class _Entrance(torch.autograd.Function):
    """The argument of a function in the forward pass; a graph that leads here was kept by the function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, *_: Tensor) -> Tensor:
        ctx.name = name
        for collected in _collecting:
            collected.append(weakref.ref(ctx))
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple:
        raise KeptTensorError(ctx.name)


def entrance(x: Tensor, name: str, computed_from: Iterable[Tensor] = ()) -> Tensor:
    """`x` as the start of a graph that nobody may differentiate.

    Args:
        x: a stream, of any shape and dtype.
        name: of the function that it is handed to, for messages.
        computed_from: what `x` depends on, where its own graph does not tell: whoever asks for the gradient
            of one of those tensors alone is refused as well.

    Returns:
        A tensor in the memory of `x` that needs a gradient.
    """
    with torch.enable_grad():
        return _Entrance.apply(x.detach().requires_grad_(True), name, *computed_from)


class _Passage(torch.autograd.Function):
    """The argument of a function in the replay: as in the forward pass, it is no leaf."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def passage(leaf: Tensor) -> Tensor:
    """`leaf` as the result of an operation, in the same memory, for functions and hooks that tell leaves.

    Args:
        leaf: a tensor of any shape and dtype that needs a gradient.

    Returns:
        A tensor whose gradient is that of `leaf`.
    """
    return _Passage.apply(leaf)


@contextmanager
def without_autocast_cache() -> Iterator[None]:
    """A context in which autocast keeps no converted weights, and no graph of them for the next call."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def saving_nothing(name: str) -> AbstractContextManager:
    """A context with graphs that hold no tensors.

    Args:
        name: of the function that is evaluated, for messages.

    Returns:
        The context.
    """

    def refuse(_: None) -> Tensor:
        raise KeptTensorError(name)

    stack = ExitStack()
    stack.enter_context(torch.enable_grad())
    stack.enter_context(saved_tensors_hooks(lambda _: None, refuse))
    stack.enter_context(without_autocast_cache())
    return stack


def tensors_read(
    out: Tensor, start: Tensor, known: Iterable[Tensor], candidates: Iterable[Tensor], name: str
) -> list[Tensor]:
    """The tensors that need a gradient and that `out` was computed from, beside the argument.

    Args:
        out: what the function returned.
        start: what it was given.
        known: its parameters.
        candidates: tensors that it may read; those that something else computed are only found among them.
        name: of the function, for messages.

    Returns:
        Parameters, leaves of the graph and candidates, each once, in the order in which they are met.

    Raises:
        OutsideTensorError: it was also computed from a tensor that something else has computed and that is
            neither known nor a candidate.
    """
    computed: dict[tuple[Node | None, int], Tensor] = {}
    for t in (*candidates, *known):
        if t.grad_fn is not None:
            computed[t.grad_fn, t.output_nr] = t
    first = start.grad_fn
    # A graph of the caller's is older than all nodes of this evaluation.
    began = None if first is None else node_number(first)
    found: dict[int, Tensor] = {}
    if out.grad_fn is None and out.requires_grad and out is not start:
        # A leaf that is the result itself: a parameter that is returned as it is.
        found[id(out)] = out
    seen: set[tuple[Node | None, int]] = set()
    waiting: list[tuple[Node | None, int]] = [(out.grad_fn, out.output_nr)]
    while waiting:
        edge = waiting.pop()
        node = edge[0]
        if node is None or node is first or edge in seen:
            continue
        seen.add(edge)
        following = node.next_functions
        tensor = computed.get(edge) if computed else None
        # A leaf is followed by nothing, and so is what somebody's Function computes from no tensor.
        if tensor is None and not following and node.name() == _LEAF:
            tensor = node.variable  # type: ignore[attr-defined]
        if tensor is not None:
            if tensor is not start:
                found[id(tensor)] = tensor
        elif began is not None and node_number(node) < began:
            raise OutsideTensorError(name, node.name())
        else:
            waiting += following
    return list(found.values())
