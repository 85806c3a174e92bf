"""The README's section of findings: a few numbers of docs/findings.md, from the same rows."""

from __future__ import annotations

import textwrap

from analysis.claims.judge import counts, judge
from benchmarks.findings.rows import Rows, by_depth, error_text, megabytes, rounds_by_subject
from benchmarks.speed import ratio

BEGIN, END = "<!-- findings: written by python -m benchmarks.findings -->", "<!-- end of findings -->"


def placed(text: str, rows: Rows) -> str:
    """`text` with what stands between the two marks written anew.

    Returns:
        The whole text with the new section between the marks.

    Raises:
        ValueError: a mark is missing.

    """
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md must have the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{section(rows)}{END}{after}"


def section(rows: Rows) -> str:
    """Bullets of the section, wrapped."""
    bullets = [_memory(rows), _deeper(rows), _time(rows), *_precision(rows), *_accuracy(rows), _claims(rows)]
    wrapped = [
        textwrap.fill(f"- {b}", 110, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for b in bullets
    ]
    return "\n".join(wrapped) + "\n"


def _memory(rows: Rows) -> str:
    size = {
        r["model"]: r["bytes"]
        for r in rows.sql(
            """SELECT model, memory_activation_bytes AS bytes FROM trials
               WHERE study = 'paper-memory' AND batch_size = 100 AND outcome = 'ok'"""
        )
    }
    depths = {d: s["reverse"] for d, s in by_depth(rows).items() if "reverse" in s}
    return (
        f"**Memory.** RevNet-110 trains in {size['resnet110'] / size['revnet110']:.1f} times less "
        f"activation memory than ResNet-110 of equal parameters ({megabytes(size['revnet110'])} against "
        f"{megabytes(size['resnet110'])}, batch 100, fp32), RevNet-164 in "
        f"{size['resnet164'] / size['revnet164']:.1f} times less. From depth {min(depths)} to "
        f"{max(depths)} activations grow by {depths[max(depths)] - depths[min(depths)]} bytes."
    )


def _deeper(rows: Rows) -> str:
    found = rows.of("largest")
    (step,) = [r for r in found if r["measured_bytes"]]
    return (
        f"**Depth.** In the {megabytes(step['budget_bytes'])} that a stored ResNet-110 takes at batch "
        f"{step['batch']}, a reversible network of the same design width has {step['deepest']:,} layers, "
        f"{step['deepest'] / found[0]['deepest']:.1f} times as many."
    )


def _time(rows: Rows) -> str:
    (name, times), *_ = rounds_by_subject(rows).items()
    said = []
    for other in ("store", "checkpoint", "memcnn", "revtorch"):
        if other in times[0]:
            middle, low, high = ratio(times, other)
            said.append(f"{middle:.2f} of {other}'s ({low:.2f} to {high:.2f})")
    return (
        f"**Time.** On {name} a step of reversing takes {', '.join(said)}: medians over {len(times)} "
        "rounds of interleaved steps with 95 % intervals."
    )


def _precision(rows: Rows) -> list[str]:
    found = rows.sql(
        """SELECT max(gradient_rel_error) AS error, max(gradient_angle_deg) AS angle, max(depth) AS depth,
                  count(*) AS n
           FROM trials WHERE study = 'paper-numerics' AND outcome = 'ok' AND strategy = 'reverse'
             AND family = 'revnet' AND compute_dtype = 'fp32' AND stream_dtype = 'fp32'
             AND coupling = 'additive' AND gradient_angle_deg IS NOT NULL"""
    )[0]
    if not found["n"]:
        return []
    return [
        "**Precision.** After training in float32 the worst gradient of any block is off by "
        f"{error_text(found['error'])} of its size and {error_text(found['angle'])} degrees, to depth "
        f"{found['depth']} ({found['n']} trials)."
    ]


def _accuracy(rows: Rows) -> list[str]:
    (v,) = [v for v in judge(rows.store) if v.number == 12]
    if v.value is None or v.low is None:
        return []
    return [
        f"**Accuracy.** Reversing changes test accuracy by {v.value:+.2f} points against storing (95 % "
        f"interval {v.low:+.2f} to {v.high:+.2f}, {v.n} pairs of equal seed, a small scale)."
    ]


def _claims(rows: Rows) -> str:
    sums = ", ".join(f"{n} {verdict}" for verdict, n in counts(judge(rows.store)).items())
    return f"**The paper's {len(judge(rows.store))} claims**, from the rows of this machine: {sums}."
