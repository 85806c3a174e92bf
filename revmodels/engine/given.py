"""The context of one forward pass, as F and G receive it then and again in the backward pass.

F and G read stand-ins: leaves in the memory of the tensors that need a gradient. They are the same objects in
every unit and in both passes, so an evaluation finds them in its graph as it finds any tensor that is read
beside the parameters. The gradient of a stand-in is returned as that of the tensor it stands for, and
autograd sums over the units. Nothing is copied, and the memory is let go of when the backward pass is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from revmodels.coupling.context import mapped, tensors_in
from revmodels.errors import ReplayError
from revmodels.torch_internals import is_in_backward_pass, storage_key, version

Residual = Callable[..., Tensor]


class Watch:
    """The tensors of a context, and whether somebody has written to them.

    Args:
        context: by position.
        options: by name.
    """

    __slots__ = ("_marks", "_tensors")

    def __init__(self, context: tuple, options: Mapping[str, Any]) -> None:
        values = (*context, *options.values())
        self._tensors = [t for value in values for t in (*tensors_in(value), *_attributes(value))]
        self._marks = [version(t) for t in self._tensors]

    def __bool__(self) -> bool:
        return bool(self._tensors)

    def is_as_it_was(self) -> bool:
        """Whether nobody has."""
        return [version(t) for t in self._tensors] == self._marks

    def check(self, name: str) -> None:
        """Refuse to evaluate again with other numbers.

        Args:
            name: of the unit or function, for messages.

        Raises:
            ReplayError: a tensor of the context was written to since the forward pass.
        """
        if not self.is_as_it_was():
            raise ReplayError(
                f"a tensor of the context that {name} is given was modified in place between forward and "
                "backward; the recomputation would use other values. Change a copy of it, or run the "
                "backward pass first."
            )

    def check_repetition(self, name: str) -> None:
        """`check`, if a backward pass calls: then it is not the first evaluation."""
        if is_in_backward_pass():
            self.check(name)


def _attributes(value: Any) -> list[Tensor]:
    """The tensors that an object of the caller's own class holds as attributes."""
    if isinstance(value, Tensor | nn.Module | type) or not hasattr(value, "__dict__"):
        return []
    return [t for t in vars(value).values() if isinstance(t, Tensor)]


class Given:
    """What the units of one forward pass are given beside their streams.

    Args:
        context: by position, as received.
        options: by name, as received.
        leaves: stand-ins that other units use already, by what makes a tensor the same; filled here.

    Attributes:
        sources: the received tensor for the id of each stand-in.
    """

    __slots__ = ("_context", "_options", "_received", "_watch", "sources")

    def __init__(self, context: tuple, options: Mapping[str, Any], leaves: dict[tuple, Tensor]) -> None:
        self._received = (context, dict(options))
        self._watch = Watch(context, options)
        self.sources: dict[int, Tensor] = {}

        mine: dict[int, Tensor] = {}

        def stand_in(t: Tensor) -> Tensor:
            if not t.requires_grad:
                return t
            if id(t) not in mine:
                # Of two tensors on the same memory, as of two objects, each has a gradient of its own.
                place = sum(storage_key(other) == storage_key(t) for other in self.sources.values())
                key = (storage_key(t), t.storage_offset(), t.shape, t.stride(), t.dtype, place)
                if key not in leaves:
                    leaves[key] = t.detach().requires_grad_(True)
                mine[id(t)] = leaves[key]
                self.sources[id(leaves[key])] = t
            return mine[id(t)]

        self._context = mapped(context, stand_in)
        self._options = mapped(dict(options), stand_in)

    def is_of(self, context: tuple, options: Mapping[str, Any]) -> bool:
        """Whether these are the very objects that this was made of."""
        mine, named = self._received
        return (
            len(mine) == len(context)
            and named.keys() == options.keys()
            and all(a is b for a, b in zip(mine, context, strict=True))
            and all(named[key] is value for key, value in options.items())
        )

    def check(self, name: str) -> None:
        """Refuse to evaluate again with other numbers, see `Watch.check`.

        Args:
            name: of the unit, for messages.
        """
        self._watch.check(name)

    def evaluate(self, residual: Residual, name: str, fn: nn.Module, x: Tensor) -> Tensor:
        """Evaluate F or G on its stream and this context.

        Args:
            residual: evaluates it under the unit's precision.
            name: of F or G, for messages.
            fn: F or G.
            x: its stream, of any shape and dtype.

        Returns:
            The value, of the shape and dtype of `x`.

        Raises:
            ReplayError: F or G itself changes the context.
        """
        context, options = mapped(self._context, _same), mapped(self._options, _same)
        out = residual(fn, x, *context, **options)
        if not (self._watch.is_as_it_was() and _equal((context, options), (self._context, self._options))):
            raise ReplayError(
                f"{name} changes the context that it is given (a tensor in place, or what a list or "
                "dictionary holds); the backward pass evaluates it again, and would start from the changed "
                "one. Let it change a copy, or use strategy='store'."
            )
        return out

    def source(self, p: Tensor) -> Tensor:
        """What autograd is to send the gradient of `p` to: the received tensor, if `p` is a stand-in."""
        return self.sources.get(id(p), p)


def _same(t: Tensor) -> Tensor:
    return t


def _equal(a: Any, b: Any) -> bool:
    """Whether two structures hold the same objects at the same places."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(_equal, a.values(), b.values()))
    return False
