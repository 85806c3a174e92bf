"""The table of all ways to save memory: what is measured, what is beaten, and what the front covers."""

import json

import pytest
import torch

from benchmarks import contenders, strategies
from benchmarks.front import covered, hypervolume, placed, ratio
from benchmarks.subjects import SUBJECTS


def row(name, size, *times):
    return {"contender": name, "measured_bytes": size, "times_s": list(times)}


def test_what_is_beaten_is_told_with_what_beats_it():
    rows = [row("store", 100, 1.0), row("good", 40, 1.2), row("slow", 50, 1.5), row("small", 20, 1.6)]
    assert [(one.name, one.beaten_by) for one in placed(rows)] == [
        ("small", ""),
        ("good", ""),
        ("slow", "good"),
        ("store", ""),
    ]


def test_the_front_covers_the_share_of_the_rectangle_behind_it():
    assert hypervolume([]) == 0
    assert hypervolume([(0.5, 1.0)]) == pytest.approx(0.25)
    assert hypervolume([(0.5, 1.0), (0.25, 1.5)]) == pytest.approx(0.25 + 0.25 * 0.5 / 2)
    beaten, out_of_reach = (0.6, 1.2), (2.0, 0.1)
    assert hypervolume([(0.5, 1.0), beaten, out_of_reach]) == pytest.approx(0.25)
    assert covered(placed([row("store", 100, 1.0), row("good", 50, 1.0)])) == pytest.approx(0.25)


def test_ratios_are_taken_within_rounds():
    assert ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])[0] == 2.0


def test_rows_are_written_once_and_predicted_to_the_byte(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    wanted = ["reverse", "selective", "budget_selective"]
    arguments = ["--subjects", "small_lm", "--contenders", *wanted, "--rounds", "1", "--output", str(path)]
    assert strategies.main(arguments) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {r["contender"] for r in rows} == {"store", "twin_store", *wanted}
    assert all(r["predicted_bytes"] == r["measured_bytes"] > 0 and r["torch_version"] for r in rows)
    assert all(r["gradient_rel_error"] < 1e-8 for r in rows)
    assert "beaten by" in capsys.readouterr().out
    assert strategies.main(arguments) == 0
    assert "has rows" in capsys.readouterr().err
    assert len(path.read_text().splitlines()) == len(rows)


def test_a_budget_that_nothing_fits_into_is_told_and_left_out(capsys):
    small = SUBJECTS["small"]
    names = ["store", "budget_half"]
    assert strategies.within_reach(small, names, 2, torch.float64) == ["store"]
    assert "budget_half is left out: memory_budget_bytes: the smallest possible" in capsys.readouterr().err


def test_a_byte_of_difference_ends_the_benchmark(monkeypatch):
    small = SUBJECTS["small"]
    batch = small.data(4)
    (entry,) = contenders.enter(small, ["reverse"])
    predict = strategies.predict_memory

    def wrong(*arguments, **options):
        found = predict(*arguments, **options)
        return type(found)(**{**vars(found), "activation_bytes": found.activation_bytes + 1})

    monkeypatch.setattr(strategies, "predict_memory", wrong)
    with pytest.raises(SystemExit, match="small, reverse: predicted and measured bytes differ"):
        strategies.memory_row(small, entry, batch)
