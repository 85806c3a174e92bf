"""What the call of a residual function has changed in the layers that it went through."""

from __future__ import annotations

from collections import deque
from operator import is_not
from typing import Any

from torch import Tensor

from revmodels.engine.generators import Generator

Place = tuple[int, str]
"""Identity of a layer, and the name of what it holds."""

CONTAINERS = (list, dict, set, deque)
"""Kinds of attributes whose content a call may change."""


class Changes:
    """What a call has changed in the layers that it went through, with the values before.

    Attributes:
        attributes: of layers, by identity and name; None stands for one that was not there.
        grown: identities of layers that attributes were added to or removed from.
        buffers: copies of buffers, by identity of the layer and name.
        containers: lists, dictionaries and sets, each with a copy of its content.
        generators: functions that put a generator's state back.
    """

    def __init__(self) -> None:
        self.attributes: dict[Place, tuple[dict, Any]] = {}
        self.grown: set[int] = set()
        self.buffers: dict[Place, tuple[dict, Tensor | None]] = {}
        self.containers: list[tuple[Any, Any]] = []
        self.generators: list[Generator] = []

    @property
    def places(self) -> set[Place]:
        """Where they are: attributes and buffers."""
        return {*self.attributes, *self.buffers}

    def __bool__(self) -> bool:
        return bool(self.attributes or self.buffers or self.containers or self.generators)


NO_CHANGES = Changes()


def content_differs(held: Any, content: Any) -> bool:
    """Whether a container holds something else than its copy from `copied`."""
    if isinstance(held, dict):
        return list(held) != list(content) or differ(held.values(), content.values())
    if isinstance(held, set):
        return {id(item) for item in held} != {id(item) for item in content}
    return differ(held, content)


def fill(held: Any, content: Any) -> None:
    """Give a container the content of its copy from `copied`."""
    if content_differs(held, content):
        held.clear()
        (held.update if isinstance(held, dict | set) else held.extend)(content)


def copied(container: Any) -> Any:
    """The content of one of `CONTAINERS`, in an ordinary list, dictionary or set."""
    if isinstance(container, dict):
        return dict(container)
    return set(container) if isinstance(container, set) else list(container)


def differ(a: Any, b: Any) -> bool:
    """Whether two collections hold other objects, or in another order."""
    return len(a) != len(b) or any(map(is_not, a, b))
