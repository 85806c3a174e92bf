import re
import statistics

import pytest

from analysis.answers.findings import findings, score_finding
from analysis.answers.recommend import configurations, configurations_of, recommend, round_up
from analysis.answers.recommendation_text import answer
from analysis.cohort import cohort_of
from analysis.figures import tradeoff
from analysis.queries import run_query
from analysis.stats import Estimate
from analysis.store.store import open_store
from analysis.wording import bytes_text, error_text, factor_text, points_text, precision_label, seconds_text


def test_the_three_findings_carry_their_numbers_and_n(demo):
    memory, accuracy, precision = findings(demo)
    # the fixture's law: 2 MB against 2 MB + 38 x 250 kB, per layer 250 kB, and 1.33 times the step time
    assert memory.startswith("Memory: at depth 38 reversing takes 5.75× less activation memory than storing")
    assert "(2.00 MB against 11.5 MB" in memory
    assert "(250 kB per layer)" in memory
    assert "reversing grows by 0 bytes over the same depths" in memory
    assert re.search(
        r"takes 1\.3\d× \(95 % interval 1\.3\d× to 1\.3\d×, n = 36\) the time of storing", memory
    )
    assert "n = 36) against storing, same settings and seed" in accuracy
    assert "n = 18), same seed" in accuracy
    assert "reversing in fp32 rebuilds activations to a relative error of 2.3e-6" in precision
    assert "in bf16 it rebuilds activations to a relative error of 1.5e-1" in precision
    assert precision.index("fp32") < precision.index("bf16")


def test_without_data_the_findings_say_so(tmp_path):
    memory, accuracy, precision = findings(open_store(tmp_path))
    assert memory.startswith("Memory: no trial pair yet")
    assert accuracy.startswith("Accuracy: no finished trial")
    assert precision.startswith("Precision: no finished trial")


def test_equal_memory_is_told_where_no_pair_has_equal_settings(tmp_path, new_trial, write):
    sizes = {"store": (0.5, 1000, 50_000_000), "reverse": (2.0, 16_000, 50_100_000)}
    write(
        tmp_path,
        [
            new_trial(strategy=s, seed=i, width=width, parameters=n, memory_peak_bytes=peak)
            for s, (width, n, peak) in sizes.items()
            for i in range(2)
        ],
    )
    memory = findings(open_store(tmp_path))[0]
    assert memory.startswith("Memory: reversing and storing were given the same memory here (50.0 MB to 50.1")
    assert "4 trials). The largest network has 16,000 parameters where it is reversed, and 1,000" in memory
    write(tmp_path, [new_trial(strategy="store", seed=9, width=0.5, memory_peak_bytes=70_000_000)])
    assert findings(open_store(tmp_path))[0].startswith("Memory: no trial pair yet")


def test_trials_that_failed_enter_no_finding(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(strategy=s, outcome="failed") for s in ("store", "reverse")])
    assert findings(open_store(tmp_path)) == findings(open_store(tmp_path), study=None)
    assert findings(open_store(tmp_path))[0].startswith("Memory: no trial pair yet")


def test_one_study_has_its_own_findings(tmp_path, new_trial, write):
    write(
        tmp_path, [new_trial(study="a", strategy=s, seed=i) for s in ("store", "reverse") for i in range(3)]
    )
    write(tmp_path, [new_trial(study="b", seed=50)])
    store = open_store(tmp_path)
    assert "n = 3" in findings(store, "a")[1]
    assert findings(store, "b")[0].startswith("Memory: no trial pair yet")


def test_two_pairs_are_too_few_for_an_interval(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(strategy=s, seed=i) for s in ("store", "reverse") for i in range(2)])
    assert "(n = 2, too few for an interval)" in findings(open_store(tmp_path))[1]


def test_times_of_other_machines_are_not_compared(tmp_path, new_trial, write):
    write(
        tmp_path,
        [new_trial(strategy="store", hostname_hash="a"), new_trial(strategy="reverse", hostname_hash="b")],
    )
    assert "training step" not in findings(open_store(tmp_path))[0]


def test_pairs_timed_beside_other_trials_are_counted(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(strategy=s, concurrent_trials=2) for s in ("store", "reverse")])
    assert "1 of these pairs shared the machine" in findings(open_store(tmp_path))[0]


def test_an_exact_inverse_is_told_as_exact(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(coupling="exact", reconstruction_rel_error=0.0, gradient_rel_error=0.0)])
    assert (
        "fp32, exact rebuilds activations to a relative error of exactly 0"
        in findings(open_store(tmp_path))[2]
    )


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"compute": "fp32"}, "fp32"),
        ({"compute": "bf16", "stream_dtype": "fp32"}, "bf16 on fp32 stream"),
        ({"coupling": "exact", "matmul": "tf32"}, "fp32, exact, tf32"),
        ({"compute_dtype": None, "stream_dtype": None}, "unknown"),
        ({"coupling_rule": "momentum(gamma=0.9)"}, "fp32, momentum(gamma=0.9)"),
    ],
)
def test_a_precision_has_one_label(new_trial, row, label):
    assert precision_label(new_trial(**row)) == label


