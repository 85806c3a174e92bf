import itertools
import json
import math
import statistics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.answers.importance import importance as importance_of
from analysis.faithful import GRADIENT_LIMIT
from analysis.figures import (
    FIGURES,
    accuracy_depth,
    contour,
    curves,
    error_block,
    error_depth,
    error_epoch,
    error_tradeoff,
    failures,
    importance,
    law_compute,
    law_isoflop,
    law_memory,
    law_predicted,
    law_residuals,
    memory_depth,
    memory_width,
    overhead,
    parallel,
    precision_map,
    precision_width,
    scaling,
    search_history,
    time_memory,
    tradeoff,
)
from analysis.figures.series import MAX_LINES
from analysis.schema import TABLES
from analysis.store.store import open_store
from analysis.strategies import STRATEGIES
from analysis.theme import OUTCOME_COLORS, PRECISION_COLORS, precision_look
from tests.analysis.laws.known_law import write_law


def write_one_file(store, rows):
    """Writes many trials fast, as a merged file would hold them."""
    folder = store / f"study={rows[0]['study']}" / "trials"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLES["trials"].arrow), folder / "many-a0.parquet")


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


@pytest.fixture(scope="module")
def searched_store(tmp_path_factory, stores):
    """Twelve trials that a sampler proposed, of which one was pruned; the learning rate decides all."""
    folder = tmp_path_factory.mktemp("search")
    rows = []
    for i in range(12):
        row = stores.trial_row(study="search", depth=(14, 26, 38)[i % 3], seed=0, number=i)
        config = {**json.loads(row["config_json"]), "train": {"learning_rate": 10 ** (-3 + i / 6)}}
        score = 0.5 + 0.04 * ((i * 5) % 12)
        row |= {"config_json": json.dumps(config), "trial_id": f"{i:016x}", "origin": "tpe"}
        row |= {"accuracy_val": score, "learning_rate": config["train"]["learning_rate"]}
        rows.append(row)
    rows[4] |= {"outcome": "pruned"}
    return stores.write_trials(folder, rows)


@pytest.fixture(scope="module")
def searched(searched_store):
    return open_store(searched_store)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory, stores):
    """Four seeds on one worker and on two: with the batch of each worker kept, and with the whole kept."""
    folder = tmp_path_factory.mktemp("scaled")
    rows = []
    for seed, (workers, batch, speed) in itertools.product(
        range(4), ((1, 64, 100.0), (2, 128, 180.0), (2, 64, 150.0))
    ):
        row = stores.trial_row(seed=seed, workers=workers, batch_size=batch, examples_per_s=speed + seed)
        config = json.loads(row["config_json"])
        config["train"]["batch_size"] = batch
        config["scaling"] = {"workers": workers}
        row |= {"config_json": json.dumps(config), "trial_id": f"{len(rows):016x}"}
        rows.append(row)
    lone = stores.trial_row(seed=9, workers=4, batch_size=256, trial_id="f" * 16)  # nothing to compare with
    return open_store(stores.write_trials(folder, [*rows, lone]))


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """Trainings whose loss follows a known law of size and data."""
    store = tmp_path_factory.mktemp("law") / "store"
    return open_store(write_law(store, memory_peak_bytes=20_000_000, flops_hardware=10**15), "law")


def test_figures_of_the_law_show_its_points_its_line_and_what_it_predicts(law):
    over_compute = law_compute.info(law)
    names = [one.name for one in over_compute.series]
    assert names[0] == "1 M parameters"
    assert names[-2:] == ["law, extrapolated", "law, extrapolated"]
    best = next(one for one in over_compute.series if one.name == "law, best size").points
    for point in best:  # no training of that compute is much better than the law's best
        near = [p.y for one in over_compute.series[:-3] for p in one.points if p.x <= point.x]
        assert not near or min(near) > 0.98 * point.y
    assert any("off by" in note for note in over_compute.notes)
    predicted = law_predicted.info(law)
    assert all(0.97 < p.y / p.x < 1.03 for one in predicted.series for p in one.points)
    assert all(p.low is not None for p in predicted.series[-1].points)
    residuals = law_residuals.info(law)
    assert all(abs(p.y) < 1.5 for one in residuals.series for p in one.points)
    assert law_isoflop.info(law).curves >= 1


