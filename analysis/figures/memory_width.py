"""Activation memory against width by strategy: both grow with it, since wider activations are larger."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.figures.growth import GrowthInfo, growth_figure, growth_of
from analysis.store.store import Store


def info(store: Store) -> GrowthInfo:
    """Collects the trials that ended ok with measured activation memory."""
    return growth_of(store, "width")


def figure(info: GrowthInfo) -> go.Figure | None:
    """Draws it; None with fewer than two widths."""
    if len({p.x for one in info.series if one.role == "mean" for p in one.points}) < 2:
        return None
    return growth_figure(info, x="width / multiple of the preset's channels")
