"""A figure of the report by its name."""

from __future__ import annotations

import difflib

import plotly.graph_objects as go

from analysis.errors import AnalysisError
from analysis.figures import FIGURES
from analysis.store.store import Store


def figure(store: Store, name: str) -> go.Figure | None:
    """Draws one of the report's figures.

    Args:
        store: an open store.
        name: one of `analysis.figures.FIGURES`.

    Returns:
        The figure; None where the rows hold nothing for it.

    Raises:
        AnalysisError: there is no such figure; the message names the nearest.

    """
    if name not in FIGURES:
        near = difflib.get_close_matches(name, FIGURES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AnalysisError(f"no figure {name!r}: choose {', '.join(FIGURES)}{hint}")
    module = FIGURES[name]
    return module.figure(module.info(store))
