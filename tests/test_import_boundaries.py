"""Imports go one way, room by room, and never in a circle.

`ROOMS` is the picture of the design as a table: what each room may import of its own package, and of what is
outside it. The standard library is free to all. The rules are read from the source, and are tried on packages
that break them. `test_what_is_needed.py` looks at what programs import when they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.import_graph import PACKAGES, Source, circles, read_source, within

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the files of a subpackage, or one file beside the subpackages, may import.

    `own` are rooms of the same package. `others` are modules of other packages, and `lazily` those that only
    functions may import. Each is a list of words.
    """

    own: str = ""
    others: str = ""
    lazily: str = ""


# From the bottom to the top of each package: a room comes after those that it imports.
ROOMS: dict[str, Room] = {
    # revmodels: torch alone
    "revmodels.errors": Room(others="torch"),
    "revmodels.torch_internals": Room(others="torch"),
    "revmodels.operations": Room(own="torch_internals", others="torch"),
    "revmodels.running_statistics": Room(own="torch_internals", others="torch"),
    "revmodels.grid_bits": Room(own="errors", others="torch"),
    "revmodels.precision": Room(own="errors grid_bits", others="torch"),
    "revmodels.coupling": Room(
        own="errors grid_bits precision running_statistics torch_internals", others="torch"
    ),
    "revmodels.engine": Room(own="errors torch_internals running_statistics coupling", others="torch"),
    "revmodels.compiled": Room(
        own="errors precision running_statistics torch_internals coupling engine", others="torch"
    ),
    "revmodels.memory": Room(own="errors torch_internals coupling", others="torch"),
    "revmodels.strategies": Room(
        own="errors operations torch_internals coupling engine compiled memory", others="torch"
    ),
    "revmodels.sequence": Room(own="errors precision coupling engine strategies", others="torch"),
    "revmodels.models": Room(own="errors precision coupling engine sequence strategies", others="torch"),
    "revmodels.measure": Room(
        own="errors operations precision running_statistics torch_internals coupling engine strategies "
        "sequence models memory",
        others="torch",
    ),
    "revmodels.testing": Room(
        own="errors precision torch_internals coupling engine sequence models", others="torch"
    ),
    # analysis: rows and figures; no torch, no Ray, no study
    "analysis.errors": Room(),
    "analysis.schema": Room(others="pyarrow"),
    "analysis.store": Room(own="errors schema", others="duckdb numpy pyarrow", lazily="obstore"),
    "analysis.strategies": Room(),
    "analysis.pareto": Room(others="numpy scipy"),
    "analysis.stats": Room(others="numpy"),
    "analysis.documents": Room(others="numpy"),
    "analysis.cohort": Room(own="documents stats store", others="numpy"),
    "analysis.pairs": Room(own="cohort stats strategies"),
    "analysis.wording": Room(own="stats"),
    "analysis.score": Room(own="stats wording"),
    "analysis.faithful": Room(own="stats strategies"),
    "analysis.theme": Room(own="stats strategies", others="plotly"),
    "analysis.formats": Room(own="errors", others="pyarrow"),
    "analysis.laws": Room(own="errors schema stats store", others="numpy pyarrow scipy"),
    "analysis.named_queries": Room(),
    "analysis.queries": Room(own="errors named_queries schema store", others="pyarrow"),
    "analysis.claims": Room(own="faithful stats store strategies wording", others="numpy"),
    "analysis.answers": Room(
        own="cohort documents errors faithful laws pairs pareto score stats store strategies wording",
        others="numpy",
        lazily="optuna",
    ),
    "analysis.figures": Room(
        own="answers cohort errors faithful laws named_queries pairs pareto queries score stats store "
        "strategies theme wording",
        others="numpy plotly",
    ),
    "analysis.report": Room(
        own="answers claims cohort errors faithful figures formats named_queries queries schema score "
        "stats store strategies theme wording",
        others="aiohttp jinja2 markupsafe plotly",
        lazily="kaleido",
    ),
    # study: both, from `analysis` the schema and the store
    "study.errors": Room(),
    "study.code": Room(own="errors"),
    "study.settings": Room(own="code errors"),
    "study.outcomes": Room(),
    "study.provenance": Room(lazily="torch"),
    "study.ray_internals": Room(lazily="ray"),
    "study.doctor": Room(own="ray_internals", others="revmodels", lazily="torch"),
    "study.data": Room(
        own="errors settings",
        others="numpy torch",
        lazily="PIL datasets pyarrow sklearn tokenizers torchvision",
    ),
    "study.coordinates": Room(own="errors", others="revmodels torch"),
    "study.catalog": Room(own="data errors settings", others="revmodels", lazily="torch"),
    "study.tasks": Room(own="code data errors settings", others="revmodels torch"),
    "study.network": Room(own="code errors settings tasks", others="revmodels torch"),
    "study.identity": Room(own="code data errors network settings tasks", others="revmodels"),
    "study.store": Room(
        own="errors identity outcomes provenance settings tasks",
        others="analysis.errors analysis.schema analysis.store pyarrow revmodels torch",
    ),
    "study.train": Room(
        own="code errors identity network outcomes provenance settings store tasks",
        others="revmodels torch",
    ),
    "study.rerun": Room(own="errors identity settings store train", others="torch"),
    "study.status": Room(own="errors outcomes store", others="analysis.store"),
    "study.notes": Room(own="errors store", others="analysis.store"),
    "study.spec": Room(own="code errors settings", others="analysis.schema pydantic pydantic_core yaml"),
    "study.plan": Room(
        own="code data errors identity provenance settings spec store tasks train",
        others="analysis.store pydantic revmodels",
        lazily="torch",
    ),
    "study.cluster": Room(
        own="errors plan provenance ray_internals settings spec store train",
        others="ray yaml",
        lazily="grpc pyarrow",
    ),
    "study.executors": Room(
        own="cluster errors identity outcomes plan ray_internals settings spec store train",
        others="analysis.schema optuna ray torch",
        lazily="mlflow",
    ),
    "study.record": Room(own="errors provenance spec store"),
    "study.execution": Room(
        own="cluster errors executors outcomes plan ray_internals settings spec store train",
        others="analysis.schema analysis.store",
    ),
    "study.run": Room(
        own="cluster errors execution executors outcomes plan record settings spec store",
        others="analysis.schema analysis.store",
    ),
    "study.cli": Room(
        own="catalog cluster coordinates data doctor errors executors notes outcomes plan record rerun run "
        "settings spec status store",
        others="analysis rich typer",
        lazily="pyarrow",
    ),
}

