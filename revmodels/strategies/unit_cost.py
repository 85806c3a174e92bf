"""What a unit costs to compute again and to hold, and the ways to hold more of it, best first.

A unit that is rebuilt holds nothing and is computed again. It may hold the outputs of single convolutions and
linear layers (`revmodels.engine.kept_layers`), whose products are then not repeated; its input, which costs
the bytes of one pair and saves the last product of F and of G (`revmodels.engine.kept_outputs`); or its whole
graph. What is left to repeat beside products are norms and activations, whose time goes by the bytes they
write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import Context, Pair
from revmodels.engine.given import Given
from revmodels.engine.kept_layers import keepable_layers_of
from revmodels.engine.kept_outputs import without_value
from revmodels.engine.layer_gradients import operations
from revmodels.engine.unit_replay import UnitReplay
from revmodels.operations import operation_counter
from revmodels.strategies.memory_plan import KeptLayer
from revmodels.torch_internals import (
    TorchDispatchMode,
    is_autocast_enabled,
    storage_key,
    tree_leaves,
    writes_in_place,
)

OPERATIONS_PER_BYTE = {"cpu": 8}
OPERATIONS_PER_BYTE_ELSEWHERE = 100
"""How many operations of products a device does while it writes a byte of anything else: on one core of a CPU
a batch norm writes about 5 GB/s, and a convolution does about 80 operations a nanosecond. An order of
magnitude is enough, since it decides only when a whole graph is worth more than single layers."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One way to hold a unit.

    Attributes:
        saved_per_byte: operations that it saves for each byte more than the way before it.
        mode: ``reverse``, ``checkpoint`` or ``store``.
        layers: those whose outputs are held.
        repeated: operations that are done twice.
        bytes: what is held, about.
    """

    saved_per_byte: float
    mode: str
    layers: tuple[KeptLayer, ...]
    repeated: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """Of one unit.

    Attributes:
        work: operations of an evaluation, with what other work counts.
        graph_bytes: of the tensors that its graph holds.
        input_bytes: of the pair that enters it.
        layers: layers whose outputs can be kept, with what that saves.
        lasts: the last layers of F and G that need not be computed where the input is kept.
    """

    work: int
    graph_bytes: int
    input_bytes: int
    layers: tuple[KeptLayer, ...]
    lasts: tuple[KeptLayer, ...]

    def holdings(self, frugal: str) -> Iterator[Holding]:
        """Ways to hold the unit, from the most frugal to the whole graph.

        Each holds more than the one before, and saves less work for a byte.

        Args:
            frugal: the mode that holds least: ``reverse``, or ``checkpoint`` for a unit without an inverse.

        Yields:
            The ways; the first is the frugal one.
        """
        last_names = {layer.name for layer in self.lasts}
        is_rebuilt = frugal == "reverse"
        left = self.work - (0 if is_rebuilt else sum(layer.operations for layer in self.lasts))
        held = 0
        taken: list[KeptLayer] = []
        yield Holding(saved_per_byte=0.0, mode=frugal, layers=(), repeated=left, bytes=0)
        for saved, size, layers in sorted(self._steps(frugal), key=lambda step: -step[0] / step[1]):
            if left / max(self.graph_bytes - held, 1) > saved / size:
                break
            left, held, taken = left - saved, held + size, taken + layers
            mode, kept = frugal, taken
            if is_rebuilt and last_names and last_names <= {layer.name for layer in taken}:
                spared = sum(layer.bytes for layer in self.lasts)
                if size == self.input_bytes or spared >= self.input_bytes:
                    # As many bytes and as much work as the values themselves, and no inverse.
                    mode, kept = "checkpoint", [layer for layer in taken if layer.name not in last_names]
            yield Holding(
                saved_per_byte=saved / size, mode=mode, layers=tuple(kept), repeated=left, bytes=held
            )
        rest = left / max(self.graph_bytes - held, 1)
        yield Holding(saved_per_byte=rest, mode="store", layers=(), repeated=0, bytes=self.graph_bytes)

    def _steps(self, frugal: str) -> list[tuple[int, int, list[KeptLayer]]]:
        """What can be held beside what the frugal mode holds: work that it saves, bytes, layers."""
        names = {layer.name for layer in self.layers}
        lasts = {layer.name for layer in self.lasts}
        singly = frugal == "reverse" and lasts <= names
        steps = [
            (layer.operations, layer.bytes, [layer])
            for layer in self.layers
            if singly or layer.name not in lasts
        ]
        if frugal == "reverse" and not singly:
            steps.append((sum(layer.operations for layer in self.lasts), self.input_bytes, list(self.lasts)))
        return steps


class _Written(TorchDispatchMode):
    """Counts the bytes that operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage_key(t) for t in tree_leaves(args) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and (storage_key(t) not in given or writes_in_place(func)):
                self.bytes += t.nbytes
        return out


