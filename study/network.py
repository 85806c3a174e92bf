"""A network that a study brings along: built, checked, and run with a memory strategy and a precision.

The builder is called as ``build(task, **options)``, where `task` tells what the network has to fit: an image
task ``input_shape`` and ``num_classes``, a language task ``vocabulary_size`` and ``context_length``. A
network that holds a `ReversibleSequence` takes every strategy. Any other takes those that need no inverse:
they act on its outermost `nn.Sequential`s, unit by unit, and ``checkpoint`` on the units of its outermost
`nn.ModuleList`s too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from study.code import call, find
from study.errors import StudyError
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.trial import TrialSettings
from study.tasks.registry import task_of

NAME = "model.name"


def own_network(settings: TrialSettings, shape: Any) -> nn.Module:
    """Build the network of a trial that brings one, with its strategy and precision, on the default device.

    Returns:
        The network, with weights from the global random generator.

    Raises:
        StudyError: The builder is missing, takes other arguments, fails, or returns no module; or the network
            cannot be run with the strategy or the precision.
    """
    network = _built(settings.model, settings.code, shape)
    _apply_coupling(network, settings.model)
    _apply_strategy(network, settings.model.name, settings.memory)
    _apply_precision(network, settings.model.name, settings.precision)
    return network


def _built(model: ModelSettings, folder: str | None, shape: Any) -> nn.Module:
    for name in ("width", "depth"):
        value = getattr(model, name)
        if value != getattr(ModelSettings, name):
            raise StudyError(
                f"model.{name}",
                value=value,
                rule="is for presets, and this network is your own",
                remedy="give it under model.options, as the builder calls it",
            )
    builder = find(NAME, model.name, folder)
    try:
        network = call(NAME, model.name, builder, shape, options=dict(model.options))
    except StudyError:
        if torch.get_default_device().type != "meta":
            raise
        # Some builders compute with numbers, which the meta device does not have.
        with torch.device("cpu"):
            network = call(NAME, model.name, builder, shape, options=dict(model.options))
        network = network.to("meta") if isinstance(network, nn.Module) else network
    if not isinstance(network, nn.Module):
        raise StudyError(
            NAME, value=model.name, rule=f"must return an nn.Module, not {type(network).__name__}"
        )
    return network


def holds_inverse(settings: TrialSettings) -> bool:
    """Return whether a network of one's own has something to invert; it is built without memory to see.

    Raises:
        StudyError: It cannot be built, or has other parameters each time; or the data are missing.
    """
    return _holds_inverse(settings.model, settings.code, task_of(settings).shape(settings))


@lru_cache(maxsize=256)
def _holds_inverse(model: ModelSettings, folder: str | None, shape: Any) -> bool:
    from revmodels import ReversibleSequence

    first, second = (_outline(model, folder, shape) for _ in range(2))
    shapes = [{name: tuple(p.shape) for name, p in one.named_parameters()} for one in (first, second)]
    if shapes[0] != shapes[1]:
        changed = next(n for n in (*shapes[0], *shapes[1]) if shapes[0].get(n) != shapes[1].get(n))
        raise StudyError(
            NAME,
            value=model.name,
            rule=f"must build the same parameters in each call: {changed} was {shapes[0].get(changed)}, then "
            f"{shapes[1].get(changed)}",
            remedy="let its shape follow from the options alone",
        )
    return any(isinstance(m, ReversibleSequence) for m in first.modules())


def _outline(model: ModelSettings, folder: str | None, shape: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _built(model, folder, shape)


def _apply_coupling(network: nn.Module, model: ModelSettings) -> None:
    """Couple the streams of every sequence by the rule that a study names; without one, leave them."""
    from revmodels import ReversibleSequence
    from revmodels.coupling.linear import find_coupling

    if model.coupling is None:
        return
    for module in network.modules():
        if isinstance(module, ReversibleSequence):
            module.set_coupling(find_coupling(model.coupling, **model.coupling_numbers))


def _apply_strategy(network: nn.Module, name: str, memory: MemorySettings) -> None:
    from revmodels import ReversibleSequence
    from revmodels.errors import RevModelsError
    from revmodels.strategies.registry import find_strategy

    chosen = memory.strategy or "store"
    strategy = find_strategy(chosen)
    sequences = [m for m in network.modules() if isinstance(m, ReversibleSequence)]
    try:
        for sequence in sequences:
            sequence.strategy = chosen
            sequence.anchor_every = memory.anchor_every
            sequence.memory_budget_bytes = memory.memory_budget_bytes
    except RevModelsError as error:
        raise StudyError("memory.strategy", value=chosen, rule=str(error)) from None
    if sequences or not strategy.saves_memory or strategy.whole_network:
        return
    rows = list(_outermost(network, nn.Sequential))
    for row in rows:
        _specialize(row, _through(chosen))
    units: list[nn.Module] = []
    if strategy.unit_by_unit:
        units = [unit for row in _outermost(network, nn.ModuleList) for unit in row]
        for unit in units:
            _specialize(unit, _checkpointing)
    if not rows and not units:
        raise StudyError(
            "memory.strategy",
            value=chosen,
            rule=f"{name} has no row of units to act on: no ReversibleSequence and no nn.Sequential"
            + (", and no nn.ModuleList" if strategy.unit_by_unit else ""),
            remedy="use store, or put its blocks in one",
        )


def rows_of_units(network: nn.Module) -> list[nn.Module]:
    """The outermost rows of units of a network: its `nn.Sequential`s and `nn.ModuleList`s."""
    return [*_outermost(network, nn.Sequential), *_outermost(network, nn.ModuleList)]


def _outermost(module: nn.Module, kind: type) -> Iterator[Any]:
    """Modules of a kind with two units at least that lie in no other row of units."""
    for child in module.children():
        several = isinstance(child, nn.Sequential | nn.ModuleList) and len(child) > 1
        if several and isinstance(child, kind):
            yield child
        elif not several:
            yield from _outermost(child, kind)


Forward = Callable[..., Any]


def _specialize(module: nn.Module, change: Callable[[Forward], Forward]) -> None:
    """Change the forward pass of one module. Its copies have the change too; its state dict stays."""
    kind = type(module)
    forward = functools.wraps(kind.forward)(change(kind.forward))
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _through(strategy: str) -> Callable[[Forward], Forward]:
    def change(forward: Forward) -> Forward:
        def run(self: nn.Sequential, stream: Tensor) -> Tensor:
            from revmodels.strategies.registry import find_strategy
            from revmodels.strategies.strategy import ForwardPass

            if not (torch.is_grad_enabled() and isinstance(stream, Tensor)):
                return forward(self, stream)
            units = ForwardPass(units=self, apply=lambda unit, x: (unit(x),))  # type: ignore[arg-type]
            (stream,) = find_strategy(strategy).run(units, stream)
            return stream

        return run

    return change


def _checkpointing(forward: Forward) -> Forward:
    def run(self: nn.Module, *inputs: Any, **named: Any) -> Any:
        from revmodels.strategies.checkpoint import checkpointed

        if not torch.is_grad_enabled():
            return forward(self, *inputs, **named)

        def again(*inputs: Any) -> Any:
            return forward(self, *inputs, **named)

        return checkpointed(again, *inputs, modules=(self,), name=type(self).__name__)

    return run


def _apply_precision(network: nn.Module, name: str, settings: PrecisionSettings) -> None:
    """Hand the policy to what can be reversed; elsewhere, run the network in its arithmetic."""
    import revmodels
    from revmodels.precision import DTYPES

    precision = revmodels.Precision(**asdict(settings))
    sequences = [m for m in network.modules() if isinstance(m, revmodels.ReversibleSequence)]
    if not sequences and (settings.coupling, settings.stream) not in (
        ("additive", "fp32"),
        ("additive", settings.compute),
    ):
        raise StudyError(
            "precision.stream" if settings.coupling == "additive" else "precision.coupling",
            value=settings.stream if settings.coupling == "additive" else settings.coupling,
            rule=f"{name} holds no ReversibleSequence, and so no streams",
            remedy="leave it at its default",
        )
    for sequence in sequences:
        sequence.set_precision(precision)
    if settings.compute == "fp64":
        network.double()
    elif settings.compute != "fp32":
        _specialize(network, _autocast(DTYPES[settings.compute]))


def _autocast(dtype: torch.dtype) -> Callable[[Forward], Forward]:
    def change(forward: Forward) -> Forward:
        def run(self: nn.Module, *inputs: Any, **named: Any) -> Any:
            with torch.autocast(next(self.parameters()).device.type, dtype):
                outputs = forward(self, *inputs, **named)
            return outputs.float() if isinstance(outputs, Tensor) else outputs

        return run

    return change
