"""Writes the report's figures as PNG, SVG or PDF through kaleido, which draws them in a Chrome of its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import plotly.graph_objects as go

from analysis.errors import AnalysisError
from analysis.figures import FIGURES
from analysis.store.store import Store

FORMATS = ("png", "svg", "pdf")
_TITLE_HEIGHT = 40


def export_figures(
    store: Store,
    folder: str | Path,
    *,
    format: str = "png",
    names: Sequence[str] = (),
    width: int = 900,
    scale: float = 2,
) -> list[Path]:
    """Draws the figures that have something to show, one file each.

    Args:
        store: an open store.
        folder: where to write ``NAME.FORMAT``; it is made where it does not exist.
        format: png, svg or pdf.
        names: figures to draw; all by default.
        width: in pixels; the height is the figure's own, and a line for the title.
        scale: pixels of a PNG per pixel of width.

    Returns:
        The files written, in the report's order.

    Raises:
        AnalysisError: an unknown format or figure, kaleido or Chrome is missing, or a file cannot be written.

    """
    _known(format, FORMATS, "format")
    for name in names:
        _known(name, FIGURES, "figure")
    drawn: dict[str, go.Figure] = {}
    for name, module in FIGURES.items():
        figure = module.figure(module.info(store)) if not names or name in names else None
        if figure is not None:
            drawn[name] = figure
    try:
        import kaleido
    except ImportError:
        raise AnalysisError(
            "images of figures need kaleido: pip install 'revstudy[export]'. The report saves any figure as "
            "SVG without it: the camera above the figure"
        ) from None
    for figure in drawn.values():
        _for_paper(figure, width)
    target = Path(folder)
    paths = [target / f"{name}.{format}" for name in drawn]
    try:
        target.mkdir(parents=True, exist_ok=True)
        kaleido.write_fig_from_object_sync(
            [
                {
                    "fig": figure,
                    "path": path,
                    "opts": {
                        "format": format,
                        "width": width,
                        "height": figure.layout.height,
                        "scale": scale,
                    },
                }
                for figure, path in zip(drawn.values(), paths, strict=True)
            ],
            cancel_on_error=True,
        )
    except OSError as error:
        raise AnalysisError(f"cannot write to {str(target)!r}: {error.strerror or error}") from None
    except Exception as error:
        if "chrome" in f"{type(error).__name__} {error}".lower() or "browser" in type(error).__name__.lower():
            raise AnalysisError(
                "images of figures need Chrome or Chromium, and none was found or it did not start: install "
                "it, or name its program in the variable BROWSER_PATH. The report saves any figure as SVG "
                "without it: the camera above the figure"
            ) from None
        raise
    return paths


def _for_paper(figure: go.Figure, width: int) -> None:
    """White ground, and a line of its own for the title, which the page writes above the figure."""
    figure.update_layout(
        paper_bgcolor="white",
        width=width,
        height=figure.layout.height + _TITLE_HEIGHT,
        margin={"t": (figure.layout.margin.t or 0) + _TITLE_HEIGHT},
        title={"yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 14}},
    )


def _known(word: str, allowed: Iterable[str], what: str) -> None:
    choices = list(allowed)
    if word not in choices:
        near = difflib.get_close_matches(word, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AnalysisError(f"no {what} {word!r}: choose {', '.join(choices)}{hint}")
