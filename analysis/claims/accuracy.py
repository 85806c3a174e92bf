"""The claims on what is learned: parity with ResNets on CIFAR and ImageNet, convergence, and no harm done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from analysis.claims.claim import Claim, Evidence, Missing, evidence, select
from analysis.claims.pairs import IMAGENET_PAIRS, PAIRS
from analysis.stats import Row, estimate, group_by, sign_flip_p
from analysis.store.store import Store
from analysis.strategies import REVERSE, STORE
from analysis.wording import points_text

FULL_EPOCHS = {"cifar": 144, "imagenet": 108}
"""Nine tenths of the paper's epochs: what counts as its schedule."""
FULL_EXAMPLES = {"cifar": 40_000, "imagenet": 1_000_000}
TOLERANCE_POINTS = {"cifar10": 0.5, "cifar100": 1.0, "imagenet": 0.5}
"""By how much a RevNet's error may exceed its ResNet's, in points."""
SEEDS = 3
NO_HARM_POINTS = 0.5
PAIRS_TO_TELL = 6
"""The sign-flip test of fewer pairs cannot reach p = 0.05."""
SLOWER_POINTS = 2.0

_DATA = """CASE WHEN regexp_matches(a.data, 'cifar[-_]?100') THEN 'cifar100'
     WHEN regexp_matches(a.data, 'cifar') THEN 'cifar10'
     WHEN a.data LIKE '%imagenet%' THEN 'imagenet' ELSE a.data END"""


def _twins(pairs: Sequence[tuple[str, str]]) -> str:
    """RevNets (a) with the ResNets (b) they are compared with, of equal data, training and seed."""
    values = ", ".join(f"('{resnet}', '{revnet}')" for resnet, revnet in pairs)
    return f"""
SELECT a.trial_id, b.trial_id AS twin_id, a.device, {_DATA} AS data, a.model, b.model AS twin, a.seed,
       a.epochs, a.examples_train, a.width, 100 * (b.accuracy_test - a.accuracy_test) AS excess,
       100 * (1 - a.accuracy_test) AS error, 100 * (1 - b.accuracy_test) AS twin_error
FROM (VALUES {values}) p(resnet, revnet)
JOIN trials a ON a.model = p.revnet JOIN trials b ON b.model = p.resnet
 AND a.data = b.data AND a.examples_train = b.examples_train AND a.seed = b.seed AND a.width = b.width
 AND a.batch_size = b.batch_size AND a.epochs = b.epochs AND a.learning_rate = b.learning_rate
 AND a.weight_decay = b.weight_decay AND a.schedule = b.schedule AND a.optimizer = b.optimizer
 AND a.compute_dtype = b.compute_dtype AND a.workers = b.workers
WHERE a.outcome = 'ok' AND b.outcome = 'ok' AND a.strategy = '{REVERSE}' AND b.strategy = '{STORE}'
  AND a.anchor_every IS NULL AND a.compute_dtype = a.stream_dtype AND a.coupling = 'additive'
  AND a.coupling_rule IS NULL
  AND a.depth = TRY_CAST(substr(a.model, 7) AS BIGINT) AND b.depth = TRY_CAST(substr(b.model, 7) AS BIGINT)"""


def cifar_parity(store: Store) -> Evidence | Missing:
    """Claim 8."""
    return _parity(store, PAIRS, "cifar", ("cifar10", "cifar100"))


def imagenet_parity(store: Store) -> Evidence | Missing:
    """Claim 9."""
    return _parity(store, IMAGENET_PAIRS, "imagenet", ("imagenet",))


