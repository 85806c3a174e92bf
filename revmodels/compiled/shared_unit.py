"""What stands for a unit while its graph is traced: a template, shared by all units of its structure.

A graph holds tensors and constants, no modules. So a unit enters it as its tensors and the key of a template,
and `revmodels.compiled.unit_graph` looks the template up when it fills the graph. The tracer does not see
what is read there: `watch` reads it before the tracer's eyes, so that a change compiles the network anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import count
from types import BuiltinFunctionType, FunctionType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.func import functional_call

from revmodels.compiled.context import Form, needing_gradient
from revmodels.compiled.unit_signature import is_plain, signature
from revmodels.coupling.block import ReversibleBlock
from revmodels.errors import CompileError, RevModelsError
from revmodels.precision import Precision
from revmodels.torch_internals import BatchNorm, count_forward_hooks, own_buffers, own_parameters


class Template:
    """The unit that stands for all of its structure while a graph is traced."""

    def __init__(self, unit: ReversibleBlock, path: str, *, keeps_input: bool, form: Form) -> None:
        moving = {id(b) for b in moving_buffers(unit)}
        self.unit = ref(unit)
        self.path = path
        self.keeps_input = keeps_input
        self.form = form
        self.given_trainable = needing_gradient(form)
        self.parameters = [name for name, _ in unit.named_parameters()]
        self.trainable = [name for name, p in unit.named_parameters() if p.requires_grad]
        self.still = [name for name, b in unit.named_buffers() if id(b) not in moving]
        names = {id(t): name for name, t in (*unit.named_parameters(), *unit.named_buffers())}
        self.moving = [names[id(b)] for b in moving_buffers(unit)]
        # By every place that holds a tensor, each module once: functional_call would fill the places of a
        # module with two names twice, and afterwards put the first filling back.
        self.places = {
            ".".join(filter(None, ("unit", prefix, key))): names[id(tensor)]
            for prefix, module in unit.named_modules()
            for key, tensor in (*own_parameters(module).items(), *own_buffers(module).items())
            if tensor is not None
        }
        self.kept = [*self.parameters, *self.still]
        self.buffers_with_gradient = [name for name, b in unit.named_buffers() if b.requires_grad]
        self.draws = 0
        """Random draws of F in the forward pass; those after them are G's."""

    def call(self, method: Callable[..., tuple], state: dict[str, Tensor], *args: Any) -> tuple:
        """Run ``method(unit, ...)`` with `state` in place of the unit's own tensors."""
        unit = self.unit()
        assert unit is not None, "a graph is traced while its network exists"
        held = {place: state[name] for place, name in self.places.items() if name in state}
        return functional_call(_Caller(unit, method), held, (self, *args), tie_weights=False)

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """A context whose errors say which function of which unit they come from."""
        try:
            yield
        except RevModelsError:
            raise
        except Exception as error:
            unit = self.unit()
            raise CompileError(
                f"torch.compile cannot trace {self.path}.{name} ({type(getattr(unit, name)).__name__}): "
                f"{type(error).__name__}: {error} F and G must be traceable on fake tensors, and tensors "
                "they hold must be parameters or buffers. Change the module, or call the network uncompiled."
            ) from error


class _Caller(nn.Module):
    def __init__(self, unit: ReversibleBlock, method: Callable[..., tuple]) -> None:
        super().__init__()
        self.unit = unit
        self.method = method

    def forward(self, *args: Any) -> tuple:
        return self.method(self.unit, *args)


templates: dict[int, Template] = {}
_keys = count()


@torch.compiler.assume_constant_result
def template_keys(
    blocks: nn.ModuleList, positions: tuple[int, ...], keeps: tuple[bool, ...], form: Form
) -> tuple[int, ...]:
    """Return keys of the templates of some of the units: units of equal structure have the same.

    Args:
        blocks: all units.
        positions: those that are asked for.
        keeps: of each of those, whether it keeps its input instead of rebuilding it.
        form: structure of the context that every one of them is given.
    """
    for key in [key for key, template in templates.items() if template.unit() is None]:
        del templates[key]
    keys: dict[Any, int] = {}
    found = []
    for position, keep in zip(positions, keeps, strict=True):
        unit = blocks[position]
        assert isinstance(unit, ReversibleBlock)
        structure = signature(unit), keep
        if structure not in keys:
            keys[structure] = next(_keys)
            templates[keys[structure]] = Template(unit, f"blocks.{position}", keeps_input=keep, form=form)
        found.append(keys[structure])
    return tuple(found)


@torch.compiler.assume_constant_result
def layout(key: int) -> tuple[bool, int, int]:
    """Whether the unit keeps its input; how many parameters and still buffers it has; moving buffers."""
    t = templates[key]
    return t.keeps_input, len(t.parameters) + len(t.still), len(t.moving)


def watch(unit: ReversibleBlock) -> None:
    """Read what `unit` computes by, so that it is compiled anew when any of that changes."""
    read: list[Any] = [unit.rule.alpha, unit.rule.beta, unit.rule.scale]
    if unit.precision is not None:
        read += [getattr(unit.precision, field) for field in _PRECISION]
    for module, (values, functions) in zip(unit.modules(), _settings(unit), strict=True):
        read += [getattr(module, name) for name in values]
        read += [callable(getattr(module, name)) for name in functions]
        read.append(count_forward_hooks(module))
    hash(tuple(read))


@torch.compiler.assume_constant_result
def _settings(unit: nn.Module) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """For each module in `unit`, the names of its attributes that are plain values, and functions."""
    found = []
    for module in unit.modules():
        own = {n: value for n, value in vars(module).items() if n not in _COMMON}
        plain = ("training", *(n for n, value in own.items() if is_plain(value)))
        found.append((plain, tuple(n for n, value in own.items() if isinstance(value, _FUNCTIONS))))
    return tuple(found)


_PRECISION = tuple(field.name for field in fields(Precision))
_FUNCTIONS = (FunctionType, BuiltinFunctionType, type)
_COMMON = frozenset(vars(nn.Module()))
"""Attributes of every module: tables of its content, guarded as such."""


def moving_buffers(unit: nn.Module) -> list[Tensor]:
    """The running statistics that a forward pass moves."""
    return [
        b
        for layer in unit.modules()
        if isinstance(layer, BatchNorm) and layer.training and layer.track_running_stats
        for b in layer.buffers()
    ]