def test_loss_against_memory_is_the_laws_at_one_budget(law):
    info = law_memory.info(law)
    assert info.operations == 10**15 * 100
    points = [p for one in info.series if one.mode == "markers" for p in one.points]
    assert {p.x for p in points} == {20.0}
    assert all(p.low <= p.y <= p.high for p in points)
    assert len({i for p in points for i in p.ids}) == 60


def test_figures_of_the_law_are_empty_where_the_rows_hold_none(demo):
    assert law_compute.info(demo).series == ()


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_a_unit_or_a_count_and_every_point_its_trials(demo, searched, scaled, law, name):
    store = searched if name in ("search_history", "importance", "contour") else demo
    store = law if name.startswith("law_") else store
    store = scaled if name == "scaling" else store
    known = {row["trial_id"] for row in store.rows("trials")}
    drawn = FIGURES[name].figure(FIGURES[name].info(store))
    layout = drawn.layout.to_plotly_json()
    titles = [a["title"]["text"] for key, a in layout.items() if "axis" in key and a["title"].get("text")]
    ticks = drawn.layout.xaxis.ticksuffix or drawn.layout.xaxis.ticktext
    assert titles or ticks
    assert all(" / " in title or title in ("epoch", "trials") for title in titles)
    for trace in drawn.data:
        lines = [line if isinstance(line, (list, tuple)) else [line] for line in trace.customdata]
        ids = {i for line in lines for text in line for i in text.split()}
        assert ids <= known
        if trace.meta["role"] == "fixed":  # it speaks of the whole search, whatever the filters say
            continue
        if trace.meta["role"] in ("front", "band"):
            assert trace.hoverinfo == "skip"
        elif trace.meta["role"] != "legend":
            assert ids
            assert "<extra></extra>" in str(trace.hovertemplate)


def test_colors_are_those_that_can_be_told_apart():
    strategies = {name: strategy.color for name, strategy in STRATEGIES.items()}
    assert len(set(strategies.values())) == len(strategies)
    assert set(strategies.values()) > OKABE_ITO  # ten strategies: all eight colors, and two grays
    for colors in (PRECISION_COLORS, OUTCOME_COLORS):
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
        for line in one.lines if one.role == "mean" else ():
            assert [p.x for p in line] == [14, 26, 38]
            assert all(len(p.ids) == 3 for p in line)
    slopes = {g.strategy: [] for g in info.growth}
    for growth in info.growth:
        slopes[growth.strategy].append(growth.fit.slope)
    assert all(abs(s) < 1e-12 for s in slopes["reverse"])
    assert all(0.6 < s < 0.9 for s in slopes["store"])
    (line, *_) = next(one for one in info.series if one.name == "reverse · revnet").lines
    assert {p.y for p in line} <= {2.0, 1.0, 0.5}


def test_memory_beyond_the_deepest_trial_is_marked_as_extrapolated(demo):
    info = memory_depth.info(demo)
    beyond = {one.name: one for one in info.series if one.role == "fit"}
    assert {one.dash for one in beyond.values()} == {"dot"}
    for line in beyond["store · extrapolated"].lines:
        assert [p.x for p in line] == [38, 76]
        assert line[0].y < line[1].y < 2 * line[0].y
    assert any("not measured" in note for note in info.notes)
    (band,) = (one for one in info.series if one.role == "band" and one.name == "store · extrapolated")
    for outline, line in zip(band.lines, beyond["store · extrapolated"].lines, strict=True):
        low, high = (f([p.y for p in outline if p.x == 76]) for f in (min, max))
        assert low < line[1].y < high
        near = [p.y for p in outline if p.x == 38]
        assert max(near) / min(near) < high / low  # the further out, the less is known


