"""The parts of the report in reading order, and what each says when it has nothing to show."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analysis.score import LOSS, Score


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A figure's place in the report: its heading, what it shows, and what would fill it if it is empty.

    Texts name the metric of the task in braces: ``{score}``, ``{a score}``, ``{Score}``, and ``{Up}``, which
    way is better.
    """

    figure: str
    heading: str
    lead: str
    if_empty: str


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A part of the report."""

    anchor: str
    heading: str
    panels: tuple[Panel, ...]


_SECTIONS = (
    Chapter(
        anchor="tradeoff",
        heading="Trade-off",
        panels=(
            Panel(
                figure="tradeoff",
                heading="{Score} against peak memory",
                lead="{Up} and to the left is better. Drag over points to select them everywhere.",
                if_empty="No trial here ended ok with {a score} and a measured peak of memory. A study on "
                "real images fills this: revstudy run quickstart.",
            ),
            Panel(
                figure="error_tradeoff",
                heading="Gradient error against peak memory",
                lead="Down and to the left is better: faithful gradients in little memory.",
                if_empty="No trial here reversed and was probed. A study with memory.strategy: reverse and "
                "probing on fills this.",
            ),
            Panel(
                figure="parallel",
                heading="Trials over parallel axes",
                lead="One line per trial, from its settings to what they cost and gain. Drag along an axis "
                "to select the trials that pass there.",
                if_empty="It takes trials that ended ok with {a score} and a peak of memory, and that "
                "differ in at least three of these: a study with several depths, widths or precisions in "
                "space fills this.",
            ),
        ),
    ),
    Chapter(
        anchor="memory",
        heading="Depth, width, scaling",
        panels=(
            Panel(
                figure="memory_depth",
                heading="Activation memory against depth",
                lead="Storing keeps every block's activations; reversing rebuilds them, so its line should "
                "be flat.",
                if_empty="No trial here ended ok with measured activation memory. A study with several "
                "depths in space.model.depth, and store and reverse in space.memory.strategy, fills this.",
            ),
            Panel(
                figure="accuracy_depth",
                heading="{Score} against depth",
                lead="Whether the layers that reversing makes affordable are worth having.",
                if_empty="It takes trials of two depths or more that ended ok with {a score}. A study with "
                "several values in space.model.depth fills this.",
            ),
            Panel(
                figure="memory_width",
                heading="Activation memory against width",
                lead="Wider activations are larger, whether they are stored or rebuilt.",
                if_empty="It takes trials of two widths or more that ended ok with measured activation "
                "memory. A study with several values in space.model.width fills this.",
            ),
            Panel(
                figure="scaling",
                heading="Throughput against workers",
                lead="What data-parallel workers bring, against one worker of equal settings and seed.",
                if_empty="No trial here ran on several workers and has a counterpart on one. A study with 1 "
                "and 2 in space.scaling.workers fills this.",
            ),
        ),
    ),
    Chapter(
        anchor="precision",
        heading="Precision",
        panels=(
            Panel(
                figure="precision_map",
                heading="Precision by depth",
                lead="What each arithmetic, and each stream under it, costs at each depth.",
                if_empty="It takes trials in two precisions or more. A study with several values in "
                "space.precision.compute or space.precision.stream fills this.",
            ),
            Panel(
                figure="error_depth",
                heading="Error of reversing against depth",
                lead="How far rebuilt activations, and the gradients computed from them, are from the "
                "stored ones.",
                if_empty="No trial here reversed and was probed. A study with memory.strategy: reverse, "
                "several depths and several precisions in space.precision.compute fills this.",
            ),
            Panel(
                figure="precision_width",
                heading="{Score} by precision and width",
                lead="What coarser arithmetic costs in {score}, at each width.",
                if_empty="No trial here ended ok with {a score}. A study with several values in "
                "space.precision.compute and space.model.width fills this.",
            ),
            Panel(
                figure="error_block",
                heading="Reconstruction error by block",
                lead="Where along the network the error builds up.",
                if_empty="No block was probed. A study with memory.strategy: reverse, and "
                "probing on, fills this.",
            ),
            Panel(
                figure="error_epoch",
                heading="Reconstruction error during training",
                lead="Whether training drives the weights to where reversing is less exact.",
                if_empty="No trial was probed in two epochs or more. A study with probe.every: 1 fills this.",
            ),
        ),
    ),
    Chapter(
        anchor="time",
        heading="Time",
        panels=(
            Panel(
                figure="strategies",
                heading="Total peak against step time",
                lead="What each strategy costs on one network: down and to the left is better. Hollow marks "
                "are dominated: another takes no more memory and no more time.",
                if_empty="It takes trials of one network with two strategies or more, timed on one machine. "
                "A study with several values in space.memory.strategy fills this.",
            ),
            Panel(
                figure="time_memory",
                heading="Time against memory saved",
                lead="Every strategy on one chart, each trial measured against its stored twin.",
                if_empty="No two trials here differ in the strategy alone and were timed on one machine. A "
                "study with store and reverse in space.memory.strategy fills this.",
            ),
            Panel(
                figure="overhead",
                heading="Step time against the stored twin",
                lead="Each point is a pair of trials of equal settings and seed on one machine.",
                if_empty="No two trials here differ in the strategy alone and were timed on one machine. A "
                "study with store and reverse in space.memory.strategy fills this.",
            ),
        ),
    ),
    Chapter(
        anchor="curves",
        heading="Learning curves",
        panels=(
            Panel(
                figure="curves",
                heading="Loss and {score} by epoch",
                lead="One line per trial, failed ones as far as they came.",
                if_empty="No trial here finished an epoch.",
            ),
        ),
    ),
    Chapter(
        anchor="searches",
        heading="Search",
        panels=(
            Panel(
                figure="search_history",
                heading="Course of the search",
                lead="Whether the search still found better settings, or could have ended sooner.",
                if_empty="No sampler proposed a trial here. A study with a search step of method optuna "
                "fills this.",
            ),
            Panel(
                figure="importance",
                heading="Importance of settings",
                lead="What is worth tuning: how much each setting mattered to what the search looked for.",
                if_empty="It takes ten trials that a sampler proposed and that ended ok, and two settings "
                "that vary among them. A study with a search step of method optuna fills this.",
            ),
            Panel(
                figure="contour",
                heading="{Score} over two settings",
                lead="Where the search found good ground, and where it hardly looked.",
                if_empty="It takes ten trials that a sampler proposed and that ended ok, and two numeric "
                "settings that vary among them. A study with a search step of method optuna over, say, "
                "train.learning_rate and model.width fills this.",
            ),
        ),
    ),
    Chapter(
        anchor="failures",
        heading="Failures",
        panels=(
            Panel(
                figure="failures",
                heading="What failed, where and why",
                lead="Failures are results: they show where the space ends.",
                if_empty="Every trial here ended ok.",
            ),
        ),
    ),
)


def sections(metric: Score) -> tuple[Chapter, ...]:
    """The parts of the report of trials that are judged by a metric."""
    article = "an" if metric.name[0] in "aeiou" else "a" if metric is LOSS else "a value of"
    words = {
        "{score}": metric.name,
        "{a score}": f"{article} {metric.name}",
        "{Score}": metric.title,
        "{Up}": "Up" if metric.better == "max" else "Down",
    }

    def told(text: str) -> str:
        for word, name in words.items():
            text = text.replace(word, name)
        return text

    return tuple(
        replace(
            chapter,
            panels=tuple(
                replace(p, heading=told(p.heading), lead=told(p.lead), if_empty=told(p.if_empty))
                for p in chapter.panels
            ),
        )
        for chapter in _SECTIONS
    )
