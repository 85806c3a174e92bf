"""The report's figures. Each module has `info(store)`, a frozen dataclass of numbers, and `figure(info)`."""

from analysis.figures import (
    curves,
    error_block,
    error_depth,
    error_epoch,
    failures,
    memory_depth,
    overhead,
    precision_width,
    tradeoff,
)

FIGURES = {
    "tradeoff": tradeoff,
    "memory_depth": memory_depth,
    "error_depth": error_depth,
    "precision_width": precision_width,
    "error_block": error_block,
    "error_epoch": error_epoch,
    "overhead": overhead,
    "curves": curves,
    "failures": failures,
}

__all__ = ["FIGURES"]