def test_memory_grows_with_width_under_every_strategy(demo, tmp_path, new_trial, write):
    info = memory_width.info(demo)
    for one in info.series:
        for line in one.lines:
            assert [p.x for p in line] == [0.5, 1.0]
            assert line[1].y == pytest.approx(2 * line[0].y, rel=0.01)
    assert info.growth == ()  # two widths make no law
    assert memory_width.figure(info) is not None
    write(tmp_path, [new_trial(width=w, seed=i) for w in (0.5, 1.0, 2.0) for i in range(2)])
    (law,) = memory_width.info(open_store(tmp_path)).growth
    assert law.fit.slope == pytest.approx(1)
    write(tmp_path / "one", [new_trial()])
    assert memory_width.figure(memory_width.info(open_store(tmp_path / "one"))) is None


def test_the_front_of_error_and_memory_is_that_of_the_definition(demo):
    info = error_tradeoff.info(demo)
    ok = [r for r in demo.rows("trials") if r["outcome"] == "ok"]

    def place(row):
        return row["memory_peak_bytes"], row["gradient_rel_error"] or 0.0

    def beaten(row):
        (x, y) = place(row)
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in map(place, ok))

    assert info.on_front == {r["trial_id"] for r in ok if not beaten(r)}
    assert {"store", "fp32", "bf16"} < {one.name for one in info.series}
    stored = next(one for one in info.series if one.name == "store")
    assert {p.value_text for p in stored.points} == {"nothing rebuilt"}
    assert sum(len(p.ids) for p in stored.points) == sum(r["strategy"] == "store" for r in ok)
    drawn = error_tradeoff.figure(info)
    assert {t.meta.get("better") for t in drawn.data if t.meta["role"] == "front"} == {"down"}


@pytest.mark.parametrize(("error", "is_drawn"), [(1e-12, False), (0.09, True)])
def test_the_limit_of_safe_gradients_is_named_as_a_line_where_it_is_drawn(
    error, is_drawn, tmp_path, new_trial, write
):
    write(tmp_path, [new_trial(seed=i, gradient_rel_error=error * (i + 1)) for i in range(3)])
    info = error_tradeoff.info(open_store(tmp_path))
    assert any("the dotted line" in note for note in info.notes) == is_drawn
    drawn = error_tradeoff.figure(info)
    places = [s.y0 for s in drawn.layout.shapes if s.line.dash == "dot"]
    assert places == ([GRADIENT_LIMIT] if is_drawn else [])
    low, high = drawn.layout.yaxis.range
    assert all(low < math.log10(y) < high for y in places)


def test_a_reversed_trial_without_a_finite_error_is_counted_not_drawn(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(seed=i, gradient_rel_error=e) for i, e in enumerate((1e-6, math.nan, None))])
    info = error_tradeoff.info(open_store(tmp_path))
    assert [len(one.points) for one in info.series if one.role == "trials"] == [1]
    assert any("2 trials not drawn" in note for note in info.notes)


def test_accuracy_by_depth_joins_trials_that_differ_in_depth_and_seed_alone(demo):
    info = accuracy_depth.info(demo)
    assert info.depths == (14, 26, 38)
    for one in info.series:
        for line in one.lines:
            assert len(line) == 3
            assert all(p.low < p.y < p.high and len(p.ids) == 3 for p in line)
    # two widths in two precisions reversed, as many stored, two widths of ResNets
    lines = {one.name: len(one.lines) for one in info.series}
    assert lines == {"reverse · revnet": 4, "store · revnet": 4, "store · resnet": 2}


def test_workers_are_paired_by_the_batch_of_each_and_by_that_of_all(scaled):
    info = scaling.info(scaled)
    found = {one.name: [p.y for p in one.points] for one in info.series}
    assert found == {
        "equal batch per worker": pytest.approx([(180 + s) / (100 + s) for s in range(4)]),
        "equal batch in all": pytest.approx([(150 + s) / (100 + s) for s in range(4)]),
    }
    assert info.most == 2
    assert "n = 4" in info.notes[0]


