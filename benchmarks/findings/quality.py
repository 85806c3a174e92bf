"""What reversing computes: precision, accuracy, and the paper's claims."""

from __future__ import annotations

from analysis.claims.judge import counts, judge
from analysis.faithful import LIMIT_TEXT, is_faithful
from benchmarks.findings.rows import Rows, error_text
from benchmarks.results_file import table


def precision(rows: Rows) -> list[str]:
    """Which number formats are safe."""
    found = rows.sql(
        """SELECT * FROM (
           SELECT compute_dtype AS compute, stream_dtype AS stream, coupling, depth, count(*) AS n,
                  max(epochs) AS epochs, max(reconstruction_rel_error) AS rebuilt,
                  max(gradient_rel_error) AS gradient, max(gradient_angle_deg) AS angle
           FROM trials WHERE study = 'paper-numerics' AND outcome = 'ok' AND strategy = 'reverse'
             AND family = 'revnet' AND gradient_angle_deg IS NOT NULL
           GROUP BY ALL)
           ORDER BY list_position(['fp64', 'fp32', 'bf16'], compute),
                    list_position(['fp64', 'fp32', 'bf16'], stream), coupling, depth"""
    )
    if not found:
        return ["Not measured yet: `revstudy run paper-numerics`."]
    lines = [
        [
            r["compute"],
            r["stream"],
            r["coupling"],
            str(r["depth"]),
            error_text(r["rebuilt"]),
            error_text(r["gradient"]),
            error_text(r["angle"]),
            "yes" if is_faithful(r["gradient"]) else "no",
            str(r["n"]),
        ]
        for r in found
    ]
    safe: dict[str, list[bool]] = {}
    for r in found:
        name = f"{r['compute']} arithmetic on {r['stream']} streams, {r['coupling']} coupling"
        safe.setdefault(name, []).append(is_faithful(r["gradient"]))
    always = [name for name, ok in safe.items() if all(ok)]
    never = [name for name, ok in safe.items() if not all(ok)]
    said = (
        f"Safe means that the gradient of every parameter is within {LIMIT_TEXT} of the stored one. Safe at "
        f"every depth tried: {'; '.join(always) or 'none'}."
    )
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
        "the worst parameter's gradient with its angle, against the stored twin; the largest over the "
        "trials. Exact coupling rebuilds bit for bit, so its errors are 0 by construction. How errors "
        "grow further with depth is measured by `revstudy run precision`.",
        "",
        "![Error of gradients by depth and number format](findings/precision.png)",
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
        f"{scale['epochs']} epochs, {scale['seeds']} seeds) and on the digits of the other studies. That "
        "is far from the paper's schedule: it can show whether twins differ, and says nothing of the "
        f"accuracies of table 3. Parity with ResNets (claim 8) {found[8].verdict}: {found[8].figure}.",
        "",
        table(lines, ["difference", "mean", "95 % interval", "pairs", "verdict"]),
        "",
        "The images are a copy of CIFAR-10 that was compressed again as JPEG: absolute accuracies lie "
        "below those of the original, comparisons between networks hold.",
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
        "the same with intervals and hardware.",
        "",
        table(lines, ["", "claim", "verdict", "figure (or, not measured, what is expected)"]),
    ]
