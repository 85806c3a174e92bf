"""What a residual function reads, so that a replay finds it as it was.

A module computes from its tensors, its attributes and the generators that it holds. A `Picture` notes those
that nobody may change between the forward pass and the replay, and refuses the replay if somebody did. What
the call itself changes is seen by `revmodels.engine.watched_call`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from operator import is_not
from typing import Any

from torch import Tensor, nn

from revmodels.engine.changes import CONTAINERS, NO_CHANGES, Changes, content_differs, copied, differ
from revmodels.engine.generators import is_generator
from revmodels.engine.known_layers import TABLES, layers_within_reach, plain_layers
from revmodels.errors import ReplayError
from revmodels.running_statistics import moves_statistics
from revmodels.torch_internals import (
    BatchNorm,
    has_global_hook,
    marks,
    own_buffers,
    own_children,
    own_parameters,
    version,
)

_SIMPLE = frozenset({bool, int, float, str, type(None)})
_END = (object(),)


class Picture:
    """A function's layers and all that they hold, as they are now.

    Args:
        layers: what is called, and all within it.
        watched: whether attributes count; those of plain layers are numbers and text.

    Attributes:
        layers: as given.
        watched: as given.
        parameters: registered tensors that need a gradient, once each.
        norms: batch norms whose running statistics the call moves.
        attributes: of each layer the table of its attributes, and a copy.
        tensors: attributes that are tensors: layer, name, tensor and version.
        held: those, and tensors in lists, tuples and dictionaries that are attributes.
        containers: lists, dictionaries and sets that are attributes, each with a copy.
        buffers: layers, the tables of their buffers, and these with their versions; without `norms`.
        generators: attributes that random numbers can be drawn from, each once.
    """

    __slots__ = (
        *("_all", "_marks", "_needs", "_places", "_values", "_views", "_attributes", "attributes"),
        *(
            "buffers",
            "containers",
            "generators",
            "held",
            "layers",
            "norms",
            "parameters",
            "tensors",
            "watched",
        ),
    )

    def __init__(self, layers: list[nn.Module], *, watched: bool) -> None:
        self.layers, self.watched = layers, watched
        self.norms: list[BatchNorm] = []
        self._places: list[tuple[nn.Module, str]] = []
        self._all: list[Tensor] = []
        self._views: list[Iterable[Any]] = []
        self.tensors: list[tuple[nn.Module, str, Tensor, int]] = []
        self.held: list[Tensor] = []
        self.containers: list[tuple[Any, Any]] = []
        self.buffers: list[tuple[nn.Module, dict, dict]] = []
        for layer in layers:
            parameters, buffers = own_parameters(layer), own_buffers(layer)
            # Views are live: read again, they give what is there by then.
            self._views += (
                vars(layer).values(),
                own_children(layer).values(),
                parameters.values(),
                buffers.values(),
            )
            if parameters:
                self._note(layer, parameters)
            if buffers:
                if moves_statistics(layer):
                    self.norms.append(layer)
                else:
                    self._note(layer, buffers)
                    if watched:
                        seen = {key: (b, 0 if b is None else version(b)) for key, b in buffers.items()}
                        self.buffers.append((layer, buffers, seen))
        self._attributes = [tuple(vars(layer).values()) for layer in layers]
        self.parameters = list({id(t): t for t in self._all if t.requires_grad}.values())
        self.generators: list[Any] = []
        self.attributes: list[tuple[dict, dict]] = []
        if watched:
            self._look_into_attributes()
        self._marks = marks(self._all)
        self._needs = [t.requires_grad for t in self._all]
        self._values = [*chain.from_iterable(self._views), *_END]

    def _note(self, layer: nn.Module, table: Mapping[str, Tensor | None]) -> None:
        for key, t in table.items():
            if t is not None:
                self._places.append((layer, key))
                self._all.append(t)

    def _look_into_attributes(self) -> None:
        generators: dict[int, Any] = {}
        for layer in self.layers:
            own = vars(layer)
            self.attributes.append((own, own.copy()))
            for key, value in own.items():
                if type(value) in _SIMPLE or key in TABLES:
                    continue
                if isinstance(value, Tensor):
                    self._places.append((layer, key))
                    self._all.append(value)
                    self.tensors.append((layer, key, value, version(value)))
                    self.held.append(value)
                elif isinstance(value, tuple):
                    self.held += [item for item in value if isinstance(item, Tensor)]
                elif isinstance(value, CONTAINERS):
                    self._look_into(value)
                elif is_generator(value):
                    generators[id(value)] = value
        self.generators = list(generators.values())

    def _look_into(self, container: Any) -> None:
        if isinstance(container, dict):
            self._views += (container.keys(), container.values())
            self.held += [item for item in container.values() if isinstance(item, Tensor)]
        else:
            self._views.append(container)
            if isinstance(container, list):
                self.held += [item for item in container if isinstance(item, Tensor)]
        self.containers.append((container, copied(container)))

    def is_unchanged(self) -> bool:
        """Whether every layer holds the very same objects, and no tensor was written to or replaced since."""
        return (
            not any(map(is_not, chain(chain.from_iterable(self._views), _END), self._values))
            and self._needs == [t.requires_grad for t in self._all]
            and self._marks == marks(self._all)
        )

    def check(self, now: Picture, name: str, changes: Changes | None = None) -> None:
        """Make sure that what was read is as it was.

        Args:
            now: a reading of the same function.
            name: of the function, for messages.
            changes: what the call changed itself, which is put back before a replay and may differ.

        Raises:
            ReplayError: something else has changed.
        """
        own = changes or NO_CHANGES
        if differ(self.layers, now.layers):
            raise ReplayError(
                f"a layer of {name} was added, replaced or removed between forward and backward; the "
                "recomputation would use other layers. Do so before the forward pass or after the backward."
            )
        if differ(self._all, now._all) or self._marks != now._marks:
            self._check_tensors(now, name, own)
        if differ(self.parameters, now.parameters):
            raise ReplayError(
                f"parameters of {name} were replaced, frozen or unfrozen between forward and backward; the "
                "recomputation would use other values. Do so before the forward pass or after the backward."
            )
        for layer, before, after in zip(self.layers, self._attributes, now._attributes, strict=True):
            if differ(before, after):
                _check_attributes(layer, before, name, own)
        known = {id(held) for held, _ in own.containers}
        for held, content in self.containers:
            if id(held) not in known and content_differs(held, content):
                raise ReplayError(
                    f"a {type(held).__name__} that {name} holds as an attribute was changed between forward "
                    "and backward; the recomputation would use other values. Change it before the forward "
                    "pass or after the backward."
                )

    def _by_place(self) -> dict[tuple[int, str], tuple[Tensor, tuple[int, int]]]:
        entries = zip(self._places, self._all, self._marks, strict=True)
        return {(id(layer), key): (t, mark) for (layer, key), t, mark in entries}

    def _check_tensors(self, now: Picture, name: str, own: Changes) -> None:
        before, after = self._by_place(), now._by_place()
        for layer, key in {*self._places, *now._places}:
            place = id(layer), key
            if place in own.places or (moves_statistics(layer) and key in own_buffers(layer)):
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
    elif not differ(before, [value for key, value in now.items() if key != "forward"]):
        # A method wrapped between the passes: somebody watches the layer, and it computes what it did.
        changed = []
    else:
        changed = ["an attribute that came or went"]
    for key in changed:
        # In a replay around this one, batch norms are frozen by this very attribute.
        frozen = key == "track_running_stats" and isinstance(layer, BatchNorm)
        if not (
            frozen or (id(layer), key) in own.places or (id(layer) in own.grown and len(before) != len(now))
        ):
            raise ReplayError(
                f"{key!r} of {type(layer).__name__} in {name} was changed between forward and backward; the "
                "recomputation would not repeat the forward pass. Change it before the forward pass or after "
                "the backward (train() and eval() as well), or use strategy='store'."
            )


def picture_of(module: nn.Module) -> Picture:
    """A picture of `module`, watched unless its layers are known and nobody watches every module."""
    layers = None if has_global_hook() else plain_layers(module)
    if layers is not None:
        return Picture(layers, watched=False)
    return Picture(layers_within_reach(module), watched=True)
