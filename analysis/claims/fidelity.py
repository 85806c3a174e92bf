"""The claims on what reversing computes: inverse, gradients, drift, what is stored, statistics, workers."""

from __future__ import annotations

import math
import statistics

from analysis.claims.claim import Claim, Evidence, Missing, Row, evidence, select
from analysis.faithful import LIMIT_TEXT, PAPER_ANGLE_DEG, is_faithful
from analysis.store.store import Store
from analysis.strategies import REVERSE, STORE
from analysis.wording import error_text

INVERSE_LIMITS = {"fp64": 1e-12, "fp32": 1e-4}
"""Largest relative error of a rebuilt pair, by arithmetic."""
ANGLE_LIMITS_DEG = {"fp64": 1e-5, "fp32": PAPER_ANGLE_DEG}
"""Largest angle between the gradients of reversing and storing, by arithmetic."""
TWIN_LIMITS = {"fp64": 1e-6, "fp32": 1e-3}
"""Largest relative difference of the losses of two trials that should compute the same."""
STORED_FLOATS = {"revnet38": 89_088, "revnet110": 90_112, "revnet164": 262_144}
"""Numbers per image in the inputs of the stages and the last output, by the paper's code."""
HEAD_SLACK = 1.3
"""The table above leaves out the classifier's own activations, up to a quarter of it."""

_REBUILDS = f"""outcome = 'ok' AND strategy = '{REVERSE}' AND coupling = 'additive' AND coupling_rule IS NULL
    AND compute_dtype = stream_dtype AND anchor_every IS NULL AND coalesce(matmul, '') <> 'tf32'"""

_AT_INITIALIZATION = f"""
SELECT t.trial_id, any_value(t.device) AS device, any_value(t.compute_dtype) AS dtype,
       any_value(t.family) AS family, any_value(t.block) AS block, any_value(t.depth) AS depth,
       max(b.reconstruction_rel_error) AS error, max(b.gradient_angle_deg) AS angle,
       max(b.gradient_rel_error) AS gradient
FROM trials t JOIN blocks b USING (trial_id)
WHERE {_REBUILDS} AND b.epoch = 0 AND t.compute_dtype IN ('fp64', 'fp32', 'bf16')
GROUP BY t.trial_id"""

_PROBES = "RevNets that reverse in fp32 or fp64 and were probed at epoch 0"


def exact_inverse(store: Store) -> Evidence | Missing:
    """Claim 1."""
    rows = [r for r in select(store, _AT_INITIALIZATION) if _number(r["error"]) and r["family"] == "revnet"]
    judged = [r for r in rows if r["dtype"] in INVERSE_LIMITS]
    if not judged:
        return Missing(needs=_PROBES)
    holds = all(r["error"] <= INVERSE_LIMITS[r["dtype"]] for r in judged)
    return evidence(holds, "largest relative error: " + _worst(rows, "error"), *_of_best(judged, "error"))


def equal_gradients(store: Store) -> Evidence | Missing:
    """Claim 2."""
    rows = [r for r in select(store, _AT_INITIALIZATION) if _number(r["angle"]) and r["family"] == "revnet"]
    judged = [r for r in rows if r["dtype"] in ANGLE_LIMITS_DEG]
    if not judged:
        return Missing(needs=_PROBES)
    holds = all(r["angle"] < ANGLE_LIMITS_DEG[r["dtype"]] for r in judged)
    figure = f"largest angle in degrees: {_worst(rows, 'angle')}; {_faithful(judged)}"
    return evidence(holds, figure, *_of_best(judged, "angle"))


def any_residual(store: Store) -> Evidence | Missing:
    """Claim 15."""
    rows = [r for r in select(store, _AT_INITIALIZATION) if r["dtype"] in ANGLE_LIMITS_DEG]
    rows = [r for r in rows if _number(r["angle"])]
    designs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        designs.setdefault((row["family"], row["block"]), []).append(row)
    if len(designs) < 3:
        named = ", ".join(f"{family} {block}" for family, block in designs) or "none"
        return Missing(needs=f"probed trials of three designs of F and G (here: {named})")
    worst = {key: max(r["angle"] for r in group) for key, group in designs.items()}
    holds = all(r["angle"] < ANGLE_LIMITS_DEG[r["dtype"]] for r in rows)
    figure = "; ".join(f"{f} {b}: {error_text(worst[f, b])} degrees" for f, b in sorted(worst))
    return evidence(holds, f"largest angle by design: {figure}; {_faithful(rows)}", worst.values(), rows)


