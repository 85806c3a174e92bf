"""What a call changes in the modules that it goes through, and how a replay finds them as they were.

A `Watch` sees what the call itself changes: running statistics, the vectors of spectral norm, counters,
caches. That is put back for the replay; what the caller sees is what one call has left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from revmodels.engine.changes import Changes, content_differs, differ, fill
from revmodels.engine.generators import generators, has_numpy_moved, numpy_state
from revmodels.engine.module_state import Picture
from revmodels.errors import ReplayError
from revmodels.torch_internals import version

_MISSING = object()


class Watch:
    """Layers before a call, so that it can be told afterwards what the call has changed.

    Args:
        picture: of the layers, watched, as they are now.
        copies: whether the numbers of buffers are kept, so that they can be had again.
    """

    def __init__(self, picture: Picture, *, copies: bool = True) -> None:
        self._picture = picture
        self._copies: dict[int, Tensor] = {}
        if copies:
            found = {id(b): b for _, buffers, _ in picture.buffers for b in buffers.values() if b is not None}
            self._copies = {key: b.detach().clone() for key, b in found.items()}
        self._generators = generators(picture.generators)
        self._numpy = numpy_state()

    def changes(self, name: str) -> Changes:
        """What differs now.

        Args:
            name: of the function that was called, for messages.

        Returns:
            The changes, each with the value before.

        Raises:
            ReplayError: something changed that cannot be put back for a replay.
        """
        found = Changes()
        if has_numpy_moved(self._numpy):
            raise ReplayError(
                f"{name} draws from NumPy's global generator, which the backward pass cannot repeat. "
                "Draw from PyTorch's (torch.rand), or use strategy='store'."
            )
        found.generators = [g for g in self._generators if g.has_moved()]
        if not self._picture.is_unchanged():
            self._find(found, name)
        return found

    def _find(self, found: Changes, name: str) -> None:
        picture = self._picture
        for layer, key, t, count in picture.tensors:
            if version(t) != count:
                raise ReplayError(
                    f"{name} writes to {key!r} of {type(layer).__name__}, a tensor that is no buffer, so its "
                    "value before cannot be had for the backward pass. Register it: "
                    f"self.register_buffer({key!r}, ...), or use strategy='store'."
                )
        for layer, (own, before) in zip(picture.layers, picture.attributes, strict=True):
            if not differ(own.values(), before.values()):
                continue
            if own.keys() != before.keys():
                found.grown.add(id(layer))
            for key in {**own, **before}:
                if own.get(key, _MISSING) is not before.get(key, _MISSING):
                    found.attributes[id(layer), key] = own, before.get(key, _MISSING)
        for layer, buffers, seen in picture.buffers:
            for key, b in buffers.items():
                old, count = seen.get(key, (None, 0))
                if b is not old or (b is not None and version(b) != count):
                    found.buffers[id(layer), key] = (
                        buffers,
                        None if old is None else self._copies[id(old)],
                    )
        found.containers = [pair for pair in picture.containers if content_differs(*pair)]

    def put_back(self) -> None:
        """Undo what a replay has done to attributes, containers, buffers and generators."""
        for g in self._generators:
            if g.has_moved():
                g.put(g.state)
        picture = self._picture
        if picture.is_unchanged():
            return
        for own, before in picture.attributes:
            if differ(own.values(), before.values()):
                own.clear()
                own.update(before)
        for held, content in picture.containers:
            fill(held, content)
        for _, buffers, seen in picture.buffers:
            if differ(buffers.values(), [b for b, _ in seen.values()]):
                buffers.clear()
                buffers.update({key: b for key, (b, _) in seen.items()})

    def check_buffers(self, name: str) -> None:
        """Make sure that a replay wrote to no buffer but to those that it was lent copies of.

        Raises:
            ReplayError: it did, and the forward pass did not.
        """
        for layer, _, seen in self._picture.buffers:
            for key, (b, count) in seen.items():
                if b is not None and version(b) != count:
                    raise ReplayError(
                        f"{name} wrote to the buffer {key!r} of {type(layer).__name__} in the backward "
                        "pass and "
                        "not in the forward pass, so the two did not compute the same. Use strategy='store'."
                    )


@contextmanager
def put_back_to(changes: Changes, picture: Picture, name: str) -> Iterator[None]:
    """A context in which layers are as they were before the call that made `changes`.

    Afterwards they are as they are now, whatever is done within.

    Args:
        changes: from `Watch.changes`.
        picture: of the layers, watched, as they are now.
        name: of the function that is called within, for messages.

    Raises:
        ReplayError: at the end, if a buffer was written to that the first call did not write to.
    """
    now = Watch(picture, copies=False)
    lent: dict[int, Tensor] = {}
    for (_, key), (own, value) in changes.attributes.items():
        if value is _MISSING:
            own.pop(key, None)
        else:
            own[key] = value
    for held, content in changes.containers:
        fill(held, content)
    for (_, key), (buffers, value) in changes.buffers.items():
        buffers[key] = None if value is None else lent.setdefault(id(value), value.clone())
    for g in changes.generators:
        g.put(g.state)
    try:
        yield
    finally:
        now.put_back()
    now.check_buffers(name)
