from dataclasses import replace

import pytest

from study.cluster.facts import facts, gpus
from study.cluster.nodes import problems_of
from study.cluster.survey import Node, _clock_problems, as_machine, lacking
from study.provenance import versions
from study.settings.run import ScalingSettings

GB = 10**9
CPU_NODE = Node(name="a", cpus=8, memory_bytes=16 * GB)
GPU_NODE = Node(name="b", cpus=16, gpus=2, memory_bytes=64 * GB, gpu_memory_bytes=(80 * GB, 40 * GB))


def test_a_machine_tells_its_cores_and_memory():
    told = facts()
    assert told["cores"] >= 1 and told["memory_bytes"] > GB


def test_gpus_are_read_from_what_the_driver_says():
    assert gpus("A, 1\nTesla, with comma, 2\nNo devices were found\nX, [N/A]\n") == [
        ("A", 2**20), ("Tesla, with comma", 2 * 2**20)
    ]  # fmt: skip


def test_the_machines_together_leave_out_those_with_problems():
    broken = Node(name="c", cpus=100, memory_bytes=GB, problems=("no store",))
    together = as_machine([CPU_NODE, GPU_NODE, broken])
    assert (together.cpus, together.gpus, together.memory_bytes) == (24, 2, 80 * GB)
    assert together.gpu_memory_bytes == 40 * GB


@pytest.mark.parametrize(
    ("scaling", "worker_bytes", "said"),
    [
        (ScalingSettings(), 15 * GB, ""),
        (ScalingSettings(), 65 * GB, "the largest machine has 64 GB"),
        (ScalingSettings(cpus_per_worker=16), GB, ""),
        (ScalingSettings(cpus_per_worker=32), GB, "room for 0 on 2 machines"),
        (ScalingSettings(workers=3, gpus_per_worker=1), GB, "room for 2"),
        (ScalingSettings(workers=4, min_workers=2, gpus_per_worker=1), GB, ""),
        (ScalingSettings(workers=1, gpus_per_worker=1), 70 * GB, ""),
        (ScalingSettings(workers=2, gpus_per_worker=1), 70 * GB, "the largest GPU has 80 GB"),
        (ScalingSettings(gpus_per_worker=1), None, ""),
    ],
)
def test_what_a_cluster_has_no_room_for_is_said(scaling, worker_bytes, said):
    why = lacking([CPU_NODE, GPU_NODE], scaling, worker_bytes)
    assert said in why and bool(why) == bool(said)


def test_machines_with_problems_run_nothing():
    assert "room for 0 on 0" in lacking([replace(CPU_NODE, problems=("x",))], ScalingSettings(), None)


def test_a_clock_that_is_off_by_more_than_is_known_of_it_is_a_problem():
    assert _clock_problems("a", (1.9, 0.01)) == [] == _clock_problems("a", None)
    assert _clock_problems("a", (5.0, 4.0)) == []
    assert "5.0 s behind" in _clock_problems("a", (-5.0, 0.1))[0]


def test_a_machine_that_does_not_see_the_store_has_that_problem():
    fit = {"versions": versions(), "wrote": "x", "unseen": False}
    assert problems_of("a", fit, "/store") == []
    assert "same folder" in str(problems_of("a", {**fit, "unseen": True}, "/store")[0])
