import json

import pytest
from typer.testing import CliRunner

from analysis.store.store import open_store
from study.cli.main import app
from study.errors import StudyError
from study.notes import add_note
from study.store.rows import TrialResult
from study.store.writer import write_result, write_study

TRIAL, OTHER = "a" * 16, "b" * 16


@pytest.fixture
def store(tmp_path):
    for name in (TRIAL, OTHER):
        write_result(
            tmp_path, TrialResult(trial={"trial_id": name, "study": "s", "attempt": 0, "outcome": "ok"})
        )
    return tmp_path


def test_notes_are_added_beside_the_rows_which_stay_as_they_are(store):
    rows = {path: path.read_bytes() for path in store.rglob("*.parquet")}
    add_note(store, TRIAL, " the fan was broken ")
    add_note(store, "aaaa", "and was mended")
    add_note(store, OTHER, "nothing")
    opened = open_store(store)
    assert [(n.trial_id, n.study) for n in opened.notes()] == [(TRIAL, "s"), (TRIAL, "s"), (OTHER, "s")]
    assert [n.text for n in opened.notes()][:2] == ["the fan was broken", "and was mended"]
    assert {path: path.read_bytes() for path in store.rglob("*.parquet")} == rows
    assert opened.skipped == () and len(opened.rows("trials")) == 2


def test_a_damaged_note_says_so_and_hides_no_other(store):
    add_note(store, TRIAL, "whole")
    (store / "study=s" / "notes" / f"{OTHER}-00000000.json").write_text("{")
    told = {n.trial_id: n.text for n in open_store(store).notes()}
    assert told[TRIAL] == "whole" and told[OTHER].startswith("(a damaged note: ")


@pytest.mark.parametrize(("trial", "text"), [("c", "x"), ("", "x"), (TRIAL, " "), (TRIAL, "x" * 10_001)])
def test_a_note_about_nothing_or_of_nothing_is_refused(store, trial, text):
    with pytest.raises(StudyError):
        add_note(store, trial, text)
    assert open_store(store).notes() == ()


def test_the_verb_writes_shows_and_refuses(store):
    def run(*arguments):
        return CliRunner().invoke(app, ["note", *arguments, "--store", str(store)])

    assert run("aaaa", "looked at the curves: fine").exit_code == 0
    shown = run("--json")
    assert [n["text"] for n in json.loads(shown.stdout)] == ["looked at the curves: fine"]
    assert "No notes" in run("bbbb").stdout
    assert isinstance(run("cccc", "text").exception, StudyError)


def test_tags_are_kept_with_the_study_and_shown_by_status(store):
    write_study(store, {"name": "s", "description": "What it asks.", "tags": ["cifar", "twins"]}, [TRIAL])
    (told,) = json.loads(CliRunner().invoke(app, ["status", "--json", "--store", str(store)]).stdout)[
        "studies"
    ]
    assert (told["description"], told["tags"]) == ("What it asks.", ["cifar", "twins"])
    assert "s [cifar, twins]: " in CliRunner().invoke(app, ["status", "--store", str(store)]).stdout
