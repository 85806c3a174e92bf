"""The report's figures. Each module has `info(store)`, a frozen dataclass of numbers, and `figure(info)`."""

from analysis.figures import (
    accuracy_depth,
    contour,
    curves,
    error_block,
    error_depth,
    error_epoch,
    error_tradeoff,
    failures,
    importance,
    memory_depth,
    memory_width,
    overhead,
    parallel,
    precision_map,
    precision_width,
    scaling,
    search_history,
    time_memory,
    tradeoff,
)

FIGURES = {
    "tradeoff": tradeoff,
    "error_tradeoff": error_tradeoff,
    "parallel": parallel,
    "memory_depth": memory_depth,
    "accuracy_depth": accuracy_depth,
    "memory_width": memory_width,
    "scaling": scaling,
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