def drift(store: Store) -> Evidence | Missing:
    """Claim 11."""
    rows = select(
        store,
        f"""
SELECT trial_id, any_value(device) AS device, any_value(model) AS model, any_value(epochs) AS epochs,
       any_value(data) AS data, arg_min(angle, epoch) AS first, arg_max(angle, epoch) AS last,
       max(worst) AS worst
FROM (SELECT t.trial_id, t.device, t.model, t.data, t.epochs, b.epoch,
             median(b.gradient_angle_deg) AS angle, max(b.gradient_angle_deg) AS worst
      FROM trials t JOIN blocks b USING (trial_id)
      WHERE {_REBUILDS} AND t.family = 'revnet' AND t.compute_dtype = 'fp32'
        AND isfinite(b.gradient_angle_deg)
      GROUP BY ALL)
GROUP BY trial_id HAVING count(*) > 1""",
    )
    rows = [r for r in rows if r["first"] > 0]
    if not rows:
        return Missing(needs="fp32 trials that reverse, probed at two epochs or more")
    growth = [r["last"] / r["first"] for r in rows]
    worst = max(r["worst"] for r in rows)
    grows = statistics.median(growth) > 1
    figure = (
        f"the median block's angle {'grows' if grows else 'shrinks'}: the last probe has "
        f"{statistics.median(growth):.3g} times the first one's; no block exceeds {error_text(worst)} "
        f"degrees ({', '.join(sorted({r['model'] for r in rows}))} on "
        f"{', '.join(sorted({r['data'] for r in rows}))}, {max(r['epochs'] for r in rows)} epochs)"
    )
    return evidence(grows and worst < ANGLE_LIMITS_DEG["fp32"], figure, growth, rows)


def stored_tensors(store: Store) -> Evidence | Missing:
    """Claim 13."""
    table = ", ".join(f"('{model}', {floats})" for model, floats in STORED_FLOATS.items())
    rows = select(
        store,
        f"""
SELECT trial_id, device, model, batch_size, memory_saved_bytes / 4.0 / batch_size / e.floats AS share,
       memory_saved_bytes / 4.0 / batch_size AS floats
FROM trials t JOIN (VALUES {table}) e(model, floats) USING (model)
WHERE {_REBUILDS} AND compute_dtype = 'fp32' AND width = 1 AND depth = TRY_CAST(substr(model, 7) AS BIGINT)
  AND workers = 1 AND memory_saved_bytes > 0 AND batch_size >= 8 AND examples_train >= batch_size
  AND (data LIKE '%cifar%' OR data = 'synthetic' OR data LIKE 'synthetic:3x32x32x%')""",
    )
    if not rows:
        models = ", ".join(STORED_FLOATS)
        return Missing(needs=f"fp32 trials of {models} on 32 x 32 images with tracked activations")
    holds = max(r["share"] for r in rows) <= HEAD_SLACK
    floats = {r["model"]: r["floats"] for r in sorted(rows, key=lambda r: r["floats"])}
    figure = "numbers per image kept for the backward pass, at most: " + "; ".join(
        f"{m} {floats[m]:,.0f} against {STORED_FLOATS[m]:,} in stage inputs and the last output"
        for m in sorted(floats)
    )
    return evidence(holds, figure, [r["share"] for r in rows], rows)


_TWINS = """
SELECT a.trial_id, b.trial_id AS twin_id, a.device, a.compute_dtype AS dtype, a.model,
       abs(ea.{column} - eb.{column}) / greatest(abs(eb.{column}), 1e-30) AS gap
FROM trials a
JOIN trials b ON a.data = b.data AND a.model = b.model AND a.depth = b.depth AND a.width = b.width
  AND a.seed = b.seed AND a.batch_size = b.batch_size AND a.epochs = b.epochs AND a.optimizer = b.optimizer
  AND a.learning_rate = b.learning_rate AND a.weight_decay = b.weight_decay AND a.schedule = b.schedule
  AND a.compute_dtype = b.compute_dtype AND a.stream_dtype = b.stream_dtype AND a.coupling = b.coupling
  AND a.coupling_rule IS NOT DISTINCT FROM b.coupling_rule
  AND a.matmul = b.matmul AND a.examples_train = b.examples_train AND a.device = b.device
JOIN epochs ea ON ea.trial_id = a.trial_id AND ea.epoch = 1
JOIN epochs eb ON eb.trial_id = b.trial_id AND eb.epoch = 1
WHERE a.outcome = 'ok' AND b.outcome = 'ok' AND a.compute_dtype = a.stream_dtype
  AND a.coupling = 'additive' AND a.compute_dtype IN ({dtypes}) AND {condition}"""


def statistics_once(store: Store) -> Evidence | Missing:
    """Claim 14."""
    condition = f"""a.family = 'revnet' AND a.strategy = '{REVERSE}' AND a.anchor_every IS NULL
      AND b.strategy = '{STORE}' AND a.workers = b.workers"""
    rows = select(store, _TWINS.format(column="loss_val", dtypes="'fp64'", condition=condition))
    rows = [r for r in rows if _number(r["gap"])]
    if not rows:
        return Missing(needs="fp64 trials of a RevNet that reverse and store under equal settings and seed")
    gaps = [r["gap"] for r in rows]
    figure = (
        "validation losses after one epoch, which use the running statistics, differ from the stored twin's "
        f"by at most {error_text(max(gaps))} of their size in fp64"
    )
    return evidence(max(gaps) <= TWIN_LIMITS["fp64"], figure, gaps, rows)


