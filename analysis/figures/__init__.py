"""The report's figures. Each module has `info(store)`, a frozen dataclass of numbers, and `figure(info)`."""

from analysis.figures import (
    contour,
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
    time_memory,
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
    "time_memory": time_memory,
    "overhead": overhead,
    "curves": curves,
    "search_history": search_history,
    "importance": importance,
    "contour": contour,
    "failures": failures,
}

__all__ = ["FIGURES"]
