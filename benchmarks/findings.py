"""Write docs/findings.md from the rows in benchmarks/results: no number of that page is typed by hand.

    python -m benchmarks.findings             # the page
    python -m benchmarks.findings --figures   # and its figures (needs the extra `export`, and Chrome)
    python -m benchmarks.findings --check     # exit code 1 if the page is not what the rows give

The rows are the Parquet files of the benchmarks, and a results store (``benchmarks/results/store``) with the trials
of the paper's studies, on which `revstudy report`, `query` and `claims` work as on any other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from analysis.claims import counts, judge
from analysis.store import Store, open_store
from benchmarks import findings_figures
from benchmarks.prediction import equal
from benchmarks.results_file import FOLDER, table
from benchmarks.speed import ratio

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "findings.md"
FIGURES = ROOT / "docs" / "findings"
STRATEGIES = ("store", "checkpoint", "recursive", "reverse")
SAFE_DEG = 1.0
"""Largest angle between gradients that the test of the paper's code allows."""

Row = dict[str, Any]


class Rows:
    """Everything that the page is written from."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.store: Store = open_store(folder / "store")

    def of(self, name: str) -> list[Row]:
        """The rows of one benchmark; none if it was not run."""
        file = self.folder / f"{name}.parquet"
        return pq.read_table(file).to_pylist() if file.exists() else []

    def sql(self, query: str) -> list[Row]:
        """The rows of one SELECT over the store."""
        return self.store.sql(query).to_pylist()


def megabytes(count: float) -> str:
    """Bytes in MB, three digits or more."""
    value = count / 1e6
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.3g} MB"


def by_depth(rows: Rows) -> dict[int, dict[str, int]]:
    """Activation bytes by depth and strategy of one design at one batch."""
    found: dict[int, dict[str, int]] = {}
    for r in rows.sql(
        """SELECT depth, strategy, memory_activation_bytes AS bytes FROM trials
           WHERE study = 'paper-memory' AND model = 'revnet110' AND batch_size = 16 AND width = 1
             AND outcome = 'ok' AND num_classes = 10 ORDER BY depth"""
    ):
        found.setdefault(r["depth"], {})[r["strategy"]] = r["bytes"]
    return found


def memory(rows: Rows) -> list[str]:
    """How much memory is saved at which depth."""
    depths = {d: s for d, s in by_depth(rows).items() if "store" in s}
    first, last = min(depths), max(depths)
    lines = [
        [str(d), *(megabytes(s[name]) for name in STRATEGIES), f"{s['store'] / s['reverse']:.1f}×"]
        for d, s in depths.items()
    ]
    per_layer = (depths[last]["store"] - depths[first]["store"]) / (last - first) / 16
    grown = depths[last]["reverse"] - depths[first]["reverse"]
    deepest = max(by_depth(rows))
    pairs = rows.sql(
        """SELECT model, depth, block, strategy, memory_activation_bytes AS bytes, parameters FROM trials
           WHERE study = 'paper-memory' AND batch_size = 100 AND outcome = 'ok' ORDER BY depth, model"""
    )
    size = {r["model"]: r["bytes"] for r in pairs}
    twins = (("resnet32", "revnet38"), ("resnet110", "revnet110"), ("resnet164", "revnet164"))
    twin_lines = [
        [f"{a} / {b}", megabytes(size[a]), megabytes(size[b]), f"{size[a] / size[b]:.1f}×"] for a, b in twins
    ]
    return [
        f"Storing grows with every layer: by {per_layer / 1e3:.1f} kB a layer and image here. Reversing "
        "grows by "
        f"{grown} bytes from depth {first} to {last}, and is as large at {deepest}. Checkpointing every "
        "unit grows "
        "too, at a lower slope; recursive checkpointing by a step each time that the depth doubles.",
        "",
        table(lines, ["depth", *STRATEGIES, "store / reverse"]),
        "",
        "RevNet of the design of revnet110 (width 1), 32 x 32 images, batch 16, fp32: peak of activations "
        "and "
        "temporaries of a training step. Parameters, gradients and optimizer state come on top and grow with "
        "depth under every strategy.",
        "",
        "The paper's pairs of equal parameters, at its batch of 100:",
        "",
        table(twin_lines, ["ResNet stored / RevNet reversed", "ResNet", "RevNet", "saved"]),
        "",
        "![Activation memory over depth](findings/memory.png)",
    ]


def prediction(rows: Rows) -> list[str]:
    """Whether the plan's figures can be trusted."""
    found = rows.of("prediction")
    right = sum(map(equal, found))
    models = len({r["model"] for r in found})
    trials = rows.sql(
        """SELECT count(*) AS n, count(*) FILTER (memory_peak_bytes = memory_predicted_bytes) AS equal
           FROM trials WHERE memory_peak_bytes > 0 AND memory_predicted_bytes > 0"""
    )[0]
    return [
        "`revstudy plan` gives the peak of a training step before anything is allocated. On a CPU it was "
        "equal to "
        f"the measured peak to the byte in {right} of {len(found)} cases ({models} presets under every "
        "strategy "
        f"they have), and in {trials['equal']} of {trials['n']} trials of the studies behind this page.",
    ]


