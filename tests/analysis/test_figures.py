import math

import pytest

from analysis.figures import (
    FIGURES,
    curves,
    error_block,
    error_depth,
    error_epoch,
    failures,
    memory_depth,
    overhead,
    precision_width,
    tradeoff,
)
from analysis.figures.series import MAX_LINES
from analysis.store import open_store
from analysis.theme import OUTCOME_COLORS, PRECISION_COLORS, STRATEGY_COLORS, precision_look

OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


def test_every_figure_says_none_when_there_is_nothing(tmp_path):
    store = open_store(tmp_path)
    for module in FIGURES.values():
        assert module.figure(module.info(store)) is None


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_one_trial_and_all_failed(tmp_path, new_trial, write, name):
    odd = {"accuracy_val": float("nan"), "memory_peak_bytes": None, "depth": None, "width": None}
    odd |= {"compute_dtype": None, "strategy": None, "step_time_s": 0.0, "loss_train": float("inf")}
    write(tmp_path / "one", [new_trial()])
    write(tmp_path / "failed", [{**new_trial(outcome="failed", seed=i), **odd} for i in range(3)])
    write(tmp_path / "odd", [{**new_trial(seed=i), **odd} for i in range(3)])
    for folder in ("one", "failed", "odd"):
        store = open_store(tmp_path / folder)
        FIGURES[name].figure(FIGURES[name].info(store))


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_a_unit_or_a_count_and_every_point_its_trials(demo, name):
    known = {row["trial_id"] for row in demo.rows("trials")}
    drawn = FIGURES[name].figure(FIGURES[name].info(demo))
    titles = [axis.title.text for axis in (drawn.layout.xaxis, drawn.layout.yaxis) if axis.title.text]
    assert titles
    assert all(" / " in title or title in ("epoch", "trials") for title in titles)
    for trace in drawn.data:
        ids = {i for text in trace.customdata for i in text.split()}
        assert ids <= known
        if trace.meta["role"] not in ("legend", "front"):
            assert ids
            assert "<extra></extra>" in str(trace.hovertemplate)


def test_colors_are_those_that_can_be_told_apart():
    for colors in (STRATEGY_COLORS, PRECISION_COLORS, OUTCOME_COLORS):
        assert len(set(colors.values())) == len(colors)
        assert len(set(colors.values()) - OKABE_ITO) <= 1  # one neutral gray


def test_arithmetic_of_one_color_differs_in_symbol_and_dash(new_trial):
    looks = [
        precision_look(new_trial(compute="bf16", **changes))
        for changes in (
            {},
            {"stream_dtype": "fp32"},
            {"coupling": "exact"},
            {"stream_dtype": "fp32", "coupling": "exact"},
            {"matmul": "tf32"},
        )
    ]
    assert {look["color"] for look in looks} == {PRECISION_COLORS["bf16"]}
    assert len({look["symbol"] for look in looks}) == len({look["dash"] for look in looks}) == 5


def test_the_front_is_drawn_over_seed_means(demo):
    info = tradeoff.info(demo)
    points = [p for one in info.series if one.role == "mean" for p in one.points]
    assert len(points) == 30
    assert all(len(p.ids) == 3 and p.low < p.y < p.high for p in points)
    assert info.left_out == 2
    best = max(points, key=lambda p: p.y)
    assert set(best.ids) <= info.on_front
    worst = min(points, key=lambda p: (p.y, -p.x))
    front = [p for one in info.series if one.role == "front" for p in one.points]
    assert [p.y for p in front] == sorted(p.y for p in front)
    assert worst.ids not in [p.ids for p in front] or worst.x == min(p.x for p in points)


def test_memory_lines_join_comparable_trials_and_carry_slopes(demo):
    info = memory_depth.info(demo)
    for one in info.series:
        for line in one.lines:
            assert [p.x for p in line] == [14, 26, 38]
            assert all(len(p.ids) == 3 for p in line)
    slopes = {g.strategy: [] for g in info.growth}
    for growth in info.growth:
        slopes[growth.strategy].append(growth.fit.slope)
    assert all(abs(s) < 1e-12 for s in slopes["reverse"])
    assert all(0.6 < s < 0.9 for s in slopes["store"])
    (line, *_) = next(one for one in info.series if one.name == "reverse · revnet").lines
    assert {p.y for p in line} <= {2.0, 1.0, 0.5}