def _parity(
    store: Store, pairs: Sequence[tuple[str, str]], kind: str, data: Sequence[str]
) -> Evidence | Missing:
    rows = [r for r in select(store, _twins(pairs)) if r["data"] in data and r["excess"] is not None]
    full = [
        r
        for r in rows
        if r["epochs"] >= FULL_EPOCHS[kind] and r["examples_train"] >= FULL_EXAMPLES[kind] and r["width"] == 1
    ]
    groups = group_by(full, lambda r: (r["data"], r["twin"], r["model"]))
    judged = {key: group for key, group in groups.items() if len({r["seed"] for r in group}) >= SEEDS}
    if not judged:
        needs = (
            f"{' or '.join(data)} with the paper's schedule ({FULL_EPOCHS[kind]} epochs or more, all "
            f"images), {SEEDS} seeds of a pair"
        )
        return Missing(needs=needs, figure=_reduced(rows) if rows else "")
    figure = "RevNet's test error against ResNet's: " + "; ".join(
        f"{name} {twin}/{model} {statistics.fmean(r['twin_error'] for r in group):.2f} / "
        f"{statistics.fmean(r['error'] for r in group):.2f} %"
        for (name, twin, model), group in sorted(judged.items())
    )
    holds = all(
        statistics.fmean(r["excess"] for r in group) <= TOLERANCE_POINTS[key[0]]
        for key, group in judged.items()
    )
    used = [row for group in judged.values() for row in group]
    return evidence(holds, figure, [r["excess"] for r in used], used)


def _reduced(rows: list[Row]) -> str:
    """What trials of a smaller scale show, without a verdict."""
    gap = estimate(-r["excess"] / 100 for r in rows)
    if gap is None:
        return ""
    epochs = max(r["epochs"] for r in rows)
    return f"at a reduced scale (up to {epochs} epochs) RevNets differ by {points_text(gap)} in accuracy"


def convergence(store: Store) -> Evidence | Missing:
    """Claim 10."""
    rows = select(
        store,
        f"""
SELECT p.trial_id, p.twin_id, p.device, p.data, p.model, p.twin, p.epochs,
       100 * avg(ea.accuracy_train - eb.accuracy_train ORDER BY ea.epoch) AS gap, count(*) AS points
FROM ({_twins((*PAIRS, *IMAGENET_PAIRS))}) p
JOIN epochs ea ON ea.trial_id = p.trial_id JOIN epochs eb ON eb.trial_id = p.twin_id AND ea.epoch = eb.epoch
WHERE ea.accuracy_train IS NOT NULL AND eb.accuracy_train IS NOT NULL
GROUP BY ALL HAVING count(*) >= 3""",
    )
    if not rows:
        return Missing(needs="RevNets and their ResNets with equal training and seed, three epochs or more")
    gaps = [r["gap"] for r in rows]
    mean = statistics.fmean(gaps)
    figure = (
        f"over the epochs the training accuracy of RevNets is {mean:+.2f} points from that of ResNets "
        f"({_named(rows, 'model')} on {_named(rows, 'data')}, "
        f"{max(r['epochs'] for r in rows)} epochs)"
    )
    return evidence(mean >= -SLOWER_POINTS, figure, gaps, rows)


def no_harm(store: Store) -> Evidence | Missing:
    """Claim 12."""
    rows = select(
        store,
        f"""
SELECT a.trial_id, b.trial_id AS twin_id, a.device, {_DATA} AS data, a.model,
       100 * (a.accuracy_test - b.accuracy_test) AS gap
FROM trials a JOIN trials b
  ON a.data = b.data AND a.model = b.model AND a.depth = b.depth AND a.width = b.width AND a.seed = b.seed
 AND a.batch_size = b.batch_size AND a.epochs = b.epochs AND a.learning_rate = b.learning_rate
 AND a.weight_decay = b.weight_decay AND a.schedule = b.schedule AND a.optimizer = b.optimizer
 AND a.examples_train = b.examples_train AND a.compute_dtype = b.compute_dtype
 AND a.stream_dtype = b.stream_dtype AND a.matmul = b.matmul AND a.workers = b.workers
WHERE a.outcome = 'ok' AND b.outcome = 'ok' AND a.strategy = '{REVERSE}' AND b.strategy = '{STORE}'
  AND a.anchor_every IS NULL AND a.coupling = 'additive' AND b.coupling = 'additive'
  AND a.coupling_rule IS NULL AND b.coupling_rule IS NULL
  AND a.compute_dtype = 'fp32' AND a.stream_dtype = 'fp32'
  AND isfinite(a.accuracy_test) AND isfinite(b.accuracy_test)""",
    )
    gap = estimate(r["gap"] for r in rows)
    if gap is None or gap.n < PAIRS_TO_TELL:
        return Missing(
            needs=f"{PAIRS_TO_TELL} fp32 trials that reverse, with stored twins of equal seed; of fewer, no "
            "difference can be told from chance",
            figure="" if gap is None else f"{gap.n} pairs so far, {gap.mean:+.2f} points on average",
        )
    p = sign_flip_p(r["gap"] for r in rows)
    figure = (
        f"reversing changes test accuracy by {gap.mean:+.2f} points, p = {p:.2g} by sign flips "
        f"({_named(rows, 'model')} on {_named(rows, 'data')})"
    )
    holds = p >= 0.05 and abs(gap.mean) <= NO_HARM_POINTS
    return evidence(holds, figure, [r["gap"] for r in rows], rows)


