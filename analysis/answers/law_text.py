"""The law of a study in words and small tables, as `revstudy fit` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.laws.least_loss import Array
from analysis.laws.loss import NAMES, HeldOut
from analysis.laws.precision import PrecisionLaw
from analysis.laws.relation import Relation
from analysis.laws.stream import StreamLaw
from analysis.laws.study_law import StudyLaw

MOST = 8
"""Lines of one kind at most; the JSON has all."""
_MEANING = {
    "E": "what neither size nor data removes",
    "A": "of the size",
    "B": "of the data",
    "a": "exponent of the size",
    "b": "exponent of the data",
}


def law_text(found: StudyLaw, study: str | None) -> str:
    """Return the whole answer: the law, what it says of rungs that it has not seen, and what is doubtful."""
    points, law = found.points, found.law
    unit = points.unit
    lines = [
        f"L(N, D) = E + A/N^a + B/D^b{f' of {study}' if study else ''}: {len(points)} evaluations "
        f"({int(points.final.sum())} final) of {len(set(points.trial_ids))} trainings",
        "",
        *table(
            ["", "value", "90 % interval", ""],
            [
                [
                    name,
                    number(getattr(law, name)),
                    "{} to {}".format(*map(number, law.interval(name))),
                    _MEANING[name],
                ]
                for name in NAMES
            ],
        ),
        "",
        f"N {_range(points.parameters)} parameters, D {_range(points.data)} {unit}, "
        f"C {_range(points.compute)} operations ({found.per_pair:.3g} for each parameter and "
        f"{unit.removesuffix('s')}).",
    ]
    if found.early is not None:
        lines.append(
            f"Evaluations before the end of a schedule lie {100 * (found.early - 1):.1f} % above final ones."
        )
    lines += ["", *_held_out(found, unit), *_rungs(found.rungs)]
    lines += ["", "Best use of compute, by the law (the last line is ten times beyond the study):", ""]
    lines += table(
        ["operations", "parameters", unit, "loss", "90 % interval"],
        [
            [
                number(one.compute), number(one.parameters), number(one.data), f"{one.loss:.4f}",
                f"{one.low:.4f} to {one.high:.4f}",
            ]
            for one in found.frontier
        ],
    )  # fmt: skip
    lines += ["", *_along_axes(found, unit), *_isoflops(found)]
    lines += [*found.points.notes]
    if found.warnings:
        lines += ["", "Warnings:", *(f"  - {warning}" for warning in found.warnings)]
    return "\n".join(lines)


def relation_text(relations: Sequence[Relation], x: str, y: str) -> str:
    """Return what `revstudy fit --x --y` prints: a line for each group of trials."""
    lines = [f"{y} over {x}, trials that ended ok", ""]
    rows = []
    for one in relations:
        power = "too few trials" if one.power is None else f"{one.power:.3f}"
        interval = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
        ends = ""
        if one.bend is not None and one.bend.significant:
            ends = f"{one.bend.first:.2f} to {one.bend.last:.2f}"
        rows.append(
            [
                ", ".join(f"{name} {value}" for name, value in one.group.items()) or "all",
                str(one.trials), power, interval, ends, str(one.zeros or ""),
            ]
        )  # fmt: skip
    lines += table(["group", "trials", "power", "90 % interval", "power at the ends", "exactly 0"], rows)
    for one in relations:
        name = ", ".join(f"{n} {value}" for n, value in one.group.items()) or "all"
        if one.floor is not None:
            low, high = one.floor.interval("E")
            lines.append(
                f"{name}: {y} = E + A/{x}^p with E {number(one.floor.E)} ({number(low)} to {number(high)}), "
                f"A {number(one.floor.A)}, p {one.floor.p:.3f}"
            )
        if one.differ:
            lines.append(f"{name}: the trials also differ in {', '.join(one.differ)} (--by parts them).")
    return "\n".join(lines)


def precision_text(law: PrecisionLaw | None, why: str, streams: Sequence[StreamLaw]) -> str:
    """Return what `revstudy fit --precision` prints: effective size, then errors over bits and depth."""
    lines = []
    if law is None:
        lines.append(f"No law of effective size: {why}.")
    else:
        lines += [
            "N_eff = N · Π(1 − e^(−P/γ)) in L = E + A/N_eff^a + B/D^b, P in bits of the significand",
            "",
        ]
        rows = [
            [f"γ {name}", number(value), "{} to {}".format(*map(number, law.interval(name)))]
            for name, value in law.gammas.items()
        ]
        rows += [
            [name, number(getattr(law, name)), "{} to {}".format(*map(number, law.interval(name)))]
            for name in NAMES
        ]
        lines += table(["", "value", "90 % interval"], rows)
        for name in law.gammas:
            shares = (f"{bits} bits {100 * law.share(**{name: bits}):.2f} %" for bits in (24, 11, 8, 4))
            lines.append(f"Effective share of the parameters by {name}: {', '.join(shares)}.")
        lines += [f"  - {warning}" for warning in law.warnings]
    for one in streams:
        ends = {name: "{:.2f} to {:.2f}".format(*interval) for name, interval in one.intervals.items()}
        lines += [
            "",
            f"log2({one.column}) = {one.constant:.2f} - {one.per_bit:.3f} P + {one.per_doubling:.3f} "
            f"log2(depth), {one.trials} trials, spread {one.spread:.2f} bits",
            f"  a bit of the stream: {ends['per_bit']} (90 %); twice the depth: {ends['per_doubling']}",
        ]
        if one.exact:
            worst = "exactly 0" if one.exact_worst == 0 else f"at most {one.exact_worst:.2g}"
            lines.append(f"  exact streams: {worst} in all {one.exact} trials")
        if one.alone:
            lines.append("  streams and arithmetic have the same format in all trials: P stands for both")
    return "\n".join(lines)


def _held_out(found: StudyLaw, unit: str) -> list[str]:
    rung = found.held_out
    if rung is None:
        return ["The largest rung cannot be held out: without it, too few rows are left for a law."]
    lines = [f"The largest rung, {number(rung.parameters)} parameters, predicted from the others:", ""]
    shown = shares(rung.data, MOST)
    rows = []
    for i in shown:
        inside, interval = "", ""
        if rung.low is not None and rung.high is not None:
            interval = f"{rung.low[i]:.4f} to {rung.high[i]:.4f}"
            inside = "inside" if rung.low[i] <= rung.measured[i] <= rung.high[i] else "outside"
        error = f"{100 * (rung.predicted[i] / rung.measured[i] - 1):+.2f} %"
        values = [f"{rung.measured[i]:.4f}", f"{rung.predicted[i]:.4f}", error, interval, inside]
        rows.append([number(rung.data[i]), *values])
    counted = "" if rung.inside is None else f"; {rung.inside} of {len(rung.measured)} inside their intervals"
    return [
        *lines,
        *table([unit, "measured", "predicted", "error", "90 % interval", ""], rows),
        f"Mean error {100 * rung.error:+.2f} %{counted}.",
    ]


def _rungs(rungs: Sequence[HeldOut]) -> list[str]:
    if not rungs:
        return []
    rows = [[number(r.parameters), str(len(r.measured)), f"{100 * r.error:+.2f} %"] for r in rungs]
    return [
        "",
        "Each rung predicted from the others:",
        "",
        *table(["parameters", "rows", "mean error"], rows),
    ]


def _along_axes(found: StudyLaw, unit: str) -> list[str]:
    lines = []
    if found.over_compute is not None:
        law = found.over_compute
        low, high = law.interval("p")
        lines.append(
            f"Lowest loss over compute: {number(law.E)} + {number(law.A)}/C^{law.p:.3f} "
            f"(exponent {low:.3f} to {high:.3f}, {law.n} points)."
        )
    for one in (found.at_data[i] for i in shares(found.at_data, MOST)):
        low, high = one.law.interval("p")
        lines.append(
            f"Loss over size at {number(one.data)} {unit}: {number(one.law.E)} + "
            f"{number(one.law.A)}/N^{one.law.p:.3f} (exponent {low:.3f} to {high:.3f}, {one.sizes} sizes)."
        )
    return lines


def _isoflops(found: StudyLaw) -> list[str]:
    lines = []
    curves = [curve for curve in found.curves if curve.best is not None and curve.inside]
    for curve in (curves[i] for i in shares(curves, MOST)):
        bias = (
            "" if curve.bias is None else f"; without noise a parabola is off by a factor of {curve.bias:.2f}"
        )
        lines.append(
            f"IsoFLOP {number(curve.compute)}: vertex at {number(curve.best or 0.0)} parameters "
            f"({len(curve.parameters)} sizes{bias})."
        )
    return lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table, the first column to the left and all others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return [f"  {line}".rstrip() for line in padded]


def shares(items: Sequence[object] | Array, most: int) -> list[int]:
    """At most so many positions, evenly spread over a list, both ends among them."""
    last = len(items) - 1
    return sorted({round(i * last / max(1, most - 1)) for i in range(most)}) if last >= 0 else []


def number(value: float) -> str:
    """A number of any size to three or four digits: 1.69, 0.34, 1.23e+06."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:.3g}"


def _range(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{number(min(listed))} to {number(max(listed))}"
