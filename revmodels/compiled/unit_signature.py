"""When two units may share a compiled graph: equal classes, attributes, tensors' shapes and hooks.

What a module computes follows from its class, its attributes and its tensors. Two units that agree in all of
them but the tensors' values trace to the same graph. Anything this file cannot compare, it takes for unequal:
the unit then gets a graph of its own, which costs compile time and nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.coupling.linear import Coupling
from revmodels.torch_internals import own_buffers, own_parameters

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format)
_TABLES = ("_parameters", "_buffers", "_modules")


def signature(module: nn.Module) -> Hashable:
    """Return what is equal for two modules only if they compute the same function of their input and tensors.

    Submodules and tensors that occur twice are recognized as the same one in the second place. Objects that
    are not plain values (functions, say) count as equal only if they are one object, so a signature means
    nothing once they are gone.
    """
    places: dict[int, int] = {}
    return tuple(
        (
            name,
            places.setdefault(id(m), len(places)),
            type(m),
            tuple((key, _attribute(value)) for key, value in vars(m).items() if key not in _TABLES),
            tuple((key, _tensor(p, places)) for key, p in own_parameters(m).items()),
            tuple((key, _tensor(b, places)) for key, b in own_buffers(m).items()),
        )
        for name, m in module.named_modules(remove_duplicate=False)
    )


def is_plain(value: object) -> bool:
    """Whether `value` is a number, a string or the like, or a tuple of such."""
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))


def _tensor(tensor: Tensor | None, places: dict[int, int]) -> Hashable:
    if tensor is None:
        return None
    layout = (type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)
    return places.setdefault(id(tensor), len(places)), layout


def _attribute(value: Any) -> Hashable:
    if isinstance(value, _PLAIN):
        # 1, 1.0 and True are equal in Python, and not what they make of a tensor.
        return type(value), value
    if isinstance(value, Coupling):
        return type(value), value
    if isinstance(value, tuple | list):
        return type(value), tuple(_attribute(item) for item in value)
    if isinstance(value, set | frozenset | dict) and not value:
        return type(value), "empty"
    return "object", id(value)
