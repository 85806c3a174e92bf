"""One look for every figure: Okabe–Ito colors, symbols, axes with units, no chart junk.

Every precision and every strategy (see `analysis.strategies`) has one color wherever it appears, and a symbol
or dash beside it, so that no figure depends on color alone (Okabe and Ito, *Color universal design*, 2008).
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any, TypedDict

import plotly.graph_objects as go

from analysis.stats import Row
from analysis.strategies import NEUTRAL

PRECISION_COLORS = {"fp32": "#009E73", "bf16": "#CC79A7", "fp16": "#56B4E9", "fp64": "#8A8F98"}
OUTCOME_COLORS = {
    "ok": "#009E73",
    "diverged": "#D55E00",
    "oom": "#CC79A7",
    "pruned": "#8A8F98",
    "unfit": "#56B4E9",
    "timeout": "#E69F00",
    "failed": "#0072B2",
}
FAMILY_SYMBOLS = {"revnet": "circle", "resnet": "square", "revgpt": "circle", "gpt": "square"}
RULE_SYMBOLS = {
    "midpoint": "cross",
    "leapfrog": "x",
    "momentum": "pentagon",
    "bdia": "hexagon",
    "scaled": "hourglass",
}
"""Symbols of the rules of coupling by name; the additive rule has none of its own."""
OTHER_RULE_SYMBOL = "bowtie"
INK = "#1f2328"
GRID = "rgba(128,128,128,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


FEWEST_TICKS = 3
"""Ticks that a log axis has between its smallest and its largest value, at least."""


class Look(TypedDict):
    """How a series is drawn."""

    color: str
    symbol: str
    dash: str


def precision_color(compute: str | None) -> str:
    """The color of a compute dtype, gray for one without."""
    return PRECISION_COLORS.get(compute or "", NEUTRAL)


def precision_look(row: Row) -> Look:
    """Return color, symbol and dash of a trial's arithmetic.

    The color tells the compute dtype; symbol and dash tell streams, exact coupling and tf32 apart. A rule of
    coupling other than the additive one has a symbol of its own,
    and a dash where none else says something.
    """
    compute, stream = row["compute_dtype"], row["stream_dtype"]
    symbol, dash = "circle", "solid"
    if stream not in (None, compute):
        symbol, dash = "diamond", "dash"
    if row["coupling"] == "exact":
        symbol, dash = ("star", "dot") if dash == "solid" else ("star-diamond", "dashdot")
    elif row["matmul"] == "tf32":
        symbol, dash = "triangle-up", "longdash"
    if rule := row.get("coupling_rule"):
        symbol = RULE_SYMBOLS.get(rule.partition("(")[0], OTHER_RULE_SYMBOL)
        dash = "10px,3px,2px,3px,2px,3px" if dash == "solid" else dash
    return {"color": precision_color(compute), "symbol": symbol, "dash": dash}


def family_symbol(family: str | None) -> str:
    """The symbol of a model family."""
    return FAMILY_SYMBOLS.get(family or "", "diamond")


def safe(text: object) -> str:
    """Text from a store, so that plotly's pseudo-HTML shows it as it is."""
    return html.escape(str(text), quote=False)


def base_layout(*, title: str, x: str, y: str, height: int = 440) -> go.Layout:
    """The layout every figure starts from; axis titles carry the units, as in ``depth / layers``."""
    return go.Layout(
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 16}},
        height=height,
        font={"family": FONT, "size": 12.5, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 20, "t": 56, "b": 56},
        xaxis=axis_style(x),
        yaxis=axis_style(y),
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "title": {"text": ""},
            "itemsizing": "constant",
        },
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12.5}},
        hovermode="closest",
        template="none",
    )


def log_ticks(values: Iterable[float]) -> dict[str, Any]:
    """Return the ticks of a log axis over positive values, at least `FEWEST_TICKS` of them between the ends.

    Powers of ten where those suffice, then 1, 2 and 5 of each decade, then more; over a narrower range, round
    numbers at equal steps.
    """
    positive = [v for v in values if v > 0]
    if not positive:
        return {}
    least, most = min(positive), max(positive)
    if most / least < 1.01:  # plotly gives a single value a decade on either side
        least, most = least / 10, most * 10
    low, high = math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
        if sum(least <= tick <= most for tick in ticks) >= FEWEST_TICKS:
            break
    else:
        scale = 10.0 ** math.floor(math.log10(most - least))
        steps_down = (scale * s for s in (1, 0.5, 0.2, 0.1))
        step = next(s for s in steps_down if math.floor(most / s) - math.ceil(least / s) + 1 >= FEWEST_TICKS)
        ends = math.floor(least / step), math.ceil(most / step) + 1
        ticks = [float(f"{n * step:.10g}") for n in range(*ends) if n > 0]
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}


def count_axis(highest: float) -> dict[str, Any]:
    """An axis of whole numbers from zero or one to `highest`, such as epochs, at most ten ticks."""
    step = max(1, math.ceil(highest / 10))
    power = 10 ** math.floor(math.log10(step))
    dtick = next(m * power for m in (1, 2, 5, 10) if m * power >= step)
    return {"tick0": 0, "dtick": dtick, "tickformat": ",d"}


def axis_style(title: str = "") -> dict[str, Any]:
    """The look of an axis; figures with more than one panel ask for further ones."""
    return {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": GRID,
        "automargin": True,
        "title": {"standoff": 12, "font": {"size": 13}, "text": title},
    }