def test_errors_follow_depth_by_precision(demo):
    info = error_depth.info(demo)
    assert {law.label for law in info.laws} == {"fp32", "bf16"}
    assert all(law.fit.slope == pytest.approx(1.0) for law in info.laws)
    assert info.floors == (None, None)


def test_exactly_zero_has_its_own_place_and_is_told_as_zero(tmp_path, new_trial, write):
    exact = {"coupling": "exact", "reconstruction_rel_error": 0.0, "gradient_rel_error": 0.0}
    write(tmp_path, [new_trial(depth=d) for d in (14, 26)] + [new_trial(depth=d, **exact) for d in (14, 26)])
    info = error_depth.info(open_store(tmp_path))
    smallest = 6e-8 * 14
    assert info.floors[0] < smallest / 10
    zero = next(one for one in info.series if one.name == "fp32, exact" and one.panel == 1)
    assert {p.y for p in zero.points} == {info.floors[0]}
    assert {p.value_text for p in zero.points} == {"exactly 0"}
    drawn = error_depth.figure(info)
    place = drawn.layout.yaxis.tickvals.index(info.floors[0])
    assert drawn.layout.yaxis.ticktext[place] == "exactly 0"
    assert drawn.layout.yaxis.range[0] < math.log10(info.floors[0])
    assert "Errors of exactly zero lie below the dashed line." in info.notes


def test_all_errors_zero_is_still_a_figure(tmp_path, new_trial, write):
    write(
        tmp_path, [new_trial(depth=d, reconstruction_rel_error=0.0, gradient_rel_error=0.0) for d in (14, 26)]
    )
    store = open_store(tmp_path)
    for module in (error_depth, error_block, error_epoch):
        info = module.info(store)
        drawn = module.figure(info)
        assert drawn is None or all(y is None or y > 0 for trace in drawn.data for y in trace.y)


def test_overhead_pairs_trials_on_one_machine(tmp_path, demo, new_trial, write):
    info = overhead.info(demo)
    points = [p for one in info.series for p in one.points]
    assert len(points) == 36
    assert all(len(p.ids) == 2 and 1.2 < p.y < 1.5 for p in points)
    write(tmp_path, [new_trial(strategy="store", device="a"), new_trial(strategy="reverse", device="b")])
    assert overhead.info(open_store(tmp_path)).series == ()


def test_precisions_stand_beside_each_other_at_every_width(demo):
    info = precision_width.info(demo)
    assert info.widths == (0.5, 1.0)
    places = {one.name.split()[0]: {round(p.x, 6) for p in one.points} for one in info.series}
    assert places["fp32"].isdisjoint(places["bf16"])


def test_curves_are_sampled_and_the_caption_says_so(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(seed=i, epochs=2) for i in range(MAX_LINES + 30)])
    info = curves.info(open_store(tmp_path))
    assert (info.shown, info.trials) == (MAX_LINES, MAX_LINES + 30)
    assert f"a sample of {MAX_LINES} of {MAX_LINES + 30} trials" in info.notes[0]


def test_a_diverged_trial_keeps_its_curve(demo):
    info = curves.info(demo)
    fp16 = next(one for one in info.series if one.name == "fp16")
    assert len(fp16.lines[0]) == 2
    assert "ended diverged" in fp16.points[0].text


def test_failures_say_what_where_and_why(demo):
    info = failures.info(demo)
    assert [f.outcome for f in info.failures] == ["diverged", "oom"]
    assert info.failures[1].where == "revnet38 · depth 110 · width 1 · store · fp32"
    assert "allocate 9 GB" in info.failures[1].message


def test_text_of_the_store_is_escaped_in_hovers_and_legends(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(model="<b>bold</b>", strategy="<i>odd</i>")])
    drawn = tradeoff.figure(tradeoff.info(open_store(tmp_path)))
    text = drawn.to_json()
    assert "<b>bold" not in text
    assert "<i>odd" not in text.replace('["strategy","<i>odd</i>"]', "")