def time(rows: Rows) -> list[str]:
    """What reversing costs in time."""
    lines = []
    found = rows.of("speed")
    for subject in dict.fromkeys(r["subject"] for r in found):
        mine = [r for r in found if r["subject"] == subject]
        rounds: dict[int, dict[str, float]] = {}
        for r in mine:
            rounds.setdefault(r["round"], {})[r["contender"]] = r["time_s"]
        times = list(rounds.values())
        for name in times[0]:
            if name == "reverse":
                continue
            middle, low, high = ratio(times, name)
            lines.append(
                [
                    f"{subject}, batch {mine[0]['batch']}",
                    name,
                    f"{middle:.2f} ({low:.2f} to {high:.2f})",
                    str(len(times)),
                ]
            )
    return [
        "An update costs one more forward pass. Step time of reversing as a share of each alternative's, "
        "steps "
        "taking turns in one process (median of the ratios within a round, 95 % bootstrap interval); above 1 "
        "reversing is slower, below 1 faster:",
        "",
        table(lines, ["network", "against", "time of reversing over it", "rounds"]),
        "",
        *_around(found),
        "",
        "![Step time of reversing over each alternative's](findings/time.png)",
    ]


def peers(rows: Rows) -> list[str]:
    """Activations beside the peers."""
    found = rows.of("memory")
    if not found:
        return []
    subjects = list(dict.fromkeys(r["subject"] for r in found))
    names = list(dict.fromkeys(r["contender"] for r in found))
    size = {(r["subject"], r["contender"]): r["activation_bytes"] for r in found}
    batch = {r["subject"]: r["batch"] for r in found}
    lines = [
        [f"{s}, batch {batch[s]}", *(megabytes(size[s, n]) if (s, n) in size else "" for n in names)]
        for s in subjects
    ]
    return ["", "Activations of the same networks and peers:", "", table(lines, ["network", *names])]


def precision(rows: Rows) -> list[str]:
    """Which number formats are safe."""
    found = rows.sql(
        """SELECT compute_dtype AS compute, stream_dtype AS stream, coupling, depth, count(*) AS n,
                  max(epochs) AS epochs, max(reconstruction_rel_error) AS rebuilt,
                  max(gradient_rel_error) AS gradient, max(gradient_angle_deg) AS angle
           FROM trials WHERE study = 'paper-numerics' AND outcome = 'ok' AND strategy = 'reverse'
             AND family = 'revnet' AND gradient_angle_deg IS NOT NULL
           GROUP BY ALL
           ORDER BY list_position(['fp64', 'fp32', 'bf16'], compute),
                    list_position(['fp64', 'fp32', 'bf16'], stream), coupling, depth"""
    )
    lines = [
        [
            r["compute"],
            r["stream"],
            r["coupling"],
            str(r["depth"]),
            _error(r["rebuilt"]),
            _error(r["gradient"]),
            _error(r["angle"]),
            "yes" if r["angle"] < SAFE_DEG else "no",
            str(r["n"]),
        ]
        for r in found
    ]
    safe: dict[str, list[bool]] = {}
    for r in found:
        name = f"{r['compute']} arithmetic on {r['stream']} streams, {r['coupling']} coupling"
        safe.setdefault(name, []).append(r["angle"] < SAFE_DEG)
    always = [name for name, ok in safe.items() if all(ok)]
    never = [name for name, ok in safe.items() if not all(ok)]
    said = f"Within {SAFE_DEG:g} degree of the stored gradients at every depth tried: {'; '.join(always)}."
    if never:
        said += f" Not: {'; '.join(never)}."
    return [
        said,
        "",
        table(
            lines,
            [
                "F and G",
                "streams",
                "coupling",
                "depth",
                "rebuilt",
                "gradient",
                "angle, deg",
                "safe",
                "trials",
            ],
        ),
        "",
        "After training on 512 digits (2 or 12 epochs): relative error of the worst rebuilt pair, and of "
        "the worst "
        "parameter's gradient with its angle, against the stored twin; the largest over the trials. Exact "
        "coupling "
        "rebuilds bit for bit, so its errors are 0 by construction. How errors grow further with depth is "
        "measured "
        "by `revstudy run precision`.",
        "",
        "![Error of gradients by depth and number format](findings/precision.png)",
    ]