FORBIDDEN_IN_A_TRIAL = {"ray", "optuna", "pydantic", "duckdb", "datasets", "transformers", "huggingface_hub"}


def broken_rules(source: Source) -> list[str]:
    """``file:line imports module`` for each import that the table does not allow."""
    found = []
    for statement in source.imports:
        room = source.room(statement.importer)
        if room in PACKAGES:  # the front door of a package: it names what is public, lazily
            allowed = statement.target.startswith(f"{room}.")
        elif room not in ROOMS:
            allowed = False
        elif source.room(statement.target) == room:
            allowed = True
        else:
            own = [f"{room.partition('.')[0]}.{name}" for name in ROOMS[room].own.split()]
            lazily = [] if statement.at_once else ROOMS[room].lazily.split()
            allowed = within(statement.target, [*own, *ROOMS[room].others.split(), *lazily])
        if not allowed:
            found.append(str(statement))
    return found


@pytest.fixture(scope="module")
def source() -> Source:
    """Who imports whom in this repository."""
    return read_source(ROOT)


def test_every_room_imports_what_the_table_allows(source):
    assert broken_rules(source) == []


def test_the_table_names_no_room_that_does_not_exist(source):
    assert set(ROOMS) <= {source.room(module) for module in source.modules}


def test_the_table_itself_goes_one_way():
    """Each room stands below those that import it, so the table has no circle either."""
    above: set[str] = set()
    for room, rule in reversed(ROOMS.items()):
        package = room.partition(".")[0]
        above.add(room)
        assert not above & {f"{package}.{name}" for name in rule.own.split()}, room


