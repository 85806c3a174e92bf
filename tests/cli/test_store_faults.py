"""Stores that are damaged, full or read-only: a clear line, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.store.reader import read_rows


@pytest.fixture
def small_disk(tmp_path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system of its own, and a function that mounts it anew with other options."""

    def mount(*arguments: str) -> bool:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0

    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() or not mount("-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder)):
        pytest.skip("this user may not mount a file system")
    try:
        yield folder, lambda options: mount("-o", f"remount,{options}", str(folder))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(
    ray_cluster, revstudy, write_study, small_disk
):
    disk, remount = small_disk
    study = write_study(
        name="many",
        data={"name": "digits", "train_examples": 64, "test_examples": 32},
        model={"width": 0.25, "depth": 14},
        train={"epochs": 1, "batch_size": 32},
        seeds=list(range(10)),
    )
    answer = revstudy("run", study, "--store", disk / "store")
    assert answer.code == 3, answer.err
    assert "No space left on device" in answer.err
    assert "--store" in answer.err
    assert "Traceback" not in answer.err
    before = read_rows(disk / "store")
    assert 1 <= len(before) < 10
    assert {row["outcome"] for row in before.values()} == {"ok"}
    remount("size=16m")
    answer = revstudy("run", study, "--store", disk / "store", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert (said["already_done"], said["outcomes"]) == (len(before), {"ok": 10 - len(before)})
    assert before.items() <= read_rows(disk / "store").items()


def test_a_read_only_store_can_be_asked_but_not_added_to(revstudy, smoke, small_disk, write_study):
    disk, remount = small_disk
    remount("size=16m")
    shutil.copytree(smoke[1], disk / "store")
    remount("ro")
    for verb in (["status"], ["query", "SELECT count(*) FROM trials"], ["plan", "smoke"]):
        answer = revstudy(*verb, "--store", disk / "store")
        assert answer.code == 0, answer.err
    study = write_study(name="new", train={"epochs": 1})
    for verb in (["run", study, "--address", "127.0.0.1:1"], ["compact"]):
        answer = revstudy(*verb, "--store", disk / "store")
        assert answer.code == 3, (verb, answer.err)
        assert "Read-only file system" in answer.err
        assert "Traceback" not in answer.err


def test_a_torn_row_is_named_and_trained_again(ray_cluster, revstudy, smoke, store):
    shutil.copytree(smoke[1], store)
    torn, *whole = sorted(store.glob("study=smoke/trials/*.parquet"))
    content = torn.read_bytes()
    torn.write_bytes(content[: len(content) // 2])
    (torn.parent / "notes.txt").write_text("mine")
    before = {file: file.read_bytes() for file in whole}
    status = revstudy("status", "--store", store)
    assert status.code == 0
    assert "torn" in status.err
    assert torn.name in status.err
    answer = revstudy("run", "smoke", "--store", store, "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert (said["already_done"], said["outcomes"]) == (2, {"ok": 1})
    assert {file: file.read_bytes() for file in whole} == before
    assert (torn.parent / "notes.txt").read_text() == "mine"
    again, original = read_rows(store), read_rows(smoke[1])
    assert again.keys() == original.keys()
    for trial_id, row in original.items():
        assert again[trial_id]["loss_test"] == row["loss_test"]
