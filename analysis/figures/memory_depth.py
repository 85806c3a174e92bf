"""Activation memory against depth by strategy: storing grows with depth, reversing should not."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.figures.growth import GrowthInfo, growth_figure, growth_of
from analysis.store.store import Store


def info(store: Store) -> GrowthInfo:
    """Collects the trials that ended ok with measured activation memory."""
    return growth_of(store, "depth")


def figure(info: GrowthInfo) -> go.Figure | None:
    """Draws it; None if there is no point to draw."""
    return growth_figure(info, x="depth / layers")
