"""`revstudy fit` and `revstudy frontier` on stores whose law is known."""

from __future__ import annotations

import json

import pytest

from study.cli.frontier import bytes_from
from study.errors import StudyError
from study.spec.load import parse_study
from study.store.writer import write_study
from tests.analysis.laws.known_law import TRUTH, write_law
from tests.cli.test_imports import imported


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    return write_law(tmp_path_factory.mktemp("law") / "store")


@pytest.mark.parametrize("verb", ["fit", "frontier"])
def test_help_has_an_example(revstudy, verb):
    answer = revstudy(verb, "--help")
    assert answer.code == 0
    assert f"revstudy {verb}" in answer.out.partition("Example")[2]
    assert "--json" in answer.out


def test_a_known_law_is_printed_with_its_intervals_and_the_rung_held_out(revstudy, law):
    answer = revstudy("fit", "law", "--store", law, "--json", "--resamples", 100)
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["law"]["a"]["value"] == pytest.approx(TRUTH["a"], abs=0.02)
    assert found["law"]["a"]["low"] < found["law"]["a"]["value"] < found["law"]["a"]["high"]
    assert abs(found["held_out"]["error"]) < 0.02
    text = revstudy("fit", "law", "--store", law, "--resamples", 100).out
    assert "The largest rung, 1.02e+09 parameters, predicted from the others" in text
    assert f"{found['law']['E']['value']:.4g}" in text


def test_two_columns_are_fitted(revstudy, law):
    options = ("--x", "parameters", "--y", "loss_val", "--by", "tokens_seen", "--json")
    found = json.loads(revstudy("fit", "law", "--store", law, *options).out)
    assert len(found["relations"]) == 5
    assert all(one["power"]["value"] < 0 for one in found["relations"])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--loss", "accuracy"], 2, "loss_val"),
        (["--evaluations", "some"], 2, "choose one of auto, final, all"),
        (["--where", "nonsense > 1"], 2, "nonsense"),
        (["--where", "seed > 9"], 2, "no trial for which seed > 9 holds"),
        (["--x", "depth"], 2, "--x and --y go together"),
        (["--x", "depht", "--y", "loss_val"], 2, "did you mean 'depth'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(revstudy, law, options, code, message):
    answer = revstudy("fit", "law", "--store", law, *options)
    assert (answer.code, "Traceback" in answer.err) == (code, False)
    assert message in answer.err


def test_a_store_that_is_not_there_and_a_study_without_a_law(revstudy, tmp_path):
    assert revstudy("fit", "law", "--store", tmp_path / "none").code == 3
    store = write_law(tmp_path / "store", sizes=(10**6,), data=(10**8,))
    answer = revstudy("fit", "law", "--store", store, "--evaluations", "final")
    assert answer.code == 2
    assert "at least six rows" in answer.err


def test_fit_imports_neither_torch_nor_ray(law):
    assert not imported("fit", "law", "--store", law) & {"torch", "ray", "optuna", "pandas", "plotly"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Rows of a known law in the sizes of small language models, with the study that they belong to."""
    store = tmp_path_factory.mktemp("tiny") / "store"
    write_law(
        store,
        study="tiny",
        sizes=(12_640, 50_000, 200_000, 800_000),
        data=(10**6, 4 * 10**6, 16 * 10**6),
        seeds=(0,),
        model="revgpt_1m",
        depth=2,
        width=0.25,
    )
    spec = {
        "name": "tiny",
        "data": {"name": "markov:2", "context_length": 32},
        "model": {"name": "revgpt_1m"},
        "memory": {"strategy": "store"},
        "train": {"batch_size": 8, "optimizer": "adamw", "learning_rate": 0.004, "steps": 10},
    }
    write_study(store, parse_study(spec).to_dict())
    return store


SHAPES = ("--depth", "1,2", "--width", "0.25,0.5")


def test_what_to_train_is_answered_with_its_loss_bytes_and_runner_up(revstudy, tiny):
    options = ("--study", "tiny", "--store", tiny, "--flops", "3e12", *SHAPES)
    rich = revstudy("frontier", "--memory", "1GB", *options, "--json")
    assert rich.code == 0, rich.err
    found = json.loads(rich.out)
    assert found["best"]["strategy"] == "store"
    assert found["best"]["memory_bytes"] <= 1e9
    assert found["best"]["low"] < found["best"]["loss"] < found["best"]["high"]
    assert found["runner_up"]["loss"] >= found["best"]["loss"]
    assert len(found["candidates"]) == 12
    least = min(one["memory_bytes"] for one in found["candidates"] if one["strategy"] == "store")
    poor = revstudy("frontier", "--memory", str(least - 1), *options)
    assert poor.code == 0, poor.err
    assert "Within" in poor.out
    assert "  store: " not in poor.out  # nothing that stores fits


def test_a_budget_far_beyond_the_rows_is_refused_unless_asked_for(revstudy, tiny):
    options = ("--study", "tiny", "--store", tiny, "--memory", "1GB", "--flops", "1e18", *SHAPES)
    answer = revstudy("frontier", *options)
    assert answer.code == 2
    assert "times beyond what the law has seen" in answer.err
    assert revstudy("frontier", *options, "--extrapolate").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "24 parsecs", "--flops", "1e12"], "must be a size in bytes"),
        (["--memory", "1kB", "--flops", "3e12", *SHAPES], "no candidate fits 1,000 bytes"),
        (["--memory", "1GB", "--flops", "3e12", "--depth", "2"], "go together"),
        (["--memory", "1GB", "--flops", "3e12", "--depth", "two", "--width", "1"], "numbers above 0"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(revstudy, tiny, options, message):
    answer = revstudy("frontier", "--study", "tiny", "--store", tiny, *options)
    assert (answer.code, "Traceback" in answer.err) == (2, False)
    assert message in answer.err


def test_sizes_are_read_as_people_write_them():
    assert bytes_from("80GiB") == 80 * 2**30
    assert bytes_from("1.5 MB") == 1.5e6
    assert bytes_from("1e9") == 1e9
    for wrong in ("24 parsecs", "-3GB", "", "0MB"):
        with pytest.raises(StudyError, match="must be a size in bytes"):
            bytes_from(wrong)
