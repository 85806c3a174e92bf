"""What every memory strategy answers: its facts, and how it runs the units of a forward pass.

Nothing here imports PyTorch when it is imported: planners ask for facts alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from revmodels.coupling.block import ReversibleBlock
    from revmodels.coupling.context import Context
    from revmodels.coupling.range import Extent
    from revmodels.engine.eager import Observer
    from revmodels.engine.recomputed_input import Origin
    from revmodels.strategies.memory_plan import Plans

Streams = tuple["Tensor", ...]
"""What goes from unit to unit: a pair of tensors in a reversible network, one tensor in a ResNet."""


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """The units of one forward pass, as a strategy sees them.

    Attributes:
        units: first to last.
        apply: evaluates one unit on the streams, storing what plain autograd stores.
        keeps_input: of each unit, whether its input is kept although other units are rebuilt: stage entries,
            which have no inverse, and anchors.
        modes: of each unit, what ``budget`` has decided; None before it has, and with any other strategy.
        layers: of each unit, the names of layers whose outputs ``budget`` keeps beside that; empty if it
            keeps none.
        observer: is told of every input pair in the backward pass.
        extent: is shown every output pair of an exact coupling; None for any other.
        origin: makes the streams that enter the first unit again; None where they are to be stored.
        context: what every F and G is handed beside its stream; `apply` does so by itself. None without any.
    """

    units: nn.ModuleList
    apply: Callable[..., Streams]
    keeps_input: tuple[bool, ...] = ()
    modes: tuple[str, ...] | None = None
    layers: tuple[tuple[str, ...], ...] = ()
    observer: Observer | None = None
    extent: Extent | None = None
    origin: Origin | None = None
    context: Context | None = None

    def see(self, index: int, streams: Streams) -> None:
        """Show the output of unit `index` to the extent, if there is one."""
        if self.extent is not None:
            self.extent.see(index, *streams)


class PlannedSequence(Protocol):
    """What a planner needs of the sequence that it plans.

    Attributes:
        memory_budget_bytes: the most bytes of activations and temporaries; None is the least possible.
        plans: what has been planned for it.
    """

    memory_budget_bytes: int | None
    plans: Plans

    @property
    def keeps_input(self) -> tuple[bool, ...]:
        """Of each unit, whether it cannot be rebuilt."""

    def units(self) -> Iterator[ReversibleBlock]:
        """The units, first to last."""


class Strategy(ABC):
    """A memory strategy. Its instances hold no state: all of it belongs to the network.

    Attributes:
        name: in `ReversibleSequence.strategy`, in study files and in result rows.
        summary: one sentence for people who choose.
        saves_memory: whether it holds less than plain autograd does.
        recomputes: whether the backward pass computes activations again, all of them or some.
        inverts: whether activations are rebuilt by inverting units, so that rounding matters to gradients.
        needs_inverse: whether a network must have reversible units for it.
        settings: names of the settings that count with it, and the value that None stands for.
        compiles: whether a network that uses it can be compiled by ``torch.compile(fullgraph=True)``.
        plans: whether it chooses for each unit by itself, and so allows no anchors beside it.
        unit_by_unit: whether it can act on units that a network calls one by one, with anything in between.
        whole_network: whether it acts on the network from outside (see `prepare`), and so on one process.
        predicts_exactly: whether `revmodels.measure.predict_memory` gives its bytes exactly; if not, they are
            an upper bound.
        tolerance: largest relative error that it promises of the gradient of all parameters together, against
            storing, in float64 arithmetic.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    saves_memory: ClassVar[bool] = True
    recomputes: ClassVar[bool] = True
    inverts: ClassVar[bool] = False
    needs_inverse: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, object]] = {}
    compiles: ClassVar[bool] = True
    plans: ClassVar[bool] = False
    unit_by_unit: ClassVar[bool] = False
    whole_network: ClassVar[bool] = False
    predicts_exactly: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-12

    @abstractmethod
    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn in a training step.

        Args:
            forward: the units and what is known of them.
            streams: what enters the first unit: two tensors of equal shape and dtype, or one.

        Returns:
            What the last unit returns.
        """

    def modes(self, forward: ForwardPass) -> tuple[str, ...]:
        """Of each unit, what happens to its activations: ``store``, ``reverse`` or ``checkpoint``."""
        return (self.name,) * len(forward.units)

    def plan(self, model: nn.Module, sequence: PlannedSequence, *inputs: Any, **options: Any) -> None:
        """Choose what happens to the units of `sequence`, a part of `model`; most strategies have no choice.

        Args:
            model: what is called, with all the memory that counts.
            sequence: the sequence of this strategy in it, or `model` itself.
            inputs: what `model` is called with: tensors of any shape and dtype, and whatever else.
            options: likewise, by name.
        """
        return

    def recomputes_stem(self, modes: Sequence[str]) -> bool:
        """Whether what precedes the units is computed again too, given the units' modes."""
        return False

    def prepare(self, model: nn.Module) -> nn.Module:
        """What is called in a training step in place of `model`; most strategies leave it as it is."""
        return model

    def session(self, **settings: object) -> AbstractContextManager:
        """A context around the making and the training of a network, with this strategy's `settings`."""
        return nullcontext()

    def resolved(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """`settings` as they count: None where they do not, and the default where None was given."""
        return {
            key: (value if value is not None else self.settings[key]) if key in self.settings else None
            for key, value in settings.items()
        }


def applied(forward: ForwardPass, indices: Iterator[int] | range, *streams: Tensor) -> Streams:
    """Apply units one after the other, storing what plain autograd stores.

    Args:
        forward: the units.
        indices: positions of those to apply.
        streams: what enters the first of them, all of one shape and dtype.

    Returns:
        What the last of them returns.
    """
    for index in indices:
        streams = forward.apply(forward.units[index], *streams)
        forward.see(index, streams)
    return streams