def unit_cost(unit: ReversibleBlock, pair: Pair, context: Context, device: str) -> UnitCost:
    """What a unit costs, found by evaluating it on tensors without numbers.

    Args:
        unit: on tensors without numbers.
        pair: its two streams.
        context: what F and G are handed beside them.
        device: the type of the device that it will run on.

    Returns:
        Its cost; at least one operation.
    """
    x1, x2 = (x.detach().requires_grad_(True) for x in pair)
    held: dict[int, Tensor] = {}

    def pack(t: Tensor) -> Tensor:
        held[storage_key(t)] = t
        return t

    lasts: dict[str, KeptLayer] = {}
    hooks = [
        last.register_forward_hook(
            lambda layer, _, out, name=name: lasts.update({name: _described(name, layer, out)})
        )
        for name, last in _last_layers(unit, x1)
    ]
    with operation_counter() as counter, _Written() as written, saved_tensors_hooks(pack, lambda t: t):
        unit((x1, x2), *context.args, **context.options)
    for hook in hooks:
        hook.remove()
    # A context is held once, whatever the units do.
    own = {storage_key(t) for t in (*unit.parameters(), *context.tensors)}
    given = Given(context.args, context.options, {}) if context else None
    return UnitCost(
        work=max(
            counter.get_total_flops()
            + OPERATIONS_PER_BYTE.get(device, OPERATIONS_PER_BYTE_ELSEWHERE) * written.bytes,
            1,
        ),
        graph_bytes=sum(t.untyped_storage().nbytes() for key, t in held.items() if key not in own),
        input_bytes=x1.nbytes + x2.nbytes,
        layers=_kept(unit, x1, x2, given),
        lasts=tuple(lasts.values()),
    )


def _last_layers(unit: ReversibleBlock, x: Tensor) -> list[tuple[str, nn.Module]]:
    """The layers that are not computed in a replay which nobody needs the value of."""
    casts = unit.precision.autocasts if unit.precision else is_autocast_enabled(x.device.type)
    if unit.is_exact or casts:
        return []
    halves = {"f": unit.f, "g": unit.g}
    return [
        (f"{letter}.{len(fn) - 1}", fn[-1])
        for letter, fn in halves.items()
        if isinstance(fn, nn.Sequential) and without_value(fn)
    ]


def _kept(unit: ReversibleBlock, x1: Tensor, x2: Tensor, given: Given | None) -> tuple[KeptLayer, ...]:
    """Layers whose outputs the unit keeps when it is asked to keep all."""
    names = keepable_layers_of(unit)
    replay = UnitReplay(unit, False, "a unit", given, names)
    replay.record(x1, x2)
    return tuple(
        _described(name, unit.get_submodule(name), out)
        for name, out in zip(names, replay.take_kept(), strict=True)
        if out is not None
    )


def _described(name: str, layer: nn.Module, out: Tensor) -> KeptLayer:
    return KeptLayer(
        name=name,
        kind=type(layer).__name__,
        operations=operations(layer, out),
        bytes=out.untyped_storage().nbytes(),
    )
