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

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.stage_entry import StageEntry
from revmodels.engine.changes import NO_CHANGES
from revmodels.engine.known_layers import layers_within_reach, plain_layers
from revmodels.engine.module_state import Picture
from revmodels.engine.watched_call import Watch, put_back_to
from revmodels.running_statistics import ScratchStatistics
from revmodels.torch_internals import has_global_hook, has_hooks, without_new_gradient_hooks


class RepeatedCall:
    """One call of a function under checkpointing, and its repetitions.

    Args:
        modules: what the function evaluates.
        name: of what is called, for messages.

    Attributes:
        is_known: whether all layers are known ones, which write to nothing that they have saved for their
            backward pass. A repetition may then end as soon as the last tensor has been saved, before the
            operation that saved it has run.
    """

    def __init__(self, modules: Iterable[nn.Module], name: str) -> None:
        self._modules = tuple(modules)
        self.is_known = not has_global_hook() and all(map(_is_known, self._modules))
        self._name = name
        self._picture = Picture([], watched=True)
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
        picture = Picture(self._layers(), watched=not self.is_known)
        if not picture.watched:
            self._picture = picture
            yield
            return
        before = Watch(picture)
        yield
        self._changes = before.changes(self._name)
        self._picture = Picture(picture.layers, watched=True) if self._changes else picture

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
        now = self._picture
        if not now.is_unchanged():
            now = Picture(self._layers(), watched=now.watched)
            self._picture.check(now, self._name, self._changes)
        with ExitStack() as stack:
            if now.watched:
                stack.enter_context(put_back_to(self._changes, now, self._name))
                stack.enter_context(without_new_gradient_hooks(now.parameters))
            stack.enter_context(ScratchStatistics(now.norms))
            yield


def _is_known(module: nn.Module) -> bool:
    if type(module) in (ReversibleBlock, StageEntry) and not has_hooks(module):
        return all(plain_layers(child) is not None for child in module.children())
    return plain_layers(module) is not None


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