def test_every_strategy_is_placed_by_what_it_costs_and_saves(demo):
    info = time_memory.info(demo)
    twins = {r["trial_id"]: r for r in demo.rows("trials")}
    assert info.pairs == 36
    for point in (p for one in info.series for p in one.points):
        own, stored = (twins[i] for i in point.ids)
        assert stored["strategy"] == "store" != own["strategy"]
        assert point.x == pytest.approx(stored["memory_activation_bytes"] / own["memory_activation_bytes"])
        assert point.y == pytest.approx(own["step_time_s"] / stored["step_time_s"])


def test_errors_follow_depth_by_precision(demo):
    info = error_depth.info(demo)
    assert {law.label for law in info.laws} == {"fp32", "bf16"}
    assert all(law.fit.slope == pytest.approx(1.0) for law in info.laws)
    assert not any(law.bend.significant or law.initial for law in info.laws)
    (note,) = (n for n in info.notes if n.startswith("fp32: "))
    assert note.startswith("fp32: reconstruction error 1.00 (1.00 to 1.00, n = 9); gradient error 1.00 (1.00")
    drawn = error_depth.figure(info)
    assert drawn.layout.xaxis.type == drawn.layout.xaxis2.type == "log"
    assert drawn.layout.xaxis2.tickvals == (14, 26, 38)
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


def test_parallel_axes_place_every_value_between_the_ends(demo):
    info = parallel.info(demo)
    assert [axis.column for axis in info.axes] == [
        *("depth", "width", "precision", "memory_peak_bytes", "step_time_s", "gradient_rel_error"),
        "accuracy_val",
    ]
    assert info.trials == info.shown == 90
    rows = {r["trial_id"]: r for r in demo.rows("trials")}
    lines = [line for one in info.series for line in one.lines]
    assert len(lines) == 90
    for line in lines:
        row = rows[line[0].ids[0]]
        at = {info.axes[p.x].column: p.y for p in line}
        assert all(0 <= y <= 1 + 1e-9 for y in at.values())
        assert at["depth"] == pytest.approx((row["depth"] - 14) / 24)
        assert ("gradient_rel_error" in at) == (row["gradient_rel_error"] is not None)
    assert {text: place for place, text in info.axes[0].ticks} == {"14": 0, "26": 0.5, "38": 1}


def test_parallel_axes_give_exactly_zero_a_place_of_its_own(tmp_path, new_trial, write):
    errors = (0.0, 1e-6, 1e-2)
    write(
        tmp_path, [new_trial(seed=i, depth=14 + 12 * i, gradient_rel_error=e) for i, e in enumerate(errors)]
    )
    info = parallel.info(open_store(tmp_path))
    (number,) = (i for i, axis in enumerate(info.axes) if axis.column == "gradient_rel_error")
    assert info.axes[number].ticks[0] == (0.0, "exactly 0")
    heights = [p.y for one in info.series for p in one.points if p.x == number]
    assert sorted(heights) == pytest.approx([0, 0.12, 1])


def test_parallel_axes_of_a_large_store_keep_the_front(tmp_path, new_trial):
    rows = [new_trial(seed=i, depth=14 + 12 * (i % 3), memory_peak_bytes=10_000_000 + i) for i in range(400)]
    rows[7] |= {"accuracy_val": 0.999, "memory_peak_bytes": 1_000_000}
    write_one_file(tmp_path, rows)
    info = parallel.info(open_store(tmp_path))
    assert (info.shown, info.trials) == (parallel.MAX_LINES, 400)
    assert rows[7]["trial_id"] in {i for one in info.series for p in one.points for i in p.ids}


def test_the_precision_map_holds_medians_of_its_cells(demo):
    info = precision_map.info(demo)
    assert info.precisions == ("fp32", "bf16")
    assert info.depths == (14, 26, 38)
    errors, accuracies = info.panels
    for panel, scale in ((errors, 1), (accuracies, 100)):
        for p, label in enumerate(info.precisions):
            for d, depth in enumerate(info.depths):
                values = [
                    scale * r[panel.column]
                    for r in demo.rows("trials")
                    if (r["outcome"], r["compute_dtype"], r["depth"]) == ("ok", label, depth)
                    and r[panel.column] is not None
                ]
                assert panel.medians[p][d] == pytest.approx(statistics.median(values))
                assert len(panel.ids[p][d]) == len(values)
    drawn = precision_map.figure(info)
    assert drawn.data[0].z[0][0] == pytest.approx(math.log10(errors.medians[0][0]))
    assert drawn.data[0].text[0][0] == "3e-6"


