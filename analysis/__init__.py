"""Results store, SQL views, statistics, laws, figures and the report. Imports no torch, no ray, no `study`.

    import analysis
    analysis.open_store("results").sql("select * from trials")   # an Arrow table

What lives where, each importing from those before it alone (a test reads this from the source):

==================================  ===============================================================
`schema`, `errors`, `strategies`    the tables with their columns; what can go wrong; memory strategies
`store`                             the only reader of rows, and what merges files
`stats`, `pareto`                   means with intervals, pairs of comparable trials; fronts
`wording`, `theme`, `formats`       numbers in words; the look of figures; tables as text, JSON, LaTeX
`score`, `faithful`                 what a trial is judged by; when its gradients count as faithful
`laws`                              what is fitted to rows
`named_queries`, `queries`          questions worth a name, as SQL; answers to them and to any SQL
`answers`, `claims`                 sentences that answer a question; the paper's claims, judged
`figures`                           one file a figure: ``info(store)``, then ``figure(info)``
`report`                            the HTML file, the live page, images
==================================  ===============================================================

The names below are public; they are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.answers.compare import compare
    from analysis.answers.findings import findings
    from analysis.claims.judge import judge
    from analysis.figures.named import figure
    from analysis.queries import describe, run_query
    from analysis.report.page import write_report
    from analysis.store.compact import compact
    from analysis.store.store import open_store

_HOMES = {
    "compact": "store.compact",
    "compare": "answers.compare",
    "describe": "queries",
    "figure": "figures.named",
    "findings": "answers.findings",
    "judge": "claims.judge",
    "open_store": "store.store",
    "run_query": "queries",
    "write_report": "report.page",
}

__all__ = [
    "compact",
    "compare",
    "describe",
    "figure",
    "findings",
    "judge",
    "open_store",
    "run_query",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its home when it is first asked for: the schema must not cost a second."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
