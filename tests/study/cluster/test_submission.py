"""What is sent to a cluster: ids that mean the same, files that may be sent, a driver that is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from study.cluster.submission import ENTRYPOINT, STUDY_FILE, Submission, files_of, submission_id
from study.errors import StudyError
from study.spec.load import parse_study
from study.spec.yaml_file import read_yaml


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with things to send and things to keep."""
    root = tmp_path / "project"
    for name in (
        "images/a/1.png",
        "notes.md",
        ".env",
        ".venv/lib/x.py",
        "pkg/__pycache__/m.pyc",
        "results/study=old/trials/1.parquet",
        "drafts/big.bin",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 1000)
    return root


def test_the_id_is_of_the_study_and_the_store(make_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = make_study()
    name = submission_id(study, "store")
    assert name.startswith("revstudy-small-")
    assert name == submission_id(make_study(), tmp_path / "store")
    others = {
        submission_id(study, "other"),
        submission_id(make_study(seeds=[1]), "store"),
        submission_id(make_study(name="other"), "store"),
    }
    assert len({name, *others}) == 4


def names(folder: Path, exclude: tuple[str, ...] = ()) -> set[str]:
    return {name for name, _ in files_of(folder, exclude)}


def test_hidden_files_caches_and_stores_stay_here(folder):
    assert names(folder) == {"images/a/1.png", "notes.md", "drafts/big.bin"}
    assert names(folder, ("drafts/",)) == {"images/a/1.png", "notes.md"}
    assert names(folder, ("*.bin", "images/*/1.png")) == {"notes.md"}


def test_what_git_ignores_stays_here(folder):
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / ".gitignore").write_text("drafts/\n")
    assert names(folder) == {"images/a/1.png", "notes.md"}


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StudyError, match="must be a folder"):
        list(files_of(tmp_path / "nowhere"))


def test_what_is_staged_is_the_study_the_script_and_the_folder(make_study, folder, tmp_path):
    submission = Submission(study=make_study(), store="s3://bucket/results", folder=folder)
    staged = tmp_path / "staged"
    staged.mkdir()
    files, size = submission.stage(staged)
    assert (files, size > 3000) == (4, True)
    assert (staged / "images/a/1.png").read_bytes() == b"x" * 1000
    assert not (staged / ".env").exists()
    assert parse_study(read_yaml(staged / STUDY_FILE)) == submission.study


def test_an_upload_that_is_too_large_names_the_largest_files(make_study, folder, tmp_path):
    (folder / "drafts" / "big.bin").write_bytes(b"x" * 1_500_000)
    with pytest.raises(StudyError, match=r"drafts/big\.bin \(1\.5 MB\)") as raised:
        Submission(study=make_study(), store="s", folder=folder, max_upload_mb=1).stage(tmp_path)
    assert "--exclude" in str(raised.value)
    assert raised.value.exit_code == 2


def run_script(submission: Submission, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    submission.stage(folder)
    return subprocess.run(
        ENTRYPOINT,
        shell=True,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_driver_runs_the_study_and_its_exit_code_is_the_script_s(make_study, tmp_path):
    """On a store that cannot be made, so that it ends before Ray."""
    (tmp_path / "file").touch()
    root = str(Path(__file__).parents[3])
    done = run_script(
        Submission(study=make_study(), store=str(tmp_path / "file")), tmp_path / "job", PYTHONPATH=root
    )
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_a_head_node_without_a_fitting_python_says_so(make_study, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    done = run_script(Submission(study=make_study(), store="s"), tmp_path / "job", PATH=str(tools))
    assert done.returncode == 4
    assert "--python" in done.stderr


def test_an_interpreter_that_is_named_is_the_one(make_study):
    script = Submission(study=make_study(), store="/s t", python="/opt/my python").script()
    assert script == f"exec '/opt/my python' -P -m study.cli run {STUDY_FILE} --store '/s t'\n"


def test_the_job_s_environment_holds_no_secret(make_study, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "very-secret-token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-key")
    environment = Submission(study=make_study(), store="s").runtime_env(tmp_path)
    assert "very-secret" not in json.dumps(environment)
    assert environment["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGTERM"
    assert {Path(module).name for module in environment["py_modules"]} == {"analysis", "revmodels", "study"}


def test_rows_name_the_commit_that_code_was_sent_from(monkeypatch):
    from study import provenance

    values = {"git_commit": "abc", "git_dirty": True, "revstudy_version": "9.9"}
    monkeypatch.setenv(provenance.SHIPPED, json.dumps(values))
    provenance._git.cache_clear()
    try:
        row = provenance.provenance()
    finally:
        provenance._git.cache_clear()
    assert {name: row[name] for name in values} == values
    assert json.loads(provenance.shipped_as()[provenance.SHIPPED]).keys() == values.keys()


def test_relative_data_is_warned_of_unless_its_folder_is_sent(make_study, folder):
    (folder / "images").mkdir(exist_ok=True)
    study = make_study(space={"data.name": {"grid": ["folder:images", "folder:/abs/images", "digits"]}})
    plain = Submission(study=study, store="s")
    (warning,) = plain.warnings()
    assert "data in images:" in warning
    assert "--working-dir" in warning
    assert replace(plain, folder=folder).warnings() == []