def checkpointing(rows: Rows) -> list[str]:
    """When checkpointing is the better choice."""
    depths = {d: s for d, s in by_depth(rows).items() if "checkpoint" in s}
    first, last = min(depths), max(depths)
    speed = {}
    for r in rows.of("speed"):
        speed.setdefault(r["subject"], {}).setdefault(r["round"], {})[r["contender"]] = r["time_s"]
    ratios = {s: ratio(list(rounds.values()), "checkpoint") for s, rounds in speed.items()}
    times = ", ".join(f"{middle:.2f} on {s}" for s, (middle, _, _) in ratios.items())
    share = {d: s["checkpoint"] / s["reverse"] for d, s in depths.items()}
    again = {d: s["recursive"] / s["reverse"] for d, s in depths.items()}
    return [
        "Both run every unit's forward pass once more, so time hardly decides: a step of reversing takes "
        f"{times} "
        f"times a step of checkpointing every unit. Memory does: checkpoints take {share[first]:.2f} times "
        "the "
        f"activations of reversing at depth {first} and {share[last]:.1f} times at {last}; recursive ones "
        f"{again[first]:.2f} and {again[last]:.2f} times, at O(L log L) more forward work.",
        "",
        "Checkpointing is the better choice where",
        "",
        "- the network has no inverse: ResNets, or blocks that change their shape;",
        "- the number formats above are not safe for the depth and exact coupling is not wanted: a "
        "checkpoint "
        "recomputes from the stored input, so its gradients are those of storing;",
        "- the network is shallow, so that the gap in memory is small.",
    ]


def deeper(rows: Rows) -> list[str]:
    """How deep and how large a batch one goes in the same memory."""
    found = rows.of("largest")
    base = found[0]
    lines = [
        [
            r["model"],
            r["strategy"],
            f"{r['deepest']:,}" if r["deepest"] else "none",
            f"{r['deepest'] / base['deepest']:.1f}×" if r["deepest"] else "",
            f"{r['largest_batch_at_110']:,}" if r["largest_batch_at_110"] else "none",
        ]
        for r in found
    ]
    (step,) = [r for r in found if r["measured_bytes"]]
    return [
        f"In the {megabytes(base['budget_bytes'])} that a stored {base['model']} needs at batch "
        f"{base['batch']} "
        "(everything: parameters, gradients, momentum, activations), a reversible network of the same "
        "design "
        f"width goes {step['deepest'] / base['deepest']:.1f} times as deep. One training step of that "
        "network of "
        f"{step['deepest']:,} layers was run: {step['measured_bytes']:,} bytes measured, "
        f"{step['predicted_bytes']:,} predicted, of {base['budget_bytes']:,}; it took {step['step_s']:.0f} s "
        "on a machine that did other work too.",
        "",
        table(lines, ["network", "strategy", "deepest", "against the first", "largest batch at depth 110"]),
        "",
        *_around(found),
        "",
        "![Depth that fits the memory of a stored ResNet-110](findings/deeper.png)",
    ]


