"""What reversing saves and costs: memory, time, and what the memory buys."""

from __future__ import annotations

from benchmarks.findings.rows import STRATEGIES, Rows, around, by_depth, megabytes, rounds_by_subject
from benchmarks.prediction import equal
from benchmarks.results_file import table
from benchmarks.speed import ratio


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
        f"grows by {grown} bytes from depth {first} to {last}, and is as large at {deepest}. Checkpointing "
        "every unit grows too, at a lower slope; recursive checkpointing by a step each time that the "
        "depth doubles.",
        "",
        table(lines, ["depth", *STRATEGIES, "store / reverse"]),
        "",
        "RevNet of the design of revnet110 (width 1), 32 x 32 images, batch 16, fp32: peak of activations "
        "and temporaries of a training step. Parameters, gradients and optimizer state come on top and "
        "grow with depth under every strategy.",
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
    if not found:
        return ["Not measured yet: `python benchmarks/prediction.py`."]
    right = sum(map(equal, found))
    models = len({r["model"] for r in found})
    trials = rows.sql(
        """SELECT count(*) AS n, count(*) FILTER (memory_peak_bytes = memory_predicted_bytes) AS equal
           FROM trials WHERE memory_peak_bytes > 0 AND memory_predicted_bytes > 0"""
    )[0]
    return [
        "`revstudy plan` gives the peak of a training step before anything is allocated. On a CPU it was "
        f"equal to the measured peak to the byte in {right} of {len(found)} cases ({models} presets under "
        f"every strategy they have), and in {trials['equal']} of {trials['n']} trials of the studies "
        "behind this page.",
    ]


def time(rows: Rows) -> list[str]:
    """What reversing costs in time."""
    lines = []
    found = rows.of("speed")
    batch = {r["subject"]: r["batch"] for r in found}
    for subject, times in rounds_by_subject(rows).items():
        for name in times[0]:
            if name == "reverse":
                continue
            middle, low, high = ratio(times, name)
            lines.append(
                [
                    f"{subject}, batch {batch[subject]}",
                    name,
                    f"{middle:.2f} ({low:.2f} to {high:.2f})",
                    str(len(times)),
                ]
            )
    return [
        "An update costs one more forward pass. Step time of reversing as a share of each alternative's, "
        "steps taking turns in one process (median of the ratios within a round, 95 % bootstrap "
        "interval); above 1 reversing is slower, below 1 faster:",
        "",
        table(lines, ["network", "against", "time of reversing over it", "rounds"]),
        "",
        *around(found),
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


def checkpointing(rows: Rows) -> list[str]:
    """When checkpointing is the better choice."""
    depths = {d: s for d, s in by_depth(rows).items() if "checkpoint" in s}
    first, last = min(depths), max(depths)
    ratios = {s: ratio(times, "checkpoint") for s, times in rounds_by_subject(rows).items()}
    times = ", ".join(f"{middle:.2f} on {s}" for s, (middle, _, _) in ratios.items())
    share = {d: s["checkpoint"] / s["reverse"] for d, s in depths.items()}
    again = {d: s["recursive"] / s["reverse"] for d, s in depths.items()}
    return [
        f"Both run every unit's forward pass once more. A step of reversing takes {times} times a step of "
        f"checkpointing every unit, and the memory parts with depth: checkpoints take {share[first]:.2f} "
        f"times the activations of reversing at depth {first} and {share[last]:.1f} times at {last}; "
        f"recursive ones {again[first]:.2f} and {again[last]:.2f} times, for O(L log L) more forward work.",
        "",
        "Checkpointing is the better choice where",
        "",
        "- the network has no inverse: ResNets, or blocks that change their shape;",
        "- the number formats above are not safe for the depth and exact coupling is not wanted: a "
        "checkpoint recomputes from the stored input, so its gradients are those of storing;",
        "- the network is shallow, so that the gap in memory is small.",
    ]


def compiling(rows: Rows) -> list[str]:
    """What PyTorch's compiler does with a budget of activations, beside storing and reversing."""
    found = rows.sql(
        """SELECT strategy, activation_budget AS budget, step_time_s AS time, memory_saved_bytes AS held,
                  memory_activation_bytes AS peak, depth, batch_size AS batch, cpu_threads AS threads
           FROM trials
           WHERE study = 'paper-cost' AND model = 'revnet110' AND outcome = 'ok' AND depth IN
                 (SELECT depth FROM trials WHERE study = 'paper-cost' AND strategy = 'compile')
           ORDER BY budget DESC NULLS FIRST, peak DESC"""
    )
    stored = next((r["time"] for r in found if r["strategy"] == "store"), None)
    compiled = [r for r in found if r["budget"] is not None]
    if stored is None or not compiled:
        return ["Not measured yet: `revstudy run paper-cost`."]
    lines = [
        [
            r["strategy"] if r["budget"] is None else f"compile, budget {r['budget']:g}",
            megabytes(r["held"]),
            megabytes(r["peak"]),
            f"{r['time'] / stored:.2f}",
        ]
        for r in found
    ]
    quickest = min(compiled, key=lambda r: r["time"])
    fewest = min(compiled, key=lambda r: r["peak"])
    reverse = next(r for r in found if r["strategy"] == "reverse")
    return [
        "`torch.compile` can be given a share of the activations that it may keep, and computes the others "
        f"again (`memory.strategy: compile`). At depth {reverse['depth']} a compiled step with a budget of "
        f"{quickest['budget']:g} takes {quickest['time'] / stored:.2f} of the time of storing; the least "
        f"that it peaks at is {megabytes(fewest['peak'])}, with a budget of {fewest['budget']:g}, "
        f"{fewest['peak'] / reverse['peak']:.1f} times what reversing does. The budget bounds what is held "
        "between the passes, not the peak of the backward pass, and compiling takes the longer the deeper "
        "the network, minutes on a CPU.",
        "",
        table(lines, ["strategy", "held for backward", "peak", "time over storing"]),
        "",
        f"RevNet of the design of revnet110, batch {reverse['batch']}, {reverse['threads']} threads, one "
        "trial each; activations and temporaries. Those of compiled networks are the allocator's, which "
        "sees 10 % more or less than the tracker of the others does.",
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
        f"{base['batch']} (everything: parameters, gradients, momentum, activations), a reversible network "
        f"of the same design width goes {step['deepest'] / base['deepest']:.1f} times as deep. One "
        f"training step of that network of {step['deepest']:,} layers was run: {step['measured_bytes']:,} "
        f"bytes measured, {step['predicted_bytes']:,} predicted, of {base['budget_bytes']:,}; it took "
        f"{step['step_s']:.0f} s on a machine that did other work too.",
        "",
        table(lines, ["network", "strategy", "deepest", "against the first", "largest batch at depth 110"]),
        "",
        *around(found),
        "",
        "![Depth that fits the memory of a stored ResNet-110](findings/deeper.png)",
    ]