def test_a_recommendation_fits_its_budget_and_is_the_best_that_does(demo):
    rows = demo.rows("trials")
    picks = recommend(rows)
    assert 1 < len(picks) <= 4
    for pick in picks:
        assert pick.choice.peak_bytes <= pick.budget_bytes
        fitting = [r for r in rows if r["outcome"] == "ok" and r["memory_peak_bytes"] <= pick.budget_bytes]
        by_settings = {}
        for r in fitting:
            if (r["gradient_rel_error"] or 0) <= 0.01:
                key = (r["family"], r["depth"], r["width"], r["strategy"], r["compute_dtype"])
                by_settings.setdefault(key, []).append(r["accuracy_val"])
        assert pick.candidates == len(by_settings)
        best = max(by_settings.values(), key=statistics.mean)
        chosen = [r["accuracy_val"] for r in pick.choice.rows]
        assert pick.best.score.mean == pytest.approx(statistics.mean(best))
        spread = ((statistics.variance(best) + statistics.variance(chosen)) / 2) ** 0.5
        assert statistics.mean(best) - statistics.mean(chosen) <= spread
        assert all(pick.choice.peak_bytes <= 1.01 * other.peak_bytes for other in pick.tied)
    budgets = [pick.budget_bytes for pick in picks]
    assert budgets == sorted(budgets)


def test_data_sets_are_not_compared_with_each_other(new_trial):
    rows = [new_trial(data="digits"), new_trial(data="cifar10", accuracy_test=0.5, accuracy_val=0.5, seed=1)]
    assert [pick.data for pick in recommend(rows)] == ["cifar10", "digits"]


def test_nothing_finished_recommends_nothing(new_trial):
    assert recommend([]) == []
    assert recommend([new_trial(outcome="oom")]) == []
    assert recommend([new_trial(accuracy_test=float("nan"), accuracy_val=float("nan"))]) == []


def test_validation_chooses_and_the_test_accuracy_is_shown_for_what_it_chose(tmp_path, new_trial, write):
    """Trials that are better in the test and worse in validation are on no front and not recommended."""
    chosen = new_trial(seed=1, depth=14, accuracy_val=0.8, accuracy_test=0.6, memory_peak_bytes=1_000_000)
    lucky = new_trial(seed=2, depth=26, accuracy_val=0.7, accuracy_test=0.9, memory_peak_bytes=1_000_000)
    blind = new_trial(seed=3, depth=38, accuracy_val=None, accuracy_test=0.99, memory_peak_bytes=900_000)
    store = open_store(write(tmp_path, [chosen, lucky, blind]))
    (pick,) = recommend(store.rows("trials"))
    assert pick.choice.ids == (chosen["trial_id"],)
    told = answer(pick, {chosen["trial_id"]: 0})
    assert (told["metric"], told["score"], told["validation"]) == ("test accuracy", "60.0 %", "80.0 %")
    assert tradeoff.info(store).on_front == {chosen["trial_id"]}
    assert run_query(store, "pareto")["trial_id"].to_pylist() == [chosen["trial_id"]]
    assert "reaches 60.0 % in test" in score_finding(cohort_of(store), configurations_of(store))


def test_storing_under_the_same_budget_stands_beside_a_recommendation(demo):
    points = configurations(demo.rows("trials"))
    stored = [c for c in points if c.rows[0]["strategy"] == "store"]
    for pick in recommend(demo.rows("trials")):
        fits = [c.score.mean for c in stored if c.peak_bytes <= pick.budget_bytes]
        if pick.choice.rows[0]["strategy"] == "store" or not fits:
            assert pick.stored is None
        else:
            assert pick.stored.score.mean == max(fits)


def test_numbers_read_well():
    assert [round_up(v) for v in (1_172_000, 2_000_000, 999, 8.1)] == [1.5e6, 2e6, 1000, 10]
    assert [bytes_text(v) for v in (0, 999, 12_340, 5e6, 1.5e9, None)] == [
        *("0 bytes", "999 bytes", "12.3 kB", "5.00 MB", "1.50 GB", "unknown")
    ]
    assert [error_text(v) for v in (0, 2.28e-6, 0.15, 3e-16)] == ["exactly 0", "2.3e-6", "1.5e-1", "3.0e-16"]
    assert [factor_text(v) for v in (1.333, 12.34, 130.2)] == ["1.33×", "12.3×", "130×"]
    assert points_text(Estimate(mean=-1e-9, low=-1e-3, high=1e-9, n=3)) == (
        "0.00 points (95 % interval -0.10 to 0.00, n = 3)"
    )
    assert [seconds_text(v) for v in (0.0123, 5, 600, 8000)] == ["12.3 ms", "5.00 s", "10 min", "2.2 h"]
