"""Context in a graph: its tensors go in beside the streams, and its structure stands in the template.

A graph holds tensors and constants. So a context is taken apart where the network is traced, and put together
again where the graph of a unit is filled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revmodels.coupling.context import Context
from revmodels.errors import CompileError

Form = tuple
"""The structure of a context, of plain values alone: hashable, and a constant of the graph."""

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def taken_apart(context: Context) -> tuple[list[Tensor], Form]:
    """The tensors of a context, each once, and its structure with their numbers in their places.

    Args:
        context: what every F and G is handed; tensors in tuples, lists and dictionaries, and plain values.

    Returns:
        The tensors, and what `put_together` makes a context of.

    Raises:
        CompileError: there is something in it that no graph can hold.
    """
    tensors: list[Tensor] = []

    def form(value: Any) -> Form:
        if isinstance(value, Tensor):
            for number, known in enumerate(tensors):
                if known is value:
                    return ("tensor", number, value.requires_grad)
            tensors.append(value)
            return ("tensor", len(tensors) - 1, value.requires_grad)
        if type(value) in (tuple, list):
            kind = "list" if isinstance(value, list) else "tuple"
            return (kind, *[form(item) for item in value])
        if type(value) is dict:
            return ("dict", tuple(value), *[form(item) for item in value.values()])
        # The tracer may hold a number as a symbol; as text it is a constant, and guarded.
        if type(value) is int:
            return ("value", int(f"{value}"))
        if type(value) is float:
            return ("value", float(f"{value}"))
        if isinstance(value, _CONSTANTS):
            return ("value", value)
        raise CompileError(
            "a graph can be given tensors and plain values (numbers, strings, None), in tuples, lists and "
            f"dictionaries; the context of this sequence holds a {type(value).__name__}. Hand on the tensors "
            "in it, or call the network uncompiled."
        )

    args = tuple([form(value) for value in context.args])
    options = tuple([(name, form(value)) for name, value in context.options.items()])
    return tensors, (args, options)


def needing_gradient(form: Form) -> tuple[bool, ...]:
    """Of each tensor, whether it needs a gradient.

    Args:
        form: what `taken_apart` returned.

    Returns:
        In the order of the tensors.
    """
    found: dict[int, bool] = {}

    def look(part: Form) -> None:
        if part[0] == "tensor":
            found[part[1]] = part[2]
        elif part[0] != "value":
            for item in part[2:] if part[0] == "dict" else part[1:]:
                look(item)

    args, options = form
    for part in (*args, *[part for _, part in options]):
        look(part)
    return tuple(found[number] for number in range(len(found)))


def put_together(form: Form, tensors: list[Tensor]) -> Context:
    """The context of this structure that holds these tensors.

    Args:
        form: what `taken_apart` returned.
        tensors: in its order.

    Returns:
        The context.
    """

    def value(part: Form) -> Any:
        kind, *rest = part
        if kind == "tensor":
            return tensors[rest[0]]
        if kind == "dict":
            return dict(zip(rest[0], map(value, rest[1:]), strict=True))
        if kind == "value":
            return rest[0]
        return list(map(value, rest)) if kind == "list" else tuple(map(value, rest))

    args, options = form
    return Context(tuple(map(value, args)), {name: value(part) for name, part in options})
