"""What F and G may not do while they are traced: change or read state that no graph holds.

A graph repeats operations on tensors. What a module does besides is done once, when it is traced, and its
result stands in the graph as a constant: a number of Python's generator is the same in every step, and
another one in the replay. So it is refused by name.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from revmodels.errors import CompileError

_COMMON = frozenset(vars(nn.Module()))
"""Attributes of every module: tables of its content, which a graph holds."""


@contextmanager
def refused(module: nn.Module, path: str) -> Iterator[None]:
    """A context in which `module` may compute and do nothing else.

    Args:
        module: F or G.
        path: its name in messages.

    Yields:
        Nothing.

    Raises:
        CompileError: it drew from a generator of Python or NumPy, or set an attribute, which is put back.
    """
    attributes = [(m, _own(m)) for m in module.modules()]
    states = _generator_states()
    yield
    if _generator_states() != states:
        raise CompileError(
            f"{path} draws random numbers from Python's or NumPy's generator; in a graph they would "
            "be constants, and others in the recomputation. Draw them with torch, or call the network "
            "uncompiled."
        )
    for m, before in attributes:
        now = _own(m)
        changed = [name for name in now if name not in before or _differs(before[name], now[name])]
        if changed:
            for name in changed:
                vars(m).pop(name)
            vars(m).update({name: value for name, (value, _) in before.items()})
            raise CompileError(
                f"{path} sets the attribute {changed[0]!r} of {type(m).__name__} in its forward pass. A "
                "graph computes and keeps nothing else, so it would be set once, to an empty tensor. "
                "Return what is needed, or call the network uncompiled."
            )


def check_buffers(names: list[str], path: str) -> None:
    """Refuse buffers that need a gradient: in a graph, a unit returns the gradients of its parameters alone.

    Args:
        names: of the buffers of a unit that need one.
        path: the unit's name in messages.

    Raises:
        CompileError: there is one.
    """
    if names:
        raise CompileError(
            f"{path} has a buffer that needs a gradient, {names[0]}, which would be lost: a compiled unit "
            "returns the gradients of its parameters alone. Make it a parameter, or call the network "
            "uncompiled."
        )


def _own(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The attributes of a module that are no tables, each with what it holds if it is a container."""
    return {n: (value, _content(value)) for n, value in vars(module).items() if n not in _COMMON}


def _content(value: Any) -> Any:
    if isinstance(value, list | tuple | set):
        return [id(item) for item in value]
    return [(key, id(item)) for key, item in value.items()] if isinstance(value, dict) else None


def _differs(before: tuple[Any, Any], after: tuple[Any, Any]) -> bool:
    (old, held), (new, holds) = before, after
    if held != holds:
        return True
    plain = isinstance(old, bool | int | float | str) and type(old) is type(new)
    return old is not new and not (plain and not isinstance(old, Tensor) and old == new)


def _generator_states() -> tuple[Any, Any]:
    numpy = sys.modules.get("numpy")  # somebody else's import: a module that draws from it has imported it
    return random.getstate(), None if numpy is None else repr(numpy.random.get_state(legacy=False)["state"])
