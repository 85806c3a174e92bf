"""Machines of a cluster that cannot run trials: each is named before the first one starts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import study as study_package
from study.cluster.nodes import check_nodes, judge
from study.cluster.reach import ClusterError
from study.cluster.session import LOOPBACK
from study.cluster.survey import survey
from study.errors import StoreError
from study.provenance import versions
from tests.cli.conftest import finish, start, write_study

__all__ = ["write_study"]


def test_a_cluster_that_is_fit_is_left_as_it_was(ray_cluster, store):
    store.mkdir()
    (store / ".mine").touch()
    check_nodes(str(store))
    assert [file.name for file in store.iterdir()] == [".mine"]


def test_a_doctor_sees_what_each_machine_of_a_cluster_has(ray_cluster, store):
    store.mkdir()
    (node,) = survey(str(store))
    assert node.problems == () and node.cpus >= 1 and node.memory_bytes and node.versions
    assert abs(node.clock_s) <= node.clock_error_s + 0.5
    assert node.bytes_per_s is None and not list(store.iterdir())


def test_a_store_that_one_machine_lacks_is_a_fault_of_the_store(store):
    fit = {"versions": versions()}
    judge({"node a": fit}, str(store))
    with pytest.raises(StoreError, match="node b: the store must be one and the same") as raised:
        judge({"node a": fit, "node b": {**fit, "unseen": True}}, str(store))
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"late": True}, "node b: every machine must run a task; received 'no answer in 90 s'"),
        ({"error": "ModuleNotFoundError: torch"}, "node b: revstudy must be importable.*torch.*install"),
        ({"versions": {**versions(), "torch": "1.0"}}, "node b: every machine must have.*torch 1.0 instead"),
    ],
)
def test_a_machine_that_cannot_run_trials_is_a_fault_of_the_cluster(store, answer, message):
    unseen = {"versions": versions(), "unseen": True}
    with pytest.raises(ClusterError, match=message) as raised:
        judge({"node b": answer, "node c": unseen}, str(store))
    assert raised.value.exit_code == 4
    assert "node c: the store must be one and the same" in str(raised.value)


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[tuple[str, Callable[..., None]]]:
    """The address of a cluster, and a function that adds a machine with mounts of its own to it."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # set in this process for an earlier cluster
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not have mounts of its own")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="rs-", dir="/tmp")  # short, for the sockets of Ray in it
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
    # A Ray of our own, started before by this process, takes no other machines.
    # Nor does it ask for the token that an earlier Ray of this user may have left.
    inherited = {name: value for name, value in os.environ.items() if name not in LOOPBACK}
    inherited["RAY_AUTH_MODE"] = "disabled"
    machines: list[subprocess.Popen[bytes]] = []

    def add(*arguments: str, name: str, mount: str = "true", **environment: str) -> None:
        log = tmp_path / f"{name}.log"
        with log.open("wb") as output:
            command = shlex.join([*ray, f"--node-name={name}", *arguments])
            machines.append(
                subprocess.Popen(
                    ["unshare", "--mount", "sh", "-c", f"{mount} && exec {command}"],
                    env={**inherited, **environment},
                    stdout=output,
                    stderr=output,
                )
            )
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert machines[-1].poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    try:
        ports = ("--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}")
        add("--head", f"--port={port}", "--include-dashboard=false", *ports, name="head")
        address = f"127.0.0.1:{port}"
        yield address, lambda **how: add(f"--address={address}", **how)
    finally:
        for machine in reversed(machines):
            machine.terminate()
        for machine in machines:
            machine.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(420)
def test_machines_without_the_store_or_the_package_are_named(cluster, write_study, store):
    address, add = cluster
    store.mkdir()
    study = write_study(
        name="nodes",
        data={"name": "digits", "train_examples": 64, "test_examples": 32},
        model={"width": 0.25, "depth": 14},
        train={"epochs": 1, "batch_size": 32},
    )
    package = Path(study_package.__file__).parent
    missing = f"""echo 'raise ModuleNotFoundError("No module named study")' > {package}/__init__.py"""
    add(name="elsewhere", mount=f"mount -t tmpfs tmpfs {store}")
    add(name="readonly", mount=f"mount --bind {store} {store} && mount -o remount,bind,ro {store}")
    add(name="without", mount=f"mount -t tmpfs tmpfs {package} && {missing}")
    answer = finish(start("run", study, "--store", store, "--address", address), timeout=240)
    assert answer.code == 4, answer.err
    named = problems(answer.err)
    assert named.keys() == {"elsewhere", "readonly", "without"}, answer.err
    assert "one and the same folder" in named["elsewhere"]
    assert "mount the shared folder" in named["elsewhere"]
    assert "Read-only file system" in named["readonly"]
    assert "No module named study" in named["without"]
    assert "install revstudy" in named["without"]
    assert "Traceback" not in answer.err
    assert not list(store.glob(".probe*")) + list(store.glob("study=*/trials/*"))


OWN = {
    "nets.py": "from torch import nn\ndef build(task): return nn.Linear(3, task.num_classes)\n",
    "sets.py": "from helper import pairs\ndef load(): return {'train': pairs(64), 'test': pairs(8)}\n",
    "helper.py": "import torch\ndef pairs(n): return [(torch.ones(3) * i, i % 2) for i in range(n)]\n",
    "own.yaml": """
name: own
data: {name: "sets:load"}
model: {name: "nets:build"}
train: {epochs: 2, batch_size: 8}
space: {train.learning_rate: {grid: [0.1, 0.01, 0.001, 0.0001]}}
""",
}


@pytest.mark.timeout(420)
def test_a_machine_without_the_folder_of_the_study_is_given_its_modules(cluster, tmp_path, store):
    address, add = cluster
    folder = tmp_path / "own"
    folder.mkdir()
    for name, content in OWN.items():
        (folder / name).write_text(content)
    store.mkdir()
    add(name="elsewhere", mount=f"mount -t tmpfs tmpfs {folder}")
    command = ("run", folder / "own.yaml", "--store", store, "--address", address)
    answer = finish(start(*command), timeout=300)
    assert answer.code == 0, answer.err  # two machines of one processor each take turns
    assert "4/4 nets:build" in answer.err


def problems(said: str) -> dict[str, str]:
    """What is said of each machine, under its name."""
    found = (re.search(r"node [\d.]+ \((\w+), id \w{8}\)", line) for line in said.splitlines())
    return {match[1]: match.string for match in found if match}
