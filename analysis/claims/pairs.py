"""The claims on the paper's pairs of networks: equal parameters, and an order of magnitude less memory."""

from __future__ import annotations

import statistics

from analysis.claims.claim import Claim, Evidence, Missing, evidence, select
from analysis.store.store import Store
from analysis.strategies import REVERSE, STORE

ORDER_OF_MAGNITUDE = 10.0
PAIRS = (("resnet32", "revnet38"), ("resnet110", "revnet110"), ("resnet164", "revnet164"))
IMAGENET_PAIRS = (("resnet101", "revnet104"),)
PARAMETERS = {
    ("resnet32", 10): 464_154, ("revnet38", 10): 464_890, ("resnet110", 10): 1_727_962,
    ("revnet110", 10): 1_729_194, ("resnet164", 10): 1_703_258, ("revnet164", 10): 1_748_778,
    ("resnet32", 100): 470_004, ("revnet38", 100): 475_060, ("resnet110", 100): 1_733_812,
    ("revnet110", 100): 1_740_804, ("resnet164", 100): 1_726_388, ("revnet164", 100): 1_794_948,
}  # fmt: skip
"""Trainable parameters by (model, classes), counted from the layer rules of the paper's code."""
MILLIONS = {"resnet50": 25.55, "resnet101": 44.54, "resnet152": 60.19, "revnet56": 27.55, "revnet104": 45.43}
"""The same of the ImageNet networks with 1,000 classes, in millions."""
PARAMETER_GAP = 0.05


def saving(store: Store) -> Evidence | Missing:
    """Claim 4."""
    rows = select(store, _pairs_query(f"a.strategy = '{REVERSE}' AND b.strategy = '{STORE}'"))
    rows = [r for r in rows if r["bytes"] > 0 and r["twin_bytes"] > 0]
    deep = [r for r in rows if r["model"] != "revnet38"]
    if not deep:
        return Missing(
            needs="resnet110 or resnet164 that store and their RevNets that reverse, of equal batch and "
            "data, on images of 32 x 32"
        )
    factors: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        factors.setdefault((row["twin"], row["model"]), []).append(row["twin_bytes"] / row["bytes"])
    figure = "activations of storing over reversing: " + "; ".join(
        f"{twin}/{model} {statistics.median(values):.3g}×"
        for (twin, model), values in sorted(factors.items())
    )
    values = [r["twin_bytes"] / r["bytes"] for r in deep]
    return evidence(statistics.median(values) >= ORDER_OF_MAGNITUDE, figure, values, deep)


def equal_parameters(store: Store) -> Evidence | Missing:
    """Claim 7."""
    rows = select(
        store,
        """
SELECT trial_id, device, model, num_classes AS classes, parameters
FROM trials
WHERE width = 1 AND parameters > 0
  AND depth = TRY_CAST(regexp_extract(model, '[0-9]+$') AS BIGINT)
  AND (data LIKE '%cifar%' OR data LIKE '%imagenet%' OR data = 'synthetic' OR data LIKE 'synthetic:3x%')
  AND regexp_matches(model, '^(resnet|revnet)[0-9]+$')""",
    )
    seen = {(r["model"], r["classes"]): r["parameters"] for r in rows}
    right = []
    for (model, classes), parameters in seen.items():
        if (model, classes) in PARAMETERS:
            right.append(parameters == PARAMETERS[model, classes])
        elif model in MILLIONS and classes == 1000:
            right.append(round(parameters / 1e6, 2) == MILLIONS[model])
    gaps = {
        (resnet, revnet, classes): abs(seen[revnet, classes] / seen[resnet, classes] - 1)
        for resnet, revnet in (*PAIRS, *IMAGENET_PAIRS)
        for classes in (10, 100, 1000)
        if (resnet, classes) in seen and (revnet, classes) in seen
    }
    if not gaps:
        return Missing(needs="a RevNet of the paper and its ResNet at width 1, on color images")
    (resnet, revnet, _), gap = max(gaps.items(), key=lambda item: item[1])
    figure = (
        f"{sum(right)} of {len(right)} counts are the paper's code's; the pairs differ by at most "
        f"{100 * gap:.2g} % ({resnet} and {revnet})"
    )
    holds = all(right) and gap <= PARAMETER_GAP
    return evidence(holds, figure, [100 * g for g in gaps.values()], rows)


def _pairs_query(condition: str) -> str:
    """RevNets of the paper (a) with their ResNets (b), of equal data, batch and arithmetic."""
    pairs = ", ".join(f"('{resnet}', '{revnet}')" for resnet, revnet in PAIRS)
    return f"""
SELECT a.trial_id, b.trial_id AS twin_id, a.device, a.model, b.model AS twin,
       a.memory_activation_bytes AS bytes, b.memory_activation_bytes AS twin_bytes
FROM (VALUES {pairs}) p(resnet, revnet)
JOIN trials a ON a.model = p.revnet JOIN trials b ON b.model = p.resnet
 AND a.data = b.data AND a.batch_size = b.batch_size AND a.width = b.width AND a.seed = b.seed
 AND a.compute_dtype = b.compute_dtype AND a.memory_source = b.memory_source AND a.workers = b.workers
WHERE a.outcome = 'ok' AND b.outcome = 'ok' AND a.width = 1 AND a.anchor_every IS NULL AND {condition}
  AND a.depth = TRY_CAST(substr(a.model, 7) AS BIGINT) AND b.depth = TRY_CAST(substr(b.model, 7) AS BIGINT)
  AND a.compute_dtype = 'fp32' AND a.stream_dtype = 'fp32' AND a.batch_size >= 16
  AND (a.data LIKE '%cifar%' OR a.data = 'synthetic' OR a.data LIKE 'synthetic:3x32x32x%')"""


CLAIMS = (
    Claim(
        number=4,
        name="an order of magnitude less memory",
        statement="A RevNet takes at least ten times less activation memory than its ResNet.",
        source="Abstract; section 5.1",
        metric="ResNet's activation bytes over RevNet's",
        expected=f"at least {ORDER_OF_MAGNITUDE:g} for 110 and 164 layers; MemCNN 2.8, 9.5 and 5.7",
        method="median over the paper's pairs of 110 and 164 layers, of equal batch and data",
        study="paper-memory",
        rule=saving,
    ),
    Claim(
        number=7,
        name="equal parameters",
        statement="A RevNet has as many parameters as the ResNet it is compared with.",
        source="Table 2 (architectures)",
        metric="difference of a pair's parameters, %",
        expected=f"the paper's code's counts exactly, pairs within {100 * PARAMETER_GAP:g} %",
        method="trainable parameters in the rows of the presets at width 1",
        study="paper-memory",
        rule=equal_parameters,
    ),
)