def test_the_precision_map_shows_exact_cells_as_zero(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(gradient_rel_error=0.0), new_trial(compute="bf16", gradient_rel_error=1e-3)])
    drawn = precision_map.figure(precision_map.info(open_store(tmp_path)))
    assert [list(line) for line in drawn.data[0].text] == [["0"], ["1e-3"]]
    assert drawn.data[0].z[0][0] == drawn.data[0].z[1][0] == pytest.approx(-3)


def test_the_search_counts_its_trials_and_keeps_the_best(searched):
    info = search_history.info(searched)
    assert info.proposed == 12
    scores = {r["trial_id"]: r["accuracy_val"] for r in searched.rows("trials") if r["outcome"] == "ok"}
    assert info.best == max(scores, key=scores.get)
    (best,) = (one for one in info.series if one.name == "best so far")
    heights = [p.y for p in best.points]
    assert heights == sorted(heights)
    assert heights[-1] == pytest.approx(100 * max(scores.values()))
    assert [p.x for one in info.series if one.name == "pruned" for p in one.points] == [5]


def test_the_ground_of_a_search_is_seen_from_its_nearest_trials(searched):
    info = contour.info(searched)
    assert {axis.path for axis in info.axes} == {"train.learning_rate", "model.depth"}
    assert {axis.path for axis in info.axes if axis.log} == {"train.learning_rate"}
    assert len(info.places) == 11  # the pruned one is no place
    ground, trials = contour.figure(info).data
    values = [value for row in ground.z for value in row]
    accuracies = [p.score for p in info.places]
    assert min(accuracies) <= min(values) < max(values) <= max(accuracies)
    best = max(info.places, key=lambda p: p.score)
    x = min(range(len(ground.x)), key=lambda i: abs(ground.x[i] - best.values[0]))
    y = min(range(len(ground.y)), key=lambda i: abs(ground.y[i] - best.values[1]))
    assert ground.z[y][x] > sum(accuracies) / len(accuracies)
    assert set(trials.customdata) == {p.trial_id for p in info.places}


def test_importance_finds_the_setting_that_decides(tmp_path, new_trial):
    rows = []
    for i in range(40):
        row = new_trial(depth=(14, 26, 38, 50, 62)[i % 5], seed=i % 2, number=i)
        rate = 0.01 * (1 + (i * 7) % 40)
        config = {**json.loads(row["config_json"]), "train": {"learning_rate": rate}, "recipe": i}
        row |= {"origin": "tpe", "trial_id": f"{i:016x}", "config_json": json.dumps(config)}
        rows.append({**row, "accuracy_val": 0.9 - abs(rate - 0.2), "memory_peak_bytes": 1000 * row["depth"]})
    found = importance_of(rows, "accuracy_val")
    assert found.n == 40
    assert set(found.settings) == {"model.depth", "seed", "train.learning_rate"}
    assert found.settings[0] == "train.learning_rate"
    for shares in (found.ped_anova, found.fanova):
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["train.learning_rate"] > 0.6
    memory = importance_of(rows, "memory_peak_bytes", direction="minimize")
    assert memory.settings[0] == "model.depth"
    assert memory.fanova["model.depth"] > 0.9
    assert importance_of(rows[:9], "accuracy_val") is None
    assert importance_of([{**r, "accuracy_val": 0.5} for r in rows], "accuracy_val") is None
    write_one_file(tmp_path, rows)
    info = importance.info(open_store(tmp_path))
    assert [name for name, _ in info.results] == [
        "validation accuracy",
        "peak memory",
        "reconstruction error",
    ]
    drawn = importance.figure(info)
    assert drawn.data[0].y[0] == "train.learning_rate"
    assert drawn.data[0].x[0] == pytest.approx(100 * found.ped_anova["train.learning_rate"], abs=0.01)


