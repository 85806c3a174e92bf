"""What a residual function reads and writes besides its argument, so that a replay finds it as it was.

A module computes from its tensors, its attributes and the generators that it holds. A `Reading` notes those
that nobody may change between the forward pass and the replay, and refuses the replay if somebody did. A
`Snapshot` sees which of them the call itself changes (running statistics, the vectors of spectral norm,
counters, caches). They are put back for the replay; what the caller sees is what one call has left.

Most layers of PyTorch change nothing but what `is_plain` knows of. Functions made of such layers alone need
no watch.
"""

from __future__ import annotations

import ctypes
import pickle
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.errors import ReplayError
from revmodels.running_statistics import moves_statistics
from revmodels.torch_internals import (
    BatchNorm,
    Dropout,
    has_hooks,
    own_buffers,
    own_children,
    own_parameters,
    storage_key,
    version,
    without_dispatch_modes,
)

PLAIN_LAYERS: dict[type[nn.Module], Any] = {
    kind: kind.forward
    for kind in (
        *(nn.Sequential, nn.Identity, nn.Linear, nn.Flatten, nn.Unflatten),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
        *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU),
        *(nn.PReLU, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Mish, nn.Softmax, nn.GLU),
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.PixelShuffle, nn.PixelUnshuffle),
    )
}
"""Layers that read their parameters, buffers and plain attributes, and write running statistics at most; each
with the method that this is known of."""

DRAWING = (Dropout,)
"""Those of them that draw random numbers when they train."""

_VALUES = {bool, int, float, str, type(None), tuple, list, dict, OrderedDict, set}
_CONTAINERS = (list, dict, set, OrderedDict)
_MISSING = object()
_TABLES = frozenset(vars(nn.Module())) - {"training"}
"""Attributes of every module in which its content and its hooks are kept."""


def layers_of(module: nn.Module) -> list[nn.Module]:
    """What ``module.modules()`` yields, in a fraction of its time; every step asks this of every F and G."""
    found: dict[int, nn.Module] = {}
    waiting = [module]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in found:
            found[id(layer)] = layer
            waiting += [child for child in reversed(own_children(layer).values()) if child is not None]
    return list(found.values())


def layers_within_reach(module: nn.Module) -> list[nn.Module]:
    """`layers_of` and those that are kept in plain attributes, lists and dictionaries of theirs."""
    found: dict[int, nn.Module] = {}
    waiting = [module]
    while waiting:
        for layer in layers_of(waiting.pop()):
            if id(layer) in found:
                continue
            found[id(layer)] = layer
            for key, value in vars(layer).items():
                if key in _TABLES:
                    continue
                if isinstance(value, dict):
                    waiting += [v for v in value.values() if isinstance(v, nn.Module)]
                elif isinstance(value, list | tuple | set):
                    waiting += [v for v in value if isinstance(v, nn.Module)]
                elif isinstance(value, nn.Module):
                    waiting.append(value)
    return list(found.values())


def is_plain(layers: Iterable[nn.Module]) -> bool:
    """Whether `layers` are all of a kind in `PLAIN_LAYERS`, as PyTorch made them and without hooks."""
    for layer in layers:
        own = vars(layer)
        if (
            PLAIN_LAYERS.get(type(layer)) is not type(layer).forward
            or has_hooks(layer)
            or not _VALUES.issuperset(map(type, own.values()))
        ):
            return False
    return True


def tensors_held(layers: Iterable[nn.Module]) -> list[Tensor]:
    """The tensors that `layers` hold in plain attributes, and in lists and dictionaries of theirs."""
    found = []
    for layer in layers:
        for key, value in vars(layer).items():
            if key in _TABLES:
                continue
            values = value.values() if isinstance(value, dict) else value
            items = values if isinstance(value, dict | list | tuple) else (value,)
            found += [item for item in items if isinstance(item, Tensor)]
    return found


