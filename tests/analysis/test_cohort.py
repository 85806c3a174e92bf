"""Comparable trials are found by column as a twin finds them row by row, and parts keep the order of rows."""

import itertools
import json
import random

import numpy as np
import pytest

from analysis.cohort import Cohort
from analysis.documents import flat_config, settings_of


def alike(one, other, *free, same=()):
    """Whether two trials agree in everything but some factors."""
    first, second = Cohort([one, other]).keys(*free, same=same).tolist()
    return first == second


@pytest.mark.parametrize("column", ["learning_rate", "batch_size", "data", "epochs", "workers", "width"])
def test_trials_of_other_settings_are_no_twins(new_trial, column):
    one = new_trial()
    other = new_trial(**{column: {"data": "cifar10"}.get(column, 7)})
    assert not alike(one, other, "seed")


def test_a_setting_that_has_no_column_of_its_own_parts_trials_too(new_trial):
    one = new_trial(config_json='{"train": {"momentum": 0.9}, "seed": 0}')
    other = new_trial(config_json='{"train": {"momentum": 0.0}, "seed": 0}')
    assert not alike(one, other, "seed")
    reseeded = new_trial(seed=3, config_json='{"train": {"momentum": 0.9}, "seed": 3}')
    assert alike(one, reseeded, "seed")


@pytest.mark.parametrize("text", [None, "", "not json", "[1, 2]", "3"])
def test_settings_that_cannot_be_parsed_leave_the_columns(new_trial, text):
    assert alike(new_trial(config_json=text, seed=1), new_trial(config_json=text, seed=2), "seed")


COLUMNS = (
    *("data", "examples_train", "model", "family", "block", "depth", "width", "strategy", "compute_dtype"),
    *("stream_dtype", "coupling", "matmul", "batch_size", "epochs", "optimizer", "learning_rate"),
    *("weight_decay", "schedule", "workers"),
)


def twin_key(row, same):
    """The key of one row when only the seed may differ, written out."""
    settings = [
        pair for pair in flat_config(row["config_json"]) if pair[0].split(".")[0] not in ("seed", "probe")
    ]
    values = [row[name] for name in (*COLUMNS, *same)]
    return tuple("tracker" if value == "cpu_allocator" else value for value in values), tuple(settings)


def test_keys_are_equal_where_a_twin_finds_rows_equal(new_trial):
    random.seed(0)
    rows = []
    for number in range(300):
        settings = {
            "train": {"momentum": random.choice([0, 0.0, 0.9, True]), "betas": random.choice([[1], []])}
        }
        if random.random() < 0.5:
            settings["memory"] = random.choice([{}, {"anchor": None}])
        rows.append(
            new_trial(
                seed=number,
                depth=random.choice([14, 26]),
                config_json=json.dumps(settings),
                memory_source=random.choice(["tracker", "cpu_allocator", "cuda_allocator", None]),
            )
        )
    keys = Cohort(rows).keys("seed", same=("memory_source",)).tolist()
    expected = [twin_key(row, ("memory_source",)) for row in rows]
    assert len(set(expected)) > 50
    for one, other in itertools.combinations(range(len(rows)), 2):
        assert (keys[one] == keys[other]) == (expected[one] == expected[other])


def test_keys_stay_exact_where_combinations_pass_the_largest_integer(new_trial):
    rows = [
        new_trial(seed=0, config_json=json.dumps({f"s{place}": (number >> place) & 1 for place in range(80)}))
        for number in [random.Random(1).getrandbits(80) for _ in range(200)] * 2
    ]
    rows += [new_trial(seed=0, config_json=json.dumps({f"s{place}": 0 for place in range(80)}))]
    keys = Cohort(rows).keys("seed").tolist()
    assert len(set(keys)) == len({row["config_json"] for row in rows})


def test_a_part_keeps_the_order_of_its_rows_and_the_keys_of_the_whole(new_trial):
    rows = [new_trial(depth=depth, seed=seed) for seed in range(3) for depth in (38, 14)]
    whole = Cohort(rows)
    part = whole.where(whole.numbers("depth") == 14)
    assert [row["seed"] for row in part] == [0, 1, 2]
    assert part[0] is rows[1]
    assert part[1:][0] is rows[3]
    assert [[row["depth"] for row in group] for group in whole.alike("seed")] == [[38] * 3, [14] * 3]
    assert [len(group) for group in part.alike("seed")] == [3]
    assert list(whole.by("depth", "seed")) == [(row["depth"], row["seed"]) for row in rows]
    assert list(whole.grouped(lambda row: row["depth"])) == [38, 14]
    assert Cohort([]).alike("seed") == []
    assert len(whole.where(whole.having("depth", lambda depth: depth > 20))) == 3


def test_numbers_are_nan_where_a_cell_holds_no_finite_number(new_trial):
    values = [1, 2.5, None, float("nan"), float("inf"), True]
    cohort = Cohort([new_trial(accuracy_val=value) for value in values])
    np.testing.assert_equal(cohort.numbers("accuracy_val"), [1, 2.5, *[np.nan] * 4])
    assert cohort.finite("accuracy_val", "depth").tolist() == [True, True, *[False] * 4]
    assert cohort.positive("accuracy_val").tolist() == [True, True, *[False] * 4]
    assert [row["accuracy_val"] for row in cohort.ended_ok("accuracy_val")] == [1, 2.5]


def test_settings_by_path_are_those_of_each_document():
    texts = ['{"a": {"b": 1, "c": []}, "d": true}', '{"a": {"b": 1.0}}', None, "[1]", '{"a": {}, "d": "x"}']
    found = settings_of(texts)
    for number, text in enumerate(texts):
        words = {path: one.words[one.codes[number]] for path, one in found.items()}
        assert tuple((p, w) for p, w in words.items() if w is not None) == flat_config(text)
