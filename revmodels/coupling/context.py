"""What F and G are given beside their stream: context by position, options by name.

A sequence hands the same context to every F and G: ``F(x2, *context, **options)``. Its tensors may lie in
tuples, lists and dictionaries, nested at will; those that need a gradient get it. Everything else (None,
numbers, strings, masks of any dtype, objects) is handed on as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.errors import ResidualError, SplitError

Pair = tuple[Tensor, Tensor]


class StreamAlone(nn.Module):
    """A residual function that is given a context and does not read it.

    Args:
        module: what is called with the stream alone.

    Example:
        >>> mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        >>> StreamAlone(mlp)(torch.randn(2, 4), torch.randn(2, 7)).shape
        torch.Size([2, 4])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *context: Any, **options: Any) -> Tensor:
        """``module(x)``, of the shape and dtype that `module` returns."""
        return self.module(x)


@dataclass(frozen=True, eq=False)
class Context:
    """What every F and G of a sequence is handed beside its stream.

    Attributes:
        args: by position.
        options: by name.
    """

    args: tuple = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.args or self.options)

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor in it; see `tensors_in`."""
        return tensors_in((self.args, dict(self.options)))

    def mapped(self, change: Callable[[Tensor], Any]) -> Context:
        """The same with ``change(t)`` in place of every tensor in it; see `mapped`."""
        return Context(*mapped((self.args, dict(self.options)), change))


NO_CONTEXT = Context()

Given = Context | Sequence[Any] | Mapping[str, Any]
"""What stands behind the inputs in a call: values by position or by name, or a `Context` of both."""


def as_context(value: Given) -> Context:
    """A context of what stands behind the inputs in a call.

    Args:
        value: values by position, or by name, or a `Context` of both.

    Returns:
        The context.
    """
    if isinstance(value, Context):
        return value
    return Context((), dict(value)) if isinstance(value, Mapping) else Context(tuple(value))


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """`value` with ``change(t)`` in place of every tensor in it.

    Args:
        value: anything; tensors are looked for in tuples, lists and dictionaries.
        change: is given each tensor.

    Returns:
        The same structure, in containers of its own.
    """
    if isinstance(value, Tensor):
        return change(value)
    kind = type(value)
    if kind is tuple or kind is list:
        return kind([mapped(item, change) for item in value])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*[mapped(item, change) for item in value])
    if kind is dict:
        return {key: mapped(item, change) for key, item in value.items()}
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in `value`, which are looked for in tuples, lists and dictionaries; in order."""
    found: list[Tensor] = []
    mapped(value, found.append)
    return found


def streams_and_context(
    x: Tensor | Pair, context: tuple, options: Mapping[str, Any], functions: Sequence[nn.Module]
) -> tuple[Tensor | Pair, tuple]:
    """What a call means: one tensor or two streams, and the context.

    Two streams are a pair, ``net((x1, x2), *context)``. They may also be given one after the other,
    ``net(x1, x2, *context)``, where that can mean nothing else: F and G do not take as many arguments as it
    would make if `x2` were context.

    Args:
        x: a tensor, or two of one shape and dtype.
        context: what else was given by position.
        options: what was given by name.
        functions: the F and G that are handed the context.

    Returns:
        One tensor or a pair, and the context without the second stream.

    Raises:
        SplitError: `x` is neither.
        ResidualError: it could mean both.
    """
    if not isinstance(x, Tensor):
        if not (isinstance(x, tuple | list) and len(x) == 2 and all(isinstance(s, Tensor) for s in x)):
            received = [type(s).__name__ for s in x] if isinstance(x, tuple | list) else type(x).__name__
            raise SplitError(
                "a reversible block takes one tensor, or a pair of them, its two streams; received "
                f"{received}."
            )
        return (x[0], x[1]), context
    if not context or not isinstance(context[0], Tensor):
        return x, context
    y = context[0]
    names = tuple(options)
    is_context = all(accepts(fn, len(context), names) for fn in functions)
    is_stream = all(accepts(fn, len(context) - 1, names) for fn in functions)
    similar = y.shape == x.shape and y.dtype == x.dtype
    if is_stream and not (is_context and not similar):
        if is_context:
            raise ResidualError(
                f"the second of these tensors, of shape {tuple(y.shape)} like the first, can be the second "
                "stream or context of F and G, which take both. Give two streams as a pair, "
                "net((x1, x2), ...), and such context by name, net(x, memory=...)."
            )
        return (x, y), context[1:]
    # Where neither fits, the call of F will say so.
    return x, context


def accepts(fn: nn.Module, count: int, names: tuple[str, ...]) -> bool:
    """Whether the forward method of `fn` takes a stream, `count` further arguments, and options.

    Args:
        fn: F or G.
        count: of arguments behind the stream.
        names: of the options.

    Returns:
        Whether a call would bind; what F does with them is its affair.
    """
    # A compiler sees through the cache and warns that it does.
    ask = _binds if torch.compiler.is_dynamo_compiling() else _remembered
    return ask(type(fn).forward, count, names)


def _binds(forward: Callable[..., Any], count: int, names: tuple[str, ...]) -> bool:
    try:
        inspect.signature(forward).bind(None, None, *[None] * count, **dict.fromkeys(names))
    except (TypeError, ValueError):
        return False
    return True


_remembered = lru_cache(maxsize=1024)(_binds)


def refuse_unread_context(fn: nn.Module, context: tuple, options: Mapping[str, Any]) -> None:
    """Explain a TypeError of `fn`, if it is that it takes no such context.

    Args:
        fn: F or G, which has been called with them and has failed.
        context: what it was given beside the stream.
        options: likewise, by name.

    Raises:
        ResidualError: its forward method does not take them.
    """
    names = tuple(options)
    if isinstance(fn, nn.Module) and not accepts(fn, len(context), names):
        given = [*(type(c).__name__ for c in context), *(f"{name}=" for name in names)]
        raise ResidualError(
            f"every F and G is handed the context of its sequence, here ({', '.join(given)}) behind the "
            f"stream; the forward method of {type(fn).__name__} does not take that. Let it take them, or "
            "wrap it in revmodels.coupling.context.StreamAlone, which hands on the stream alone."
        ) from None
