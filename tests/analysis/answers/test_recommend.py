"""What may be recommended: faithful gradients, several seeds, and the smaller of two that are tied."""

from __future__ import annotations

import json
import math
import re

import pytest

from analysis.answers.findings import findings, memory_finding, precision_finding
from analysis.answers.precision import precision_verdicts
from analysis.answers.recommend import configurations, recommend
from analysis.answers.recommendation_text import answer, none_faithful, remarks
from analysis.answers.verdict import nearest, verdict
from analysis.cohort import Cohort
from analysis.faithful import GRADIENT_LIMIT, fidelity, rebuilds_nothing
from analysis.report.page import render_report
from analysis.score import ACCURACY, BITS_PER_BYTE, LOSS, score_of
from analysis.store.store import open_store


def seeds(new_trial, scores, **changes):
    """One configuration: a trial for each validation accuracy."""
    return [new_trial(seed=i, **{**changes, "accuracy_val": score}) for i, score in enumerate(scores)]


def positions(pick):
    return {i: n for n, i in enumerate(pick.choice.ids)}


@pytest.mark.parametrize("error", [0.0101, 0.05, 0.099, math.nan, math.inf])
def test_what_the_precision_section_calls_unsafe_is_recommended_nowhere(new_trial, error):
    """An error of 2 % was below the limit of the cards and above the limit of the section."""
    sound = seeds(new_trial, (0.90, 0.91, 0.92), memory_peak_bytes=900_000)
    rough = seeds(
        new_trial, (0.97, 0.98, 0.99), compute="bf16", gradient_rel_error=error, memory_peak_bytes=800_000
    )
    rows = [*sound, *rough]
    unsafe = {v.label for v in precision_verdicts(rows) if v.safe_to is None}
    assert unsafe == {"bf16"}
    (pick,) = recommend(rows)
    assert pick.choice.rows[0]["compute_dtype"] == "fp32"
    assert "Not recommended: revnet38, depth 38, width 1, reverse, bf16" in remarks(pick)[0]
    (near,) = nearest(configurations(rows))
    assert [c.rows[0]["compute_dtype"] for c in near.needs] == ["fp32"]
    assert "in 3 of them more than 1 %, which is not safe" in precision_finding(Cohort(rows))


def test_the_limit_itself_is_faithful(new_trial):
    assert fidelity([new_trial(gradient_rel_error=GRADIENT_LIMIT)]) == "faithful"
    assert fidelity([new_trial(), new_trial(seed=1, gradient_rel_error=0.02)]) == "unfaithful"
    assert fidelity([new_trial(strategy="store")]) == "exact"
    assert fidelity([new_trial(strategy="quantized")]) == "not probed"


def test_nothing_faithful_is_a_caution_and_no_card(new_trial):
    points = configurations(seeds(new_trial, (0.9, 0.8), gradient_rel_error=0.5))
    assert recommend([], points=points) == []
    (text,) = none_faithful(points)
    assert text.startswith("No configuration on digits has gradients within 1 % of the stored ones")
    assert "is off by 50 %" in text


def test_one_seed_makes_no_headline_where_others_have_more(tmp_path, new_trial, write):
    many = seeds(new_trial, (0.90, 0.91, 0.92), memory_peak_bytes=900_000)
    lucky = seeds(new_trial, (0.99,), width=2.0, memory_peak_bytes=800_000)
    (pick,) = recommend([*many, *lucky])
    assert pick.choice.score.n == 3
    (remark,) = remarks(pick)
    assert remark.startswith("Not recommended: revnet38, depth 38, width 2, reverse, fp32, reaches")
    assert remark.endswith("at 800 kB, because it has one seed, where others have more.")
    store = open_store(write(tmp_path, [*many, *lucky]))
    assert "width 1" in findings(store)[1] and "3 seeds" in findings(store)[1]
    (near,) = nearest(configurations([*many, *lucky]))
    assert near.best == pytest.approx(0.91)
    (alone,) = recommend(lucky)
    assert alone.choice.score.n == 1


def test_a_difference_below_the_spread_is_a_tie_and_the_smaller_is_named(new_trial):
    large = seeds(new_trial, (0.90, 0.92, 0.94), depth=38, memory_peak_bytes=9_000_000)
    small = seeds(new_trial, (0.90, 0.91, 0.93), depth=14, memory_peak_bytes=2_000_000)
    (pick,) = recommend([*large, *small])
    assert pick.choice.rows[0]["depth"] == 14
    both = recommend([*large, *seeds(new_trial, (0.70, 0.71, 0.72), depth=14, memory_peak_bytes=2_000_000)])
    assert [p.choice.rows[0]["depth"] for p in both] == [14, 38]
    assert not any(p.tied for p in both)