def test_a_large_store_draws_points_that_the_browser_can_carry(tmp_path, new_trial):
    pairs = [
        {**new_trial(seed=i, strategy=s), "trial_id": f"{i:08d}-{s}"}
        for i in range(4_100)
        for s in ("reverse", "store")
    ]
    write_one_file(tmp_path, pairs)
    drawn = overhead.figure(overhead.info(open_store(tmp_path)))
    assert [trace.type for trace in drawn.data] == ["scattergl"]
    assert len(drawn.data[0].x) == 4_100


def test_laws_at_initialization_are_told_beside_those_after_training(tmp_path, new_trial, write, write_file):
    for depth, seed in itertools.product((26, 50, 98, 194), (0, 1)):
        trial = new_trial(depth=depth, seed=seed)
        write(tmp_path, [trial])
        key = {name: trial[name] for name in ("trial_id", "study", "attempt")}
        errors = {"reconstruction_rel_error": 1e-9 * depth**2, "gradient_rel_error": 1e-7 * depth}
        probe = [{**key, "epoch": 0, "block": b, "name": f"blocks.{b}", **errors} for b in range(2)]
        write_file(tmp_path, "blocks", probe, stem=f"{trial['trial_id']}-first")
    info = error_depth.info(open_store(tmp_path))
    slopes = {(law.column, law.initial): round(law.fit.slope, 3) for law in info.laws}
    assert slopes == {
        ("reconstruction_rel_error", False): 1,
        ("reconstruction_rel_error", True): 2,
        ("gradient_rel_error", False): 1,
        ("gradient_rel_error", True): 1,
    }
    (note,) = (n for n in info.notes if n.startswith("fp32: "))
    assert "reconstruction error 1.00 (1.00 to 1.00, n = 8), at initialization 2.00 (2.00" in note


def test_errors_in_training_begin_at_initialization(tmp_path, new_trial, write, write_file):
    trial = new_trial()
    write(tmp_path, [trial])
    key = {name: trial[name] for name in ("trial_id", "study", "attempt")}
    probe = [{**key, "epoch": 0, "block": b, "reconstruction_rel_error": (1 + b) * 1e-9} for b in range(3)]
    probe.append({**key, "epoch": 0, "block": None, "name": "stem"})
    write_file(tmp_path, "blocks", probe, stem=f"{trial['trial_id']}-first")
    (series,) = error_epoch.info(open_store(tmp_path)).series
    (line,) = series.lines
    assert [p.x for p in line] == [0, 1, 2, 3, 4]
    assert line[0].y == pytest.approx(3e-9)


@pytest.mark.parametrize("name", ["error_depth", "curves", "precision_width"])
def test_trials_of_another_coupling_have_an_entry_and_a_look_of_their_own(
    tmp_path, new_trial, write, write_file, name
):
    rows = [
        {**new_trial(depth=depth, seed=seed, coupling_rule=rule), "trial_id": f"{place:016x}"}
        for place, (depth, seed, rule) in enumerate(
            itertools.product((26, 38), (0, 1), (None, "momentum(gamma=0.9)"))
        )
    ]
    write(tmp_path, rows)
    epochs = [
        {"study": row["study"], "trial_id": row["trial_id"], "attempt": 0, "epoch": e, "loss_train": 1 / e}
        for row in rows
        for e in (1, 2)
    ]
    write_file(tmp_path, "epochs", epochs)
    figure = FIGURES[name].figure(FIGURES[name].info(open_store(tmp_path)))
    named = [t for t in figure.data if t.name and t.showlegend]
    looks = {t.name.split(" · ")[0]: (t.marker.symbol, t.line.dash) for t in named}
    assert set(looks) == {"fp32", "fp32, momentum(gamma=0.9)"}
    assert len(set(looks.values())) == 2
