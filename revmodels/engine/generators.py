"""Sources of random numbers beside PyTorch's global ones: Python's, NumPy's and those that a module holds."""

from __future__ import annotations

import ctypes
import pickle
import random
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import torch

from revmodels.torch_internals import without_dispatch_modes


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


def generators(sources: Iterable[Any]) -> list[Generator]:
    """Python's own generator, and `sources`, as they are now.

    Args:
        sources: of which `is_generator` is true, each once.

    Returns:
        Python's own first.
    """
    return [Generator(python_state, set_python_state), *map(_generator, sources)]


def is_generator(value: object) -> bool:
    """Whether random numbers can be drawn from `value`: a generator of PyTorch, Python or NumPy."""
    return isinstance(value, torch.Generator | random.Random) or _is_numpy(value)


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


def numpy_state() -> bytes | str | None:
    """The state of NumPy's global generator; None where NumPy draws nothing, as it was not imported."""
    source = sys.modules.get("numpy.random")
    if source is None:
        return None
    bits = source.get_bit_generator()
    if type(bits).__name__ != "MT19937":
        return str(bits.state)
    # `state` takes as long as a small network's step.
    return ctypes.string_at(bits.ctypes.state_address, 4 * _WORDS)


def has_numpy_moved(before: bytes | str | None) -> bool:
    """Return whether numbers were drawn from NumPy's global generator since `numpy_state` was called.

    Args:
        before: what was returned. Where something has imported NumPy since, its generator is as the operating
            system has seeded it, unless it was used.
    """
    now = numpy_state()
    if before is None and isinstance(now, bytes):
        return array("I", now)[-1] != _FRESH
    return now != before


_WORDS = 625
"""Words of 32 bits: the state of a Mersenne Twister, 624 and a position."""
_FRESH = 623
"""The position where NumPy's starts."""

_GLOBAL: Any = getattr(random.getstate, "__self__", None)
"""Python's own generator, whose methods are the functions of `random`."""


def _memory() -> bytes:
    """The state of Python's generator as it lies in memory, a twentieth of the time of ``getstate``."""
    return ctypes.string_at(id(_GLOBAL) + object.__basicsize__, 4 * _WORDS)


def _is_read_right() -> bool:
    """Whether `_memory` is what ``getstate`` says, in this Python."""
    if sys.implementation.name != "cpython" or type(_GLOBAL) is not random.Random:
        return False
    if type(_GLOBAL).__basicsize__ < object.__basicsize__ + 4 * _WORDS:
        return False
    version, words, _ = _GLOBAL.getstate()
    position, *rest = array("I", _memory())
    return version == 3 and (*rest, position) == words


_READS_MEMORY = _is_read_right()


def python_state() -> Any:
    """The state of Python's generator, as something that can be compared."""
    return (_memory(), _GLOBAL.gauss_next) if _READS_MEMORY else random.getstate()


def set_python_state(state: Any) -> None:
    """Set what `python_state` has returned."""
    if _READS_MEMORY:
        position, *words = array("I", state[0])
        state = 3, (*words, position), state[1]
    random.setstate(state)