class Reading:
    """The tensors and attributes that a call of some layers reads, as they are now.

    Args:
        layers: what is called, and all within it.
        watched: whether tensors that are plain attributes count; plain layers have none.

    Attributes:
        parameters: registered tensors that need a gradient, once each.
        norms: batch norms whose running statistics the call moves.
    """

    __slots__ = ("_attributes", "_marks", "_places", "_tensors", "layers", "norms", "parameters")

    def __init__(self, layers: list[nn.Module], *, watched: bool = False) -> None:
        self.layers = layers
        self.norms: list[BatchNorm] = []
        self._places: list[tuple[nn.Module, str]] = []
        self._tensors: list[Tensor] = []
        for layer in layers:
            tables: list[Mapping[str, Tensor | None]] = [own_parameters(layer)]
            if own_buffers(layer):
                if moves_statistics(layer):
                    self.norms.append(layer)
                else:
                    tables.append(own_buffers(layer))
            for table in tables:
                for key, t in table.items():
                    if t is not None:
                        self._places.append((layer, key))
                        self._tensors.append(t)
        self.parameters = list({id(t): t for t in self._tensors if t.requires_grad}.values())
        if watched:
            for layer in layers:
                for key, value in vars(layer).items():
                    if isinstance(value, Tensor):
                        self._places.append((layer, key))
                        self._tensors.append(value)
        self._marks = [_mark(t) for t in self._tensors]
        self._attributes = [tuple(vars(layer).values()) for layer in layers]

    def check(self, now: Reading, name: str, changes: Changes | None = None) -> None:
        """Make sure that what was read is as it was.

        Args:
            now: a reading of the same function.
            name: of the function, for messages.
            changes: what the call changed itself, which is put back before a replay and may differ.

        Raises:
            ReplayError: something else has changed.
        """
        own = changes or NO_CHANGES
        if _differ(self.layers, now.layers):
            raise ReplayError(
                f"a layer of {name} was added, replaced or removed between forward and backward; the "
                "recomputation would use other layers. Do so before the forward pass or after the backward."
            )
        if _differ(self._tensors, now._tensors) or self._marks != now._marks:
            self._check_tensors(now, name, own)
        if _differ(self.parameters, now.parameters):
            raise ReplayError(
                f"parameters of {name} were replaced, frozen or unfrozen between forward and backward; the "
                "recomputation would use other values. Do so before the forward pass or after the backward."
            )
        for layer, before, after in zip(self.layers, self._attributes, now._attributes, strict=True):
            if _differ(before, after):
                _check_attributes(layer, before, name, own)

    def _by_place(self) -> dict[tuple[int, str], tuple[Tensor, tuple[int, int]]]:
        entries = zip(self._places, self._tensors, self._marks, strict=True)
        return {(id(layer), key): (t, mark) for (layer, key), t, mark in entries}

    def _check_tensors(self, now: Reading, name: str, own: Changes) -> None:
        before, after = self._by_place(), now._by_place()
        for layer, key in {*self._places, *now._places}:
            place = id(layer), key
            if (
                place in own.buffers
                or place in own.attributes
                or (moves_statistics(layer) and key in own_buffers(layer))
            ):
                continue
            what = f"{key!r} of {type(layer).__name__} in {name}"
            was, its_mark = before.get(place, (None, None))
            is_now, mark = after.get(place, (None, None))
            if was is not is_now:
                raise ReplayError(
                    f"{what} was replaced between forward and backward; the recomputation would use other "
                    "values. Do so before the forward pass or after the backward."
                )
            if its_mark != mark:
                raise ReplayError(
                    f"{what} was modified in place between forward and backward (by an optimizer step?), or "
                    "its data was replaced; the recomputation would use other values. Run the backward pass "
                    "first."
                )


def _check_attributes(layer: nn.Module, before: tuple, name: str, own: Changes) -> None:
    now = vars(layer)
    if len(before) == len(now):
        changed = [key for key, old in zip(now, before, strict=True) if now[key] is not old]
    elif not _differ(before, [value for key, value in now.items() if key != "forward"]):
        # A method wrapped between the passes: somebody watches the layer, and it computes what it did.
        changed = []
    else:
        changed = ["an attribute that came or went"]
    for key in changed:
        # In a replay around this one, batch norms are frozen by this very attribute.
        frozen = key == "track_running_stats" and isinstance(layer, BatchNorm)
        if not (
            frozen
            or (id(layer), key) in own.attributes
            or (id(layer) in own.grown and len(before) != len(now))
        ):
            raise ReplayError(
                f"{key!r} of {type(layer).__name__} in {name} was changed between forward and backward; the "
                "recomputation would not repeat the forward pass. Change it before the forward pass or after "
                "the backward (train() and eval() as well), or use strategy='store'."
            )