def test_of_equal_size_the_faster_is_named(new_trial):
    slow = seeds(new_trial, (0.90, 0.92, 0.94), width=1.0, memory_peak_bytes=1_990_000, step_time_s=2.0)
    fast = seeds(new_trial, (0.90, 0.91, 0.93), width=0.5, memory_peak_bytes=1_995_000, step_time_s=1.0)
    (pick,) = [p for p in recommend([*slow, *fast]) if p.tied]
    assert (pick.choice.rows[0]["width"], pick.by) == (0.5, "faster")
    told = answer(pick, positions(pick))["tie"]
    assert told.startswith("Tied with 1 other configuration: the best mean is 0.67 points away")
    assert told.endswith("This one is the fastest of the smallest.")


def nothing(new_trial, **changes):
    """A network of one unit a stage: probed, and nothing was rebuilt."""
    errors = dict.fromkeys(("reconstruction_rel_error", "gradient_rel_error", "gradient_angle_deg"))
    row = new_trial(strategy="reverse", **errors, **changes)
    return row | {"config_json": json.dumps({**json.loads(row["config_json"]), "probe": {"examples": 4}})}


def test_a_reversed_network_with_nothing_to_rebuild_says_so(new_trial):
    row = nothing(new_trial)
    assert rebuilds_nothing(row) and fidelity([row]) == "exact"
    (pick,) = recommend([row])
    assert answer(pick, positions(pick))["error"] == "none, nothing to rebuild"
    ok = Cohort([row, new_trial(strategy="store")])
    assert "1 trial set to reverse with nothing to rebuild" in memory_finding(ok)
    assert "1 trial set to reverse had nothing to rebuild" in precision_finding(ok)


def test_a_reversed_network_that_nobody_probed_is_no_such_network(new_trial):
    row = new_trial(gradient_rel_error=None, reconstruction_rel_error=None)
    assert not rebuilds_nothing(row)
    (pick,) = recommend([row])
    assert answer(pick, positions(pick))["error"] == "not probed"
    stored = new_trial(strategy="store", accuracy_val=0.1, memory_peak_bytes=row["memory_peak_bytes"] - 1)
    (beside,) = recommend([row, stored])
    assert beside.choice.rows[0]["strategy"] == "store"
    assert "were not compared with the stored ones" in remarks(beside)[0]


def language(new_trial, strategy, seed, bits, **changes):
    """A trial of a language model: no column of accuracy."""
    none = dict.fromkeys(("accuracy_train", "accuracy_val", "accuracy_test"))
    return new_trial(
        strategy=strategy, seed=seed, family="revgpt", task="language", data="text",
        bits_per_byte_train=bits, bits_per_byte_val=bits, bits_per_byte_test=bits + 0.5,
        bigram_bits_per_byte=3.8829, gradient_rel_error=1e-6 if strategy == "reverse" else None,
        **none, **changes,
    )  # fmt: skip


@pytest.fixture
def texts(new_trial):
    """Reversing is 0.02 bits per byte worse than storing, and takes half the memory."""
    return [
        language(new_trial, s, i, 2.0 + i / 1000 + (0.02 if s == "reverse" else 0), memory_peak_bytes=m)
        for s, m in (("store", 8_000_000), ("reverse", 4_000_000))
        for i in range(4)
    ]


def test_a_language_model_is_judged_by_bits_per_byte_and_lower_is_better(tmp_path, texts, write):
    assert {score_of(row) for row in texts} == {BITS_PER_BYTE}
    picks = recommend(texts)
    assert [p.choice.rows[0]["strategy"] for p in picks] == ["reverse", "store"]
    assert picks[1].choice.score.mean < picks[0].choice.score.mean
    told = answer(picks[0], positions(picks[0]))
    assert (told["metric"], told["score"]) == ("test bits per byte", "2.5215")
    word, text = verdict(texts)
    assert word == "Store where bits per byte count."
    assert "changes test bits per byte by +0.0200 (95 % interval" in text
    score = findings(open_store(write(tmp_path, texts)))[1]
    assert score.startswith("Bits per byte: reversing changes test bits per byte by +0.0200")
    assert "a bigram count model of the text takes 3.8829 bits per byte in validation" in score
    assert score.endswith("(lower is better).")


def test_a_task_of_ones_own_is_judged_by_its_loss(new_trial):
    own = new_trial(task="mine.tasks:Denoise", accuracy_val=None, accuracy_test=None)
    assert score_of(own) is LOSS
    assert score_of(new_trial()) is score_of(new_trial(task="classification")) is ACCURACY


def test_the_report_of_language_models_has_not_a_word_on_accuracy(tmp_path, texts, write):
    page = render_report(open_store(write(tmp_path, texts)))
    body = page[page.index("<body>") : page.index('<script type="application/json" id="payload">')]
    read = re.sub(r"<[^>]*>", "", body)
    assert "accuracy" not in read.lower()
    assert "bits per byte" in read
    drawn = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)[1]
    figures = json.loads(drawn.replace("accuracy_depth", "by_depth"))
    assert "accuracy" not in json.dumps(figures)
    assert figures["tradeoff"]["layout"]["yaxis"]["title"]["text"] == "validation bits per byte"