def _named(rows: list[Row], column: str) -> str:
    return ", ".join(sorted({r[column] for r in rows}))


def partition(store: Store) -> Evidence | Missing:
    """Claim 16: networks that split other than by channels say so in their settings, as model.partition."""
    rows = select(
        store,
        """
SELECT * FROM (
    SELECT trial_id, device, data, model, depth, epochs, accuracy_test, CASE WHEN json_valid(config_json)
           THEN json_extract_string(config_json, '$.model.partition') END AS split
    FROM trials WHERE outcome = 'ok' AND isfinite(accuracy_test))
WHERE split IS NOT NULL""",
    )
    groups = group_by(rows, lambda r: (r["data"], r["model"], r["depth"], r["epochs"]))
    gaps, used = [], []
    for group in groups.values():
        means = {
            split: statistics.fmean(r["accuracy_test"] for r in members)
            for split, members in group_by(group, lambda r: r["split"]).items()
        }
        if "channels" in means and len(means) > 1:
            gaps.append(100 * (means["channels"] - max(v for k, v in means.items() if k != "channels")))
            used += group
    if not gaps:
        return Missing(needs="networks that split the streams in another way; the engine splits by channels")
    figure = f"splitting by channels is {statistics.fmean(gaps):+.2f} points from the best other way"
    return evidence(min(gaps) >= 0, figure, gaps, used)


CLAIMS = (
    Claim(
        number=8,
        name="parity on CIFAR",
        statement="RevNets reach the accuracy of ResNets of equal parameters on CIFAR-10 and CIFAR-100.",
        source="Section 5.1, table 3",
        metric="RevNet's test error minus ResNet's, points",
        expected="at most 0.5 (CIFAR-10) and 1.0 (CIFAR-100); the paper has 0.10, 0.02, -0.07 and -0.99, "
        "-1.04, 0.32",
        method=f"pairs of equal seed under the paper's schedule, {SEEDS} seeds or more; mean of each pair",
        study="paper-cifar",
        rule=cifar_parity,
    ),
    Claim(
        number=9,
        name="parity on ImageNet",
        statement="RevNet-104 reaches the accuracy of ResNet-101 on ImageNet.",
        source="Section 5.1, table 4",
        metric="RevNet's top-1 error minus ResNet's, points",
        expected="at most 0.5; the paper has 23.10 and 23.01 %",
        method=f"as claim 8: the paper's schedule, {SEEDS} seeds or more",
        study="paper-imagenet",
        rule=imagenet_parity,
    ),
    Claim(
        number=10,
        name="convergence by iteration",
        statement="RevNets converge as fast as ResNets, counted in iterations.",
        source="Section 5.1, figure 3",
        metric="mean difference of training accuracy over the epochs, points",
        expected=f"not below -{SLOWER_POINTS:g}",
        method="curves of pairs of equal training and seed, averaged over their epochs",
        study="paper-cifar --scale tiny",
        rule=convergence,
    ),
    Claim(
        number=12,
        name="rebuilding does not hurt accuracy",
        statement="Training with rebuilt activations ends where training with stored activations ends.",
        source="Section 5.2, figure 4",
        metric="test accuracy of reversing minus storing, points",
        expected=f"no difference beyond chance (p at least 0.05), and a mean within {NO_HARM_POINTS:g}",
        method="fp32 trials that reverse and their stored twins of equal seed",
        study="paper-cifar --scale tiny",
        rule=no_harm,
    ),
    Claim(
        number=16,
        name="splitting by channels is best",
        statement="Of the ways to split the units into two streams, splitting by channels works best.",
        source="Section 3.1",
        metric="test accuracy of splitting by channels minus the best other, points",
        expected="not below 0",
        method="networks of equal size and training that differ in the split",
        study="paper-cifar",
        rule=partition,
    ),
)
