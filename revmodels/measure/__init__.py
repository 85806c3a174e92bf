"""Measurements of a training step: its memory and operations, and how exactly it rebuilds what it needs."""

from revmodels.measure.fidelity import BlockFidelity, Fidelity, GroupFidelity, fidelity
from revmodels.measure.flops import Operations, flops, hardware_flops, model_flops
from revmodels.measure.lipschitz import BlockLipschitz, lipschitz
from revmodels.memory.step import MemoryUse, peak_memory, predict_memory

__all__ = [
    "BlockFidelity",
    "BlockLipschitz",
    "Fidelity",
    "GroupFidelity",
    "MemoryUse",
    "Operations",
    "fidelity",
    "flops",
    "hardware_flops",
    "lipschitz",
    "model_flops",
    "peak_memory",
    "predict_memory",
]
