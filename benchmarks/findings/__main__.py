"""Write docs/findings.md, and the README's section of findings, from the rows in benchmarks/results.

    python -m benchmarks.findings             # the texts
    python -m benchmarks.findings --figures   # and its figures (needs the extra `export`, and Chrome)
    python -m benchmarks.findings --check     # exit code 1 if the texts are not what the rows give

The rows are the Parquet files of the benchmarks, and a results store (``benchmarks/results/store``) with the
trials of the paper's studies, on which `revstudy report`, `query` and `claims` work as on any other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.findings import cost, figures, front, quality, summary
from benchmarks.findings.rows import Rows

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "findings.md"
FIGURES = ROOT / "docs" / "findings"
README = ROOT / "README.md"

PARTS: tuple[tuple[str, Callable[[Rows], list[str]]], ...] = (
    ("How much memory do I save at my depth?", cost.memory),
    ("Can I trust the predicted memory?", cost.prediction),
    ("What does it cost in time?", lambda rows: [*cost.time(rows), *cost.peers(rows)]),
    ("Which precision is safe?", quality.precision),
    ("Which ways of saving memory are worth using?", front.front),
    ("When is checkpointing the better choice?", cost.checkpointing),
    ("When is the compiler the better choice?", cost.compiling),
    ("How much deeper can I go in the same memory?", cost.deeper),
    ("Does accuracy suffer?", quality.accuracy),
    ("What of the paper holds?", quality.claims),
)


def page(rows: Rows) -> str:
    """The whole page."""
    hardware = rows.sql("SELECT DISTINCT device, torch_version FROM trials ORDER BY ALL")
    where = "; ".join(f"{r['device']}, PyTorch {r['torch_version']}" for r in hardware)
    lines = [
        "# Findings",
        "",
        "One question of a user after the other, each answered from rows in `benchmarks/results/`. This "
        "page is written by `python -m benchmarks.findings`, and a test checks that it is what the rows "
        "give; the rows are what `make claims` and `make bench` measure.",
        "",
        f"Hardware of the studies: {where}, no GPU. Times depend on it; bytes and, but for rounding, "
        "errors do not.",
    ]
    for title, part in PARTS:
        lines += ["", f"## {title}", "", *part(rows)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", action="store_true", help="draw the figures too")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if it would change")
    chosen = parser.parse_args(arguments)
    rows = Rows()
    texts = {PAGE: page(rows), README: summary.placed(README.read_text(), rows)}
    if chosen.check:
        stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
        for path in stale:
            print(f"{path} is out of date: python -m benchmarks.findings")
        return int(bool(stale))
    for path, text in texts.items():
        path.write_text(text)
        print(f"Text: {path}")
    if chosen.figures:
        for path in figures.draw(rows, FIGURES):
            print(f"Figure: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
