"""The first unit of a stage, which changes resolution and channels and so has no inverse."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import Pair
from revmodels.errors import ResidualError


class StageEntry(ReversibleBlock):
    """The first unit of a stage: it may change resolution and channels, so its input is stored.

    ``y1 = P1(x1) + F(x2)``, ``y2 = P2(x2) + G(y1)`` with shortcuts P that pool or project. As in the paper's
    code, the first unit of *every* stage is treated so, even where its shapes would allow inversion.
    """

    @property
    def has_inverse(self) -> bool:
        """False: its input has to be kept."""
        return False

    def __init__(self, f: nn.Module, g: nn.Module, shortcut1: nn.Module, shortcut2: nn.Module) -> None:
        super().__init__(f, g)
        self.p1 = shortcut1
        self.p2 = shortcut2

    def shortcut1(self, x1: Tensor) -> Tensor:
        """P1(x1), in the dtype of the stream."""
        return self._project(self.p1, x1)

    def shortcut2(self, x2: Tensor) -> Tensor:
        """P2(x2), in the dtype of the stream."""
        return self._project(self.p2, x2)

    def _project(self, shortcut: nn.Module, x: Tensor) -> Tensor:
        # Pooling and padding stay in the dtype of the stream; only a projection has arithmetic to choose.
        has_parameters = next(shortcut.parameters(), None) is not None
        return self.residual(shortcut, x) if has_parameters else self._on_grid(shortcut(x), x.dtype)

    def inverse(self, y: Tensor | Pair, /, *context: Any, **options: Any) -> Any:
        """A stage entry has no inverse.

        Raises:
            ResidualError: always; keep the entry's input instead.
        """
        raise ResidualError(
            "a stage entry changes resolution or channels and has no inverse; keep its input, as "
            "ReversibleSequence does."
        )
