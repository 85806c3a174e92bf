"""Imports go one way: `revmodels` knows torch alone, `analysis` rows alone, `study` both.

The rules are read from the source, so an import inside a function counts too. A second set of tests runs the
programs and looks at what was imported. Both are tried on packages that break the rules.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a package may import besides the standard library and itself.

    `lazily` are modules that only functions may import. `exempt` are files with a freedom of their own.
    """

    package: str
    allowed: frozenset[str]
    lazily: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()


RULES = (
    Rule(package="revmodels", allowed=frozenset({"torch", "torchvision"})),
    Rule(
        package="analysis",
        allowed=frozenset({"pyarrow", "duckdb", "numpy", "plotly", "jinja2", "markupsafe", "aiohttp"}),
        lazily=frozenset({"kaleido", "optuna"}),
    ),
    Rule(
        package="study",
        allowed=frozenset(
            {
                "analysis.schema",
                "numpy",
                "optuna",
                "pyarrow",
                "pydantic",
                "pydantic_core",
                "ray",
                "revmodels",
                "rich",
                "torch",
                "typer",
                "yaml",
            }
        ),
        lazily=frozenset({"PIL", "grpc", "sklearn", "torchvision"}),
        exempt=frozenset({"cli.py", "cli_tables.py", "status.py"}),  # verbs open stores and write reports
    ),
)


def imports(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """Every imported module with its line and whether it is imported when the file is."""

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, int, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and not child.level:
                for alias in child.names:
                    yield f"{child.module}.{alias.name}", child.lineno, top
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, top and not inside)

    return walk(tree, True)


def within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def violations(root: Path, rule: Rule) -> list[str]:
    """``file:line imports module`` for each import of a package that its rule forbids."""
    files = sorted((root / rule.package).rglob("*.py"))
    assert files, f"no such package: {root / rule.package}"
    found = []
    for file in files:
        where = file.relative_to(root / rule.package).as_posix()
        if where in rule.exempt:
            continue
        for name, line, top in imports(ast.parse(file.read_text())):
            free = name.partition(".")[0] in sys.stdlib_module_names or within(
                name, frozenset({rule.package})
            )
            if not (free or within(name, rule.allowed) or (not top and within(name, rule.lazily))):
                found.append(f"{where}:{line} imports {name}")
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.package)
def test_a_package_imports_what_its_rule_allows(rule):
    assert violations(ROOT, rule) == []


@pytest.mark.parametrize(
    ("package", "source", "found"),
    [
        ("revmodels", "import ray", "ray"),
        ("revmodels", "def f():\n    from study import plan", "study.plan.plan"),
        ("revmodels", "class A:\n    import pyarrow.parquet as pq", "pyarrow.parquet"),
        ("analysis", "try:\n    import torch\nexcept ImportError:\n    pass", "torch"),
        ("analysis", "import optuna", "optuna"),
        ("analysis", "from study.store.rows import full_row", "study.store.rows.full_row"),
        ("study", "from analysis.store.store import open_store", "analysis.store.store.open_store"),
        ("study", "from analysis import store", "analysis.store.store"),
        ("study", "import analysis", "analysis"),
        ("study", "import sklearn", "sklearn"),
    ],
)
def test_the_check_finds_what_breaks_a_rule(tmp_path, package, source, found):
    folder = tmp_path / package / "deep"
    folder.mkdir(parents=True)
    (folder / "module.py").write_text(source)
    (rule,) = (rule for rule in RULES if rule.package == package)
    line = source[: source.index("import")].count("\n") + 1
    if source.startswith("try"):
        line = 2
    assert violations(tmp_path, rule) == [f"deep/module.py:{line} imports {found}"]


@pytest.mark.parametrize(
    ("package", "source"),
    [
        (
            "revmodels",
            "import math\nimport torch.nn as nn\nfrom revmodels import engine\nfrom . import engine",
        ),
        ("analysis", "def f():\n    import optuna.importance"),
        ("study", "from analysis.schema import TRIALS\nfrom analysis import schema"),
    ],
)
def test_the_check_allows_what_keeps_the_rules(tmp_path, package, source):
    (tmp_path / package).mkdir()
    (tmp_path / package / "module.py").write_text(source)
    (rule,) = (rule for rule in RULES if rule.package == package)
    assert violations(tmp_path, rule) == []


def run_without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has none of the blocked modules."""
    program = f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}))\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, cwd=ROOT
    )


TRAIN = """
from study.identity import resolve, trial_id
from study.store.writer import write_result
from study.settings import DataSettings, ModelSettings, TrainSettings, Trial, TrialSettings
from study.train.trial import train_trial
settings = resolve(TrialSettings(
    data=DataSettings(name="synthetic:1x8x8x4", train_examples=64, test_examples=32),
    model=ModelSettings(name="revnet38", depth=14, width=0.25),
    train=TrainSettings(epochs=1, batch_size=32),
))
result = train_trial(Trial(trial_id=trial_id(settings), study="bare", settings=settings))
assert result.trial["outcome"] == "ok", result.trial["error_message"]
"""
WITHOUT = {"ray", "optuna", "pydantic", "duckdb", "plotly", "typer", "rich", "yaml", "jinja2"}


def test_a_trial_runs_on_a_machine_with_torch_and_pyarrow_alone():
    done = run_without(WITHOUT, TRAIN)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks():
    done = run_without(WITHOUT, "import study.spec.study")
    assert done.returncode != 0
    assert "import of pydantic halted" in done.stderr


def test_a_network_trains_with_torch_alone():
    code = "import torch, revmodels\n" + (
        "model = revmodels.create_model('revnet38', num_classes=10, width=0.25)\n"
        "model(torch.rand(2, 3, 8, 8)).sum().backward()"
    )
    done = run_without({*WITHOUT, "study", "analysis", "pyarrow", "sklearn"}, code)
    assert done.returncode == 0, done.stderr
