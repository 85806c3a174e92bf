"""What several parts of the suite share: one Ray for all of it, and studies of a second or two."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.covering import left_to_wide_runs

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray runs its workers at niceness 15, where the other processes of the suite leave them nearly no time.
os.environ.setdefault("RAY_worker_niceness", "0")

SHARED = {"ray_cluster": "ray", "smoke": "smoke", "chromium": "browser"}
"""Fixtures that take seconds to make and live as long as the process, with the group of their tests."""

SLOWEST = ("ray", "integration/test_cluster.py", "smoke", "revmodels/compiled/test_network.py")
"""The groups that take longest, and so begin first."""

PATIENT = {"ray": 900, "smoke": 900, "integration/test_cluster.py": 1200}
"""Seconds that a test of a group may take: its processes wait for one another on few cores."""


def _group(item: pytest.Item) -> str:
    shared = [name for fixture, name in SHARED.items() if fixture in getattr(item, "fixturenames", ())]
    return shared[0] if shared else item.path.relative_to(Path(__file__).parent).as_posix()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group tests for pytest-xdist: the tests of a group run in one process, one after the other."""
    group = _group(item)
    item.add_marker(pytest.mark.xdist_group(group))
    if group in PATIENT and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(PATIENT[group]))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run ask for more than fits in minutes."""
    parser.addoption("--wide", action="store_true", help="every combination of parameters, and slow tests")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a wide run has, and put the slowest groups first."""
    if not config.getoption("--wide"):
        left_out = left_to_wide_runs(items)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
    rank = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: rank.get(_group(item), len(rank)))


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to share tests out without their groups: each process would start a Ray of its own."""
    if config.getoption("dist", "no") == "loadgroup" and pytest.version_tuple >= (9, 2):
        raise pytest.UsageError(
            "--dist loadgroup: pytest-xdist sees no groups with pytest 9.2 or newer; received "
            f"{pytest.__version__}; pip install --constraint constraints.txt pytest"
        )


@pytest.fixture(scope="module", autouse=True)
def _old_objects_frozen() -> None:
    """Leave what lives already out of garbage collections: full ones took a third of the suite's time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Give frozen objects back, so that libraries which look for leaks at the end find none."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A Ray of two CPUs, started once; code that asks for a session of its own joins it."""
    from study.cluster.session import ray_session

    with ray_session(dashboard=True, num_cpus=2) as cluster:
        yield cluster


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a store may be made; it does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def make_study() -> Callable[..., Any]:
    """A study on 256 digits whose trials take about a second; each keyword replaces a section."""
    from study.spec.load import parse_study

    def make(**sections: Any) -> Any:
        return parse_study({**SMALL, **sections})

    return make


SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits", "train_examples": 256, "test_examples": 100},
    "model": {"name": "revnet38", "width": 0.25, "depth": 14},
    "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.05},
}
