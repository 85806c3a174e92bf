"""What is private in Ray stands in one file, exists in the installed version, and is told if untested."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from study import ray_internals
from study.doctor import run_checks
from study.ray_internals import INTERNALS, TESTED, Internal, missing, untested

ROOT = Path(__file__).parents[2]
HOME = "study/ray_internals.py"
ATTRIBUTES = {internal.name.rpartition(".")[2].rpartition(":")[2] for internal in INTERNALS}


@pytest.mark.parametrize("internal", INTERNALS, ids=lambda internal: internal.name)
def test_the_installed_ray_has_what_a_run_relies_on(internal):
    lacking = [found.name for found in missing()]
    assert internal.name not in lacking, (
        f"Ray {metadata.version('ray')} has no {internal.name}. It is used for this: {internal.purpose} "
        f"No public replacement: {internal.tried}"
    )


def test_a_name_that_a_version_lacks_is_found(monkeypatch):
    gone = [
        Internal(name=name, purpose="p", tried="t")
        for name in ("ray._none:a", "ray._private.worker:Worker.none")
    ]
    monkeypatch.setattr(ray_internals, "INTERNALS", (INTERNALS[0], *gone))
    assert missing() == gone


@pytest.mark.parametrize(("version", "said"), [(f"{TESTED[0]}.3", False), ("2.61.0", True), ("3.0", True)])
def test_a_version_that_was_not_tested_is_said_by_doctor(monkeypatch, tmp_path, version, said):
    monkeypatch.setattr(ray_internals, "installed", lambda: version)
    monkeypatch.setattr("study.doctor.installed", lambda: version)
    assert bool(untested()) == said
    (check,) = [check for check in run_checks(str(tmp_path)) if check.name == "ray version"]
    assert check.ok != said
    assert version in check.found
    assert ("pip install" in check.remedy) == said


def test_the_bound_of_the_package_holds_what_was_tested():
    (bound,) = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if '"ray[' in line]
    major, minor = TESTED[-1].split(".")
    assert f"<{major}.{int(minor) + 1}" in bound


def private_uses(root: Path) -> list[str]:
    """``file:line name`` of each private name of Ray that is used outside its home."""
    found = []
    for file in sorted((root / "study").rglob("*.py")):
        where = file.relative_to(root).as_posix()
        if where != HOME:
            found += [f"{where}:{line} {name}" for name, line in names_in(ast.parse(file.read_text()))]
    return found


def names_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
            if node.attr in ATTRIBUTES and node.attr.startswith("_"):
                yield ast.unparse(node), node.lineno
                continue
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in ATTRIBUTES:
            names = [f"ray.{node.name}"]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "ray" and any(part.startswith("_") or part == "v2" for part in parts[1:]):
                yield name, node.lineno


def test_nothing_else_uses_a_private_name_of_ray():
    assert private_uses(ROOT) == []


@pytest.mark.parametrize(
    "text",
    [
        "import ray._private.worker",
        "from ray.air.execution._internal.actor_manager import RayActorManager",
        "from ray.train.v2.api.config import RunConfig",
        "def f():\n    import ray\n    return ray._private.worker._global_node",
        "def f(controller):\n    controller._cleanup_trials()",
        "class C:\n    def _do_request(self):\n        pass",
    ],
)
def test_a_planted_private_name_is_found(tmp_path, text):
    file = tmp_path / "study" / "executors" / "planted.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert private_uses(tmp_path)
