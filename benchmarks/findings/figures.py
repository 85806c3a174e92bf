"""The figures of docs/findings.md, in the look of the report."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from analysis.strategies import strategy_color
from analysis.theme import INK, PRECISION_COLORS
from benchmarks.findings.rows import STRATEGIES, Rows, by_depth, rounds_by_subject
from benchmarks.speed import ratio

WIDTH, HEIGHT = 760, 380


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Write every figure as PNG; needs kaleido and Chrome or Chromium."""
    import kaleido

    figures = {
        "memory": _memory(by_depth(rows)),
        "time": _time(rows),
        "precision": _precision(rows),
        "deeper": _deeper(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    options = {"format": "png", "width": WIDTH, "height": HEIGHT, "scale": 1.5}
    kaleido.write_fig_from_object_sync(
        [{"fig": f, "path": p, "opts": options} for f, p in zip(figures.values(), paths, strict=True)],
        cancel_on_error=True,
    )
    return paths


def _blank(title: str, x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        template="plotly_white",
        font={"color": INK, "size": 12},
        margin={"l": 70, "r": 20, "t": 50, "b": 50},
        xaxis={"title": x},
        yaxis={"title": y},
    )
    return figure


def _memory(depths: dict[int, dict[str, int]]) -> go.Figure:
    figure = _blank("Activation memory of a training step", "depth / layers", "MB")
    for name in STRATEGIES:
        points = [(d, s[name] / 1e6) for d, s in sorted(depths.items()) if name in s]
        figure.add_scatter(
            x=[d for d, _ in points],
            y=[m for _, m in points],
            name=name,
            mode="lines+markers",
            line={"color": strategy_color(name)},
        )
    figure.update_xaxes(type="log", tickvals=sorted(depths))
    figure.update_yaxes(type="log", tickvals=[10, 20, 50, 100, 200, 500])
    return figure


def _time(rows: Rows) -> go.Figure:
    figure = _blank("Step time of reversing over each alternative's", "", "ratio, 95 % interval")
    for subject, times in rounds_by_subject(rows).items():
        names = [n for n in times[0] if n != "reverse"]
        ratios = [ratio(times, n) for n in names]
        figure.add_bar(
            x=names,
            y=[m for m, _, _ in ratios],
            name=subject,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [h - m for m, _, h in ratios],
                "arrayminus": [m - low for m, low, _ in ratios],
            },
        )
    figure.update_layout(barmode="group", colorway=["#0072B2", "#E69F00", "#009E73", "#CC79A7"])
    figure.add_hline(y=1, line={"dash": "dot", "color": INK})
    return figure


def _precision(rows: Rows) -> go.Figure:
    figure = _blank(
        "Worst gradient of rebuilt activations", "depth / layers", "relative error against storing"
    )
    found = rows.sql(
        """SELECT compute_dtype AS compute, stream_dtype AS stream, depth, max(gradient_rel_error) AS error
           FROM trials WHERE study = 'paper-numerics' AND outcome = 'ok' AND strategy = 'reverse'
             AND family = 'revnet' AND coupling = 'additive' AND gradient_rel_error > 0
           GROUP BY ALL ORDER BY depth"""
    )
    for compute, stream in dict.fromkeys((r["compute"], r["stream"]) for r in found):
        points = [(r["depth"], r["error"]) for r in found if (r["compute"], r["stream"]) == (compute, stream)]
        figure.add_scatter(
            x=[d for d, _ in points],
            y=[e for _, e in points],
            mode="lines+markers",
            name=f"{compute} on {stream}",
            line={"color": PRECISION_COLORS.get(compute), "dash": "solid" if compute == stream else "dot"},
        )
    figure.update_yaxes(type="log", exponentformat="power")
    return figure


def _deeper(rows: Rows) -> go.Figure:
    found = rows.of("largest")
    figure = _blank("Layers that fit the memory of a stored ResNet-110, batch 128", "", "layers")
    figure.add_bar(
        x=[f"{r['model']}, {r['strategy']}" for r in found],
        y=[r["deepest"] or 0 for r in found],
        marker={"color": [strategy_color(r["strategy"]) for r in found]},
        text=[f"{r['deepest'] or 0:,}" for r in found],
        textposition="outside",
        cliponaxis=False,
    )
    return figure
