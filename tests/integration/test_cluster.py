"""Two machines, as far as Ray knows: a trial across both, and one of them is lost in the middle of it."""

from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from study.store.reader import read_rows
from tests.cli.conftest import Answer, finish, start, write_study

EPOCHS = 12
WIDE = {
    "name": "wide",
    "data": {"name": "digits", "train_examples": 256, "test_examples": 100},
    "model": {"width": 0.25, "depth": 14},
    "train": {"epochs": EPOCHS, "batch_size": 64},
}

__all__ = ["write_study"]


@pytest.fixture(scope="module")
def head():
    """A cluster of one node with one CPU, which this process does not join."""
    from ray.cluster_utils import Cluster

    from study.cluster.session import ENVIRONMENT

    with pytest.MonkeyPatch.context() as patched:
        for name, value in ENVIRONMENT.items():
            patched.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def second(head):
    """Another node with one CPU, until the test takes it away."""
    node = head.add_node(num_cpus=1)
    yield node
    for left in list(head.worker_nodes):
        head.remove_node(left, allow_graceful=False)


def lose_a_node(head, second, process, store, *, new: bool) -> Answer:
    """Take a node away once the trial has done an epoch; the answer of the run."""
    try:
        deadline = time.monotonic() + 300
        while not list(store.glob("checkpoints/*.pt")):
            assert process.poll() is None, finish(process)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        head.remove_node(second, allow_graceful=False)
        if new:
            head.add_node(num_cpus=1)
        return finish(process, timeout=600)
    finally:
        process.kill()


def test_a_trial_across_two_nodes_outlives_one_of_them(head, second, write_study, store):
    study = write_study(**WIDE, scaling={"workers": 2, "placement": "SPREAD"})
    process = start("run", study, "--store", store, "--address", head.address)
    answer = lose_a_node(head, second, process, store, new=True)
    assert answer.code == 0, answer.err
    (row,) = read_rows(store).values()
    assert (row["outcome"], row["attempt"], row["workers"], row["epochs_done"]) == ("ok", 1, 2, EPOCHS)
    lost, _ = sorted(store.glob("study=wide/trials/*.parquet"))
    (lost_row,) = pq.read_table(lost).to_pylist()
    assert lost_row["outcome"] == "failed"
    assert epochs_of(store, 1) == [(epoch, 2) for epoch in range(1, EPOCHS + 1)]
    assert not list(store.glob("checkpoints/*")) + list(store.glob("claims/*"))


def test_an_elastic_trial_goes_on_with_the_node_that_is_left(head, second, write_study, store):
    study = write_study(**WIDE, scaling={"workers": {"min": 1, "max": 2}})
    process = start("run", study, "--store", store, "--address", head.address)
    answer = lose_a_node(head, second, process, store, new=False)
    assert answer.code == 0, answer.err
    (row,) = read_rows(store).values()
    assert (row["outcome"], row["workers_min"], row["workers"]) == ("ok", 1, 2)
    epochs, workers = zip(*epochs_of(store, row["attempt"]), strict=True)
    assert epochs == tuple(range(1, EPOCHS + 1))
    assert (workers[0], workers[-1]) == (2, 1)
    assert sorted(workers, reverse=True) == list(workers)


def epochs_of(store, attempt: int) -> list[tuple[int, int]]:
    """Each epoch of an attempt with the workers that trained it."""
    (file,) = store.glob(f"study=wide/epochs/*-a{attempt}.parquet")
    return [(row["epoch"], row["workers"]) for row in pq.read_table(file).to_pylist()]
