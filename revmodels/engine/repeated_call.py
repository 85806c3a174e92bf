"""What `torch.utils.checkpoint` does not see to when it calls a function again: state that is no argument.

Checkpointing repeats PyTorch's random numbers and the autocast state. Here modules are put back to what they
were when the function was called first. What somebody else has changed since is refused, as in a replay of
the reversible engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from revmodels.engine.module_state import (
    NO_CHANGES,
    Reading,
    Snapshot,
    is_plain,
    layers_within_reach,
    put_back_to,
)
from revmodels.running_statistics import ScratchStatistics


class RepeatedCall:
    """One call of a function under checkpointing, and its repetitions.

    Args:
        modules: what the function evaluates.
        name: of what is called, for messages.
    """

    def __init__(self, modules: Iterable[nn.Module], name: str) -> None:
        self._modules = tuple(modules)
        self._name = name
        self._reading = Reading([])
        self._changes = NO_CHANGES

    def _layers(self) -> list[nn.Module]:
        found = {id(layer): layer for module in self._modules for layer in layers_within_reach(module)}
        return list(found.values())

    @contextmanager
    def first(self) -> Iterator[None]:
        """A context for the call in the forward pass.

        Raises:
            ReplayError: at the end, if the call changed something that cannot be put back.
        """
        layers = self._layers()
        if is_plain(layers):
            self._reading = Reading(layers)
            yield
            return
        before = Snapshot(layers)
        yield
        self._changes = before.changes(self._name)
        self._reading = Reading(layers, watched=True)

    def again(self) -> AbstractContextManager:
        """A context for every call in a backward pass; it may be entered again.

        Returns:
            The context.

        Raises:
            ReplayError: something was changed since the first call.
        """
        return _Again(self._as_it_was)

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        layers = self._layers()
        now = Reading(layers, watched=not is_plain(layers))
        self._reading.check(now, self._name, self._changes)
        with ExitStack() as stack:
            if not is_plain(now.layers):
                stack.enter_context(put_back_to(self._changes, now.layers, self._name))
            stack.enter_context(ScratchStatistics(now.norms))
            yield


class _Again(AbstractContextManager):
    """A context that `make` makes anew whenever it is entered."""

    def __init__(self, make: Callable[[], AbstractContextManager]) -> None:
        self._make = make
        self._entered = ExitStack()

    def __enter__(self) -> None:
        self._entered = ExitStack()
        self._entered.enter_context(self._make())

    def __exit__(self, *error: Any) -> bool | None:
        return self._entered.__exit__(*error)