def accuracy(rows: Rows) -> list[str]:
    """Whether accuracy suffers."""
    found = {v.number: v for v in judge(rows.store)}
    scale = rows.sql(
        """SELECT any_value(data) AS data, max(examples_train) AS images, max(epochs) AS epochs,
                  count(DISTINCT seed) AS seeds, max(width) AS width
           FROM trials WHERE study LIKE 'paper-cifar%' AND outcome = 'ok'"""
    )[0]
    if not scale["images"]:
        return ["Not measured yet: `revstudy run paper-cifar --scale tiny`."]
    lines = []
    for number in (12, 10):
        v = found[number]
        interval = "" if v.low is None else f"{v.low:+.2f} to {v.high:+.2f}"
        lines.append([v.metric, "" if v.value is None else f"{v.value:+.2f}", interval, str(v.n), v.verdict])
    return [
        f"Twins of equal seed on {scale['images']:,} images of {scale['data']} (width {scale['width']:g}, "
        f"{scale['epochs']} epochs, {scale['seeds']} seeds) and on the digits of the other studies. That is "
        "far from "
        "the paper's schedule: it can show whether twins differ, and says nothing of the accuracies of "
        "table 3. "
        f"Parity with ResNets (claim 8) {found[8].verdict}: {found[8].figure}.",
        "",
        table(lines, ["difference", "mean", "95 % interval", "pairs", "verdict"]),
        "",
        "The images are a copy of CIFAR-10 that was compressed again as JPEG: absolute accuracies lie below "
        "those of "
        "the original, comparisons between networks hold.",
    ]


def claims(rows: Rows) -> list[str]:
    """The verdicts on the paper's claims."""
    verdicts = judge(rows.store)
    lines = [
        [str(v.number), v.name, v.verdict, v.figure.replace("|", "/") if v.n else v.expected]
        for v in verdicts
    ]
    sums = ", ".join(f"{n} {verdict}" for verdict, n in counts(verdicts).items())
    return [
        f"Of the {len(verdicts)} claims: {sums}. `revstudy claims --store benchmarks/results/store` prints "
        "the same "
        "with intervals and hardware.",
        "",
        table(lines, ["", "claim", "verdict", "figure (or, not measured, what is expected)"]),
    ]


def _error(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _around(rows: Sequence[Row]) -> list[str]:
    places = dict.fromkeys(
        f"{r['device']}, {r['cpu_threads']} threads, PyTorch {r['torch_version']}, {r['measured_at'][:10]}"
        for r in rows
    )
    return [f"*{'; '.join(places)}.*"]


PARTS: tuple[tuple[str, Callable[[Rows], list[str]]], ...] = (
    ("How much memory do I save at my depth?", memory),
    ("Can I trust the predicted memory?", prediction),
    ("What does it cost in time?", lambda rows: [*time(rows), *peers(rows)]),
    ("Which precision is safe?", precision),
    ("When is checkpointing the better choice?", checkpointing),
    ("How much deeper can I go in the same memory?", deeper),
    ("Does accuracy suffer?", accuracy),
    ("What of the paper holds?", claims),
)


def page(rows: Rows) -> str:
    """The whole page."""
    hardware = rows.sql("SELECT DISTINCT device, torch_version FROM trials ORDER BY ALL")
    where = "; ".join(f"{r['device']}, PyTorch {r['torch_version']}" for r in hardware)
    lines = [
        "# Findings",
        "",
        "One question of a user after the other, each answered from rows in `benchmarks/results/`. This "
        "page is "
        "written by `python -m benchmarks.findings`, and a test checks that it is what the rows give; the "
        "rows are "
        "what `make claims` and `make bench` measure.",
        "",
        f"Hardware of the studies: {where}, no GPU. Times depend on it; bytes and, but for rounding, errors "
        "do not.",
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
    text = page(rows)
    if chosen.check:
        same = PAGE.exists() and PAGE.read_text() == text
        print(f"{PAGE} is {'what the rows give' if same else 'out of date: python -m benchmarks.findings'}")
        return int(not same)
    PAGE.write_text(text)
    print(f"Page: {PAGE}")
    if chosen.figures:
        for path in findings_figures.draw(rows, by_depth(rows), FIGURES):
            print(f"Figure: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