@pytest.mark.parametrize("level", ["files", "rooms"])
def test_no_imports_go_in_a_circle(source, level):
    assert circles(getattr(source, level)()) == []


def test_a_trial_loads_neither_ray_nor_a_validator_nor_a_database(source):
    assert source.loaded_with("study.train.trial") & FORBIDDEN_IN_A_TRIAL == set()


def plant(root: Path, files: dict[str, str]) -> Source:
    """Write files below a folder, with an `__init__` in every package, and read them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents:
            if folder.name:
                (root / folder / "__init__.py").touch()
    return read_source(root)


@pytest.mark.parametrize(
    ("file", "text", "line", "target"),
    [
        ("revmodels/engine/a.py", "import ray", 1, "ray"),
        ("revmodels/engine/a.py", "def f():\n    from study import plan", 2, "study"),
        ("revmodels/models/a.py", "class A:\n    import pyarrow.parquet as pq", 2, "pyarrow.parquet"),
        ("analysis/store/a.py", "try:\n    import torch\nexcept ImportError:\n    pass", 2, "torch"),
        ("analysis/store/a.py", "from analysis.theme import COLORS", 1, "analysis"),
        ("analysis/answers/a.py", "import optuna", 1, "optuna"),
        ("analysis/figures/a.py", "from study.store.rows import full_row", 1, "study"),
        ("study/train/a.py", "def f():\n    import ray.train", 2, "ray.train"),
        ("study/train/a.py", "from pydantic import TypeAdapter", 1, "pydantic.TypeAdapter"),
        ("study/data/a.py", "import sklearn", 1, "sklearn"),
        ("study/spec/a.py", "from analysis import open_store", 1, "analysis"),
        ("study/unheard_of/a.py", "import torch", 1, "torch"),
    ],
)
def test_the_rules_find_what_breaks_them(tmp_path, file, text, line, target):
    assert broken_rules(plant(tmp_path, {file: text})) == [f"{file}:{line} imports {target}"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("revmodels/engine/a.py", "import math\nimport torch.nn as nn\nfrom . import b"),
        ("analysis/answers/a.py", "def f():\n    import optuna.importance"),
        ("study/train/a.py", "import torch\nfrom revmodels.precision import Precision"),
        ("study/data/a.py", "def f():\n    import sklearn"),
        ("study/spec/a.py", "from analysis.schema import TRIALS"),
    ],
)
def test_the_rules_allow_what_keeps_them(tmp_path, file, text):
    assert broken_rules(plant(tmp_path, {"analysis/schema.py": "TRIALS = {}", file: text})) == []


def test_the_rules_find_an_import_between_rooms_of_one_package(tmp_path):
    files = {"study/train/a.py": "from study.executors.b import B", "study/executors/b.py": "B = 1"}
    assert broken_rules(plant(tmp_path, files)) == ["study/train/a.py:1 imports study.executors.b"]


@pytest.mark.parametrize(
    ("files", "of_files", "of_rooms"),
    [
        (
            {
                "study/plan/a.py": "from study.plan import b",
                "study/plan/b.py": "def f():\n    from .a import A",
            },
            [["study.plan.a", "study.plan.b"]],
            [],
        ),
        (
            {
                "study/plan/a.py": "from study.spec.c import C",
                "study/spec/c.py": "",
                "study/spec/d.py": "import typing\nif typing.TYPE_CHECKING:\n    import study.plan.a",
            },
            [],
            [["study.plan", "study.spec"]],
        ),
    ],
)
def test_the_search_finds_circles_of_files_and_of_rooms(tmp_path, files, of_files, of_rooms):
    planted = plant(tmp_path, files)
    assert circles(planted.files()) == of_files
    assert circles(planted.rooms()) == of_rooms


def test_what_a_module_loads_is_followed_through_other_modules(tmp_path):
    files = {
        "study/train/a.py": "import study.store.b",
        "study/store/b.py": "import duckdb\ndef f():\n    import ray",
    }
    assert plant(tmp_path, files).loaded_with("study.train.a") == {"duckdb"}