def _mark(t: Tensor) -> tuple[int, int]:
    """Equal only if the numbers of `t` lie in the same memory and were not written to through a tensor."""
    plain = type(t) is nn.Parameter or type(t) is Tensor
    return version(t), storage_key(t) if plain else 0


def _differ(a: Any, b: Any) -> bool:
    return len(a) != len(b) or any(map(is_not, a, b))


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
        self.attributes: dict[tuple[int, str], tuple[dict, Any]] = {}
        self.grown: set[int] = set()
        self.buffers: dict[tuple[int, str], tuple[dict, Tensor | None]] = {}
        self.containers: list[tuple[Any, Any]] = []
        self.generators: list[Generator] = []

    def __bool__(self) -> bool:
        return bool(self.attributes or self.buffers or self.containers or self.generators)


NO_CHANGES = Changes()


class Generator:
    """A source of random numbers beside PyTorch's global ones, and the state that it was in.

    Args:
        get: reads the state, as something that can be compared.
        put: sets it.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], object]) -> None:
        self.get, self.put = get, put
        self.state = get()

    def has_moved(self) -> bool:
        """Whether numbers were drawn since."""
        return self.get() != self.state


def generators_of(layers: Iterable[nn.Module]) -> list[Generator]:
    """Python's own generator, and those that `layers` hold as attributes, each once."""
    found: dict[int, Any] = {}
    for layer in layers:
        for value in vars(layer).values():
            if isinstance(value, torch.Generator | random.Random) or _is_numpy(value):
                found[id(value)] = value
    return [Generator(random.getstate, random.setstate), *map(_generator, found.values())]


def _generator(source: Any) -> Generator:
    if isinstance(source, torch.Generator):

        def get() -> bytes:
            with without_dispatch_modes():
                return bytes(source.get_state().tolist())

        def put(state: bytes) -> None:
            with without_dispatch_modes():
                source.set_state(torch.tensor(list(state), dtype=torch.uint8))

        return Generator(get, put)
    if isinstance(source, random.Random):
        return Generator(source.getstate, source.setstate)
    bits = source.bit_generator
    return Generator(
        lambda: pickle.dumps(bits.state), lambda state: setattr(bits, "state", pickle.loads(state))
    )


def _is_numpy(value: object) -> bool:
    return type(value).__module__.startswith("numpy.random") and hasattr(value, "bit_generator")


def _numpy_state() -> bytes | str | None:
    """The state of NumPy's global generator; None where NumPy draws nothing, as it was not imported."""
    source = sys.modules.get("numpy.random")
    if source is None:
        return None
    bits = source.get_bit_generator()
    if type(bits).__name__ != "MT19937":
        return str(bits.state)
    # `state` takes as long as a small network's step.
    return ctypes.string_at(bits.ctypes.state_address, 4 * 625)


