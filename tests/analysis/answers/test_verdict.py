from __future__ import annotations

import pytest

from analysis.answers.recommend import configurations
from analysis.answers.verdict import near_text, nearest, twins, verdict
from analysis.report.page import render_report
from analysis.store.store import open_store


def both(new_trial, *, gain=0.0, seeds=4, **reversed_columns):
    """Pairs that differ in reversing alone; reversing scores `gain` more."""
    rows = []
    for seed in range(seeds):
        stored = new_trial(strategy="store", seed=seed, accuracy_test=0.9 + seed / 1000, accuracy_val=0.9)
        rows.append(stored)
        changes = {"accuracy_test": stored["accuracy_test"] + gain, "accuracy_val": 0.9 + gain}
        rows.append(new_trial(strategy="reverse", seed=seed, **{**changes, **reversed_columns}))
    return rows


def test_reversing_that_costs_no_accuracy_is_recommended_with_intervals_and_n(demo):
    found = twins(demo.rows("trials"))
    assert (found.memory.n, found.time.n, found.score.n) == (36, 36, 36)
    assert found.memory.low < found.memory.mean < found.memory.high < 1
    word, text = verdict(demo.rows("trials"))
    assert word == "Reverse where memory is short."
    assert text.count("n = 36") == 3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "Reverse where memory is short."),
        ({"gain": -0.03}, "Store where accuracy counts."),
        ({"seeds": 2}, "Reverse where memory is short, with care."),
        ({"memory_peak_bytes": 10**9}, "Store."),
    ],
)
def test_the_word_follows_the_evidence(new_trial, changes, word):
    found, text = verdict(both(new_trial, **changes))
    assert found == word
    doubtful = "gain" in changes or "seeds" in changes
    assert ("a loss of one point or more is not ruled out" in text) == doubtful


def test_without_pairs_there_is_no_verdict(new_trial):
    assert verdict([]) == ("", "")
    assert verdict([new_trial(), new_trial(strategy="store", seed=1)]) == ("", "")
    assert verdict([{**row, "outcome": "oom"} for row in both(new_trial)]) == ("", "")
    other_source = [{**r, "memory_source": r["strategy"]} for r in both(new_trial)]
    assert verdict(other_source) == ("", "")  # the two were not measured alike


def test_trials_cut_short_are_left_out_and_counted(tmp_path, new_trial, write):
    cut = [
        new_trial(seed=9 + i, outcome=outcome, accuracy_val=1.0, accuracy_test=1.0, memory_peak_bytes=1)
        for i, outcome in enumerate(("pruned", "timeout", "timeout"))
    ]
    whole = both(new_trial)
    store = open_store(write(tmp_path, [*whole, *cut]))
    assert verdict(store.rows("trials")) == verdict(whole)
    page = render_report(store)
    assert "Left out of these numbers: 3 trials cut short or failed (1 pruned, 2 timeout)." in page
    assert "up to</span> 1 bytes" not in page
    assert "3 trials not drawn" in page


def test_the_smallest_that_comes_near_is_named_by_strategy(demo):
    points = configurations(demo.rows("trials"))
    (near,) = nearest(points)
    sound = [c for c in points if not c.unfaithful]
    assert near.best == max(c.score.mean for c in sound)
    assert any(c.unfaithful and c.peak_bytes < near.needs[0].peak_bytes for c in points)
    for need in near.needs:
        strategy = need.rows[0]["strategy"]
        rivals = [
            c.peak_bytes
            for c in points
            if c.rows[0]["strategy"] == strategy and c.score.mean >= near.best - 0.01 and not c.unfaithful
        ]
        assert need.peak_bytes == min(rivals)
    text = near_text(near)
    assert text.startswith("To come within one point of the best validation accuracy on digits")
    assert "3 seeds" in text


def test_unfaithful_gradients_come_near_nothing(new_trial):
    rows = both(new_trial, gradient_rel_error=0.5)
    (near,) = nearest(configurations(rows))
    assert [c.rows[0]["strategy"] for c in near.needs] == ["store"]
    assert near.short == ("reverse",)
    assert "No configuration came as near by reversing with gradients within 1 %." in near_text(near)
    assert nearest(configurations([new_trial(gradient_rel_error=float("nan"))])) == []


def test_one_strategy_alone_is_told_what_is_missing(new_trial):
    (near,) = nearest(configurations([new_trial()]))
    assert "No other strategy was tried" in near_text(near)
