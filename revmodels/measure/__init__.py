"""Measurements of a training step: its memory, and how faithfully it rebuilds activations and gradients."""

from revmodels.measure.fidelity import BlockFidelity, Fidelity, GroupFidelity, fidelity
from revmodels.measure.lipschitz import BlockLipschitz, lipschitz
from revmodels.memory.step import MemoryUse, peak_memory, predict_memory

__all__ = [
    "BlockFidelity",
    "BlockLipschitz",
    "Fidelity",
    "GroupFidelity",
    "MemoryUse",
    "fidelity",
    "lipschitz",
    "peak_memory",
    "predict_memory",
]