class Snapshot:
    """Layers before a call: their attributes, containers, buffers and generators.

    Args:
        layers: what is called, and all within it.
        copies: whether the numbers of buffers are kept, so that they can be had again.
    """

    def __init__(self, layers: list[nn.Module], *, copies: bool = True) -> None:
        self._layers = layers
        kept: dict[int, Tensor] = {}
        self._attributes = [(vars(layer), vars(layer).copy()) for layer in layers]
        self._tensors: list[tuple[nn.Module, str, Tensor, int]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._buffers: list[tuple[nn.Module, dict, dict]] = []
        for layer in layers:
            for key, value in vars(layer).items():
                if key in _TABLES:
                    continue
                if type(value) in _CONTAINERS:
                    self._containers.append((value, value.copy()))
                elif isinstance(value, Tensor):
                    self._tensors.append((layer, key, value, version(value)))
            if own_buffers(layer) and not moves_statistics(layer):
                if copies:
                    kept |= {
                        id(b): b.detach().clone()
                        for b in own_buffers(layer).values()
                        if b is not None and id(b) not in kept
                    }
                marks = {key: (b, 0 if b is None else version(b)) for key, b in own_buffers(layer).items()}
                self._buffers.append((layer, own_buffers(layer), marks))
        self._kept = kept
        self._generators = generators_of(layers)
        self._numpy = _numpy_state()

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
        for layer, key, t, count in self._tensors:
            if version(t) != count:
                raise ReplayError(
                    f"{name} writes to {key!r} of {type(layer).__name__}, a tensor that is no buffer, so its "
                    "value before cannot be had for the backward pass. Register it: "
                    f"self.register_buffer({key!r}, ...), or use strategy='store'."
                )
        if self._numpy != _numpy_state():
            raise ReplayError(
                f"{name} draws from NumPy's global generator, which the backward pass cannot repeat. "
                "Draw from PyTorch's (torch.rand), or use strategy='store'."
            )
        for layer, (own, before) in zip(self._layers, self._attributes, strict=True):
            if not _differ(own.values(), before.values()):
                continue
            if own.keys() != before.keys():
                found.grown.add(id(layer))
            for key in {**own, **before}:
                if own.get(key, _MISSING) is not before.get(key, _MISSING):
                    found.attributes[id(layer), key] = own, before.get(key, _MISSING)
        for layer, buffers, marks in self._buffers:
            for key, b in buffers.items():
                old, count = marks.get(key, (None, 0))
                if b is not old or (b is not None and version(b) != count):
                    found.buffers[id(layer), key] = (
                        buffers,
                        None if old is None else self._kept[id(old)],
                    )
        for held, content in self._containers:
            if _content_differs(held, content):
                found.containers.append((held, content))
        found.generators = [g for g in self._generators if g.has_moved()]
        return found

    def put_back(self) -> None:
        """Undo what a replay has done to attributes, containers, buffers and generators."""
        for own, before in self._attributes:
            if _differ(own.values(), before.values()):
                own.clear()
                own.update(before)
        for held, content in self._containers:
            _fill(held, content)
        for _, buffers, marks in self._buffers:
            if _differ(buffers.values(), [b for b, _ in marks.values()]):
                buffers.clear()
                buffers.update({key: b for key, (b, _) in marks.items()})
        for g in self._generators:
            if g.has_moved():
                g.put(g.state)

    def check_buffers(self, name: str) -> None:
        """Make sure that a replay wrote to no buffer but to those that it was lent copies of.

        Raises:
            ReplayError: it did, and the forward pass did not.
        """
        for layer, _, marks in self._buffers:
            for key, (b, count) in marks.items():
                if b is not None and version(b) != count:
                    raise ReplayError(
                        f"{name} wrote to the buffer {key!r} of {type(layer).__name__} in the backward "
                        "pass and "
                        "not in the forward pass, so the two did not compute the same. Use strategy='store'."
                    )


@contextmanager
def put_back_to(changes: Changes, layers: list[nn.Module], name: str) -> Iterator[None]:
    """A context in which `layers` are as they were before the call that made `changes`.

    Afterwards they are as they are now, whatever is done within.

    Raises:
        ReplayError: at the end, if a buffer was written to that the first call did not write to.
    """
    now = Snapshot(layers, copies=False)
    lent: dict[int, Tensor] = {}
    for (_, key), (own, value) in changes.attributes.items():
        if value is _MISSING:
            own.pop(key, None)
        else:
            own[key] = value
    for held, content in changes.containers:
        _fill(held, content)
    for (_, key), (buffers, value) in changes.buffers.items():
        buffers[key] = None if value is None else lent.setdefault(id(value), value.clone())
    for g in changes.generators:
        g.put(g.state)
    try:
        yield
    finally:
        now.put_back()
    now.check_buffers(name)


def _content_differs(held: Any, content: Any) -> bool:
    if isinstance(held, dict):
        return list(held) != list(content) or _differ(held.values(), content.values())
    if isinstance(held, list):
        return _differ(held, content)
    return {id(item) for item in held} != {id(item) for item in content}


def _fill(held: Any, content: Any) -> None:
    """Give a list, dictionary or set the content of another."""
    if not _content_differs(held, content):
        return
    held.clear()
    (held.extend if isinstance(held, list) else held.update)(content)
