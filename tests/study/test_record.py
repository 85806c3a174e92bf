"""A study of a known name: the same, or extended, or refused with what is different."""

from __future__ import annotations

import json

import pytest

from study.errors import StudyError
from study.record import differences, extended, read_record
from study.store.writer import write_study


def kept(store, study, **how):
    beside = extended(read_record(store, study.name), study, store, **{"extend": False, **how})
    write_study(store, study.to_dict(), ["a" * 16], planned=1, beside=beside)
    return read_record(store, study.name)


def test_the_same_study_again_is_the_same(store, make_study):
    first = kept(store, make_study())
    assert kept(store, make_study()) == first
    assert first["written"]["revstudy_version"]
    again = make_study(description="more words", budget={"trials": 3}, scales={"s": {"train": {"epochs": 1}}})
    assert kept(store, again)["written"] == first["written"]


def test_other_content_is_refused_with_the_difference_and_nothing_changes(store, make_study):
    before = kept(store, make_study())
    other = make_study(train={"epochs": 3, "batch_size": 64, "learning_rate": 0.05}, seeds=[0, 1])
    with pytest.raises(StudyError) as caught:
        kept(store, other)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert "has a study 'small' of other content" in text
    assert "--extend" in text
    assert "train.epochs: the study in the store has 2; received 3" in text
    assert "seeds: the study in the store has [0]; received [0, 1]" in text
    assert read_record(store, "small") == before


def test_an_extended_study_remembers_what_it_said_before(store, make_study):
    first = kept(store, make_study())
    second = kept(store, make_study(seeds=[0, 1]), extend=True)
    third = kept(store, make_study(seeds=[0, 1, 2]), extend=True)
    assert [said["seeds"] for said in third["earlier"]] == [[0], [0, 1]]
    assert third["earlier"][0]["written"] == first["written"]
    assert second["earlier"][0]["planned"] == 1
    assert third["seeds"] == [0, 1, 2]


def test_a_setting_that_did_not_exist_yet_counts_as_its_default(store, make_study):
    study = make_study()
    record = kept(store, study)
    del record["train"]["schedule"]
    record.pop("written")
    assert differences(record, study) == []
    record["train"]["schedule"] = "constant" if study.train.schedule != "constant" else "cosine"
    assert [path for path, _, _ in differences(record, study)] == ["train.schedule"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000])
def test_a_damaged_record_counts_for_nothing(store, make_study, content):
    kept(store, make_study())
    file = store / "study=small" / "study.json"
    file.write_bytes(content)
    kept(store, make_study(seeds=[5]))
    assert json.loads(file.read_text())["seeds"] == [5]