def workers_agree(store: Store) -> Evidence | Missing:
    """Claim 18."""
    condition = f"a.workers > 1 AND b.workers = 1 AND a.strategy = b.strategy AND a.strategy = '{REVERSE}'"
    query = _TWINS.format(column="loss_train", dtypes="'fp64', 'fp32'", condition=condition)
    rows = [r for r in select(store, query + " AND a.family = 'revvit'") if _number(r["gap"])]
    if not rows:
        return Missing(
            needs="trials of a reversible network without batch norm (revvit) on one worker and on several, "
            "with equal settings and seed"
        )
    gaps = [r["gap"] for r in rows]
    figure = (
        "the mean training loss of the first epoch on several workers differs from one worker's by at most "
        f"{error_text(max(gaps))} of its size ({', '.join(sorted({r['model'] for r in rows}))})"
    )
    return evidence(all(r["gap"] <= TWIN_LIMITS[r["dtype"]] for r in rows), figure, gaps, rows)


def _faithful(rows: list[Row]) -> str:
    """How many trials have faithful gradients by the rule of the report, which is the stricter one."""
    judged = [r for r in rows if r["gradient"] is not None]
    kept = sum(is_faithful(r["gradient"]) for r in judged)
    return f"within {LIMIT_TEXT} of the stored gradients in {kept} of {len(judged)} trials"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _worst(rows: list[Row], column: str) -> str:
    """The largest value of each arithmetic; those without a limit show that the measure can fail."""
    parts = []
    for dtype in ("fp64", "fp32", "bf16"):
        group = [r for r in rows if r["dtype"] == dtype]
        if group:
            depth = max(r["depth"] for r in group)
            parts.append(
                f"{dtype} {error_text(max(r[column] for r in group))} (to depth {depth}, {len(group)} trials)"
            )
    return "; ".join(parts)


def _of_best(rows: list[Row], column: str) -> tuple[list[float], list[Row]]:
    """The values of fp32 where there are any, else of fp64: one figure does not mix arithmetics."""
    dtype = "fp32" if any(r["dtype"] == "fp32" for r in rows) else "fp64"
    return [r[column] for r in rows if r["dtype"] == dtype], rows


CLAIMS = (
    Claim(
        number=1,
        name="exact inverse",
        statement="A block's input can be computed from its output, exactly up to floating point.",
        source="Section 3, equations 6 to 8",
        metric="relative error of the worst rebuilt pair",
        expected="at most 1e-12 in fp64, 1e-4 in fp32",
        method="probes at initialization, the worst block of each trial; the interval is fp32's",
        study="paper-numerics",
        rule=exact_inverse,
    ),
    Claim(
        number=2,
        name="gradients of ordinary backpropagation",
        statement="Reversing computes the gradients that storing computes.",
        source="Section 3.2, algorithm 1; the test of the paper's code",
        metric="worst angle, degrees",
        expected="less than 1 degree in fp32, 1e-5 in fp64",
        method="probes at initialization against the stored twin, the worst parameter of each trial",
        study="paper-numerics",
        rule=equal_gradients,
    ),
    Claim(
        number=11,
        name="error grows in training and stays small",
        statement="The angle between gradients of rebuilt and stored activations grows and stays small.",
        source="Section 5.2, figure 4",
        metric="growth of the median block's angle, factor",
        expected="a factor above 1, and never 1 degree or more",
        method="fp32 trials, first probe against last; single blocks spike where a ReLU switches",
        study="paper-numerics",
        rule=drift,
    ),
    Claim(
        number=13,
        name="only stage inputs are stored",
        statement="Backpropagation keeps the inputs of the stages and the last output, at every depth.",
        source="Section 3.2; layer rules of the paper's code",
        metric="kept numbers over those of stage inputs and last output",
        expected=f"at most {HEAD_SLACK:g}, the classifier's activations included",
        method="activations alive at the end of the forward pass, per image, by the tracker",
        study="paper-memory",
        rule=stored_tensors,
    ),
    Claim(
        number=14,
        name="statistics move once a step",
        statement="Running statistics of batch norm move once a step although F and G run twice.",
        source="the paper's code",
        metric="relative difference of the validation loss",
        expected="at most 1e-6 in fp64",
        method="trials that reverse against their stored twins, after one epoch; a second update would show",
        study="paper-numerics",
        rule=statistics_once,
    ),
    Claim(
        number=15,
        name="any residual functions",
        statement="F and G may be any functions that keep the shape.",
        source="Section 3.1",
        metric="worst angle of a design, degrees",
        expected="less than 1 degree in fp32, 1e-5 in fp64, for three designs or more",
        method="as claim 2, by family and kind of block",
        study="paper-numerics",
        rule=any_residual,
    ),
    Claim(
        number=18,
        name="data parallelism",
        statement="Several workers compute the step that one worker computes on their batches together.",
        source="Section 4; the multi-tower test of the paper's code",
        metric="relative difference of the training loss",
        expected="at most 1e-6 in fp64, 1e-3 in fp32",
        method="pairs that differ in workers alone, mean loss of the first epoch, no batch norm",
        study="paper-numerics",
        rule=workers_agree,
    ),
)
