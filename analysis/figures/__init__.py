"""The report's figures. Each module has `info(store)`, a frozen dataclass of numbers, and `figure(info)`."""

from analysis.figures import (
    curves,
    error_block,
    error_depth,
    error_epoch,
    failures,
    importance,
    memory_depth,
    overhead,
    parallel,
    precision_map,
    precision_width,
    search_history,
    tradeoff,
)

FIGURES = {
    "tradeoff": tradeoff,
    "parallel": parallel,
    "memory_depth": memory_depth,
    "precision_map": precision_map,
    "error_depth": error_depth,
    "precision_width": precision_width,
    "error_block": error_block,
    "error_epoch": error_epoch,
    "overhead": overhead,
    "curves": curves,
    "search_history": search_history,
    "importance": importance,
    "failures": failures,
}

__all__ = ["FIGURES"]
