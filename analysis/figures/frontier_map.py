"""The map of a frontier: which strategy to train for each budget of memory and operations."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.laws.frontier import Frontier
from analysis.strategies import strategy_color
from analysis.theme import INK, base_layout, log_ticks
from analysis.wording import bytes_text


def figure(found: Frontier) -> go.Figure:
    """Draw the map: a color for each strategy, contours of the loss, and a cross at the budget asked about.

    Args:
        found: The answer, with its map.

    Returns:
        The figure; where nothing fits, it is empty.
    """
    chosen = sorted({found.candidates[i].strategy for i in np.unique(found.map.best) if i >= 0})
    places = {name: k for k, name in enumerate(chosen)}
    z = [[None if i < 0 else places[found.candidates[i].strategy] for i in row] for row in found.map.best]
    text = [
        [_words(found, int(i), float(loss), float(far)) for i, loss, far in zip(*rows, strict=True)]
        for rows in zip(found.map.best, found.map.loss, found.map.beyond, strict=True)
    ]
    gigabytes = found.map.memory / 1e9
    layout = base_layout(
        title="What to train within a budget", x="operations of the training / FLOP", y="memory / GB"
    )
    layout.xaxis.update(type="log", exponentformat="power")
    layout.yaxis.type = "log"
    layout.yaxis.update(log_ticks(gigabytes))
    last = max(1, len(chosen) - 1)
    drawn = go.Figure(layout=layout)
    drawn.add_heatmap(
        x=found.map.operations,
        y=gigabytes,
        z=z,
        text=text,
        hovertemplate="%{text}<extra></extra>",
        colorscale=[[k / last, strategy_color(name)] for k, name in enumerate(chosen)]
        if len(chosen) > 1
        else [[0, strategy_color(chosen[0])], [1, strategy_color(chosen[0])]]
        if chosen
        else None,
        zmin=0,
        zmax=last,
        showscale=False,
        opacity=0.75,
    )
    drawn.add_contour(
        x=found.map.operations,
        y=gigabytes,
        z=found.map.loss,
        contours={"coloring": "none", "showlabels": True, "labelfont": {"color": INK}},
        line={"color": INK, "width": 1},
        showscale=False,
        hoverinfo="skip",
    )
    for name in chosen:
        drawn.add_scatter(
            x=[None], y=[None], mode="markers", name=name,
            marker={"color": strategy_color(name), "symbol": "square", "size": 12},
        )  # fmt: skip
    drawn.add_scatter(
        x=[found.operations], y=[found.memory / 1e9], mode="markers", name="this budget", hoverinfo="skip",
        marker={"color": INK, "symbol": "x", "size": 11},
    )  # fmt: skip
    return drawn


def _words(found: Frontier, place: int, loss: float, beyond: float) -> str:
    if place < 0:
        return "nothing fits"
    one = found.candidates[place]
    far = "" if beyond <= 1 else f"<br>{beyond:.3g} times beyond the rows of the law"
    return (
        f"<b>{one.strategy}</b>, depth {one.depth}, width {one.width:g}, {one.accumulate} parts<br>"
        f"{one.parameters:,.0f} parameters in {bytes_text(one.memory_bytes)}<br>loss {loss:.4f}{far}"
    )
