"""Who imports whom, read from the source: file by file, and room by room.

A room is a subpackage (`study.train`), a file that lies directly in its package (`study.errors`), or the
`__init__` of a package (`study`). An import inside a function counts, and so does one for types alone: two
files that need each other's names are one concept in two files.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx

PACKAGES = ("study", "revmodels", "analysis")


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement's module.

    `target` is a module of ours, or the full name of one of others'. `at_once` tells whether the import is
    done when the file is imported, rather than when a function is called or types are checked.
    """

    importer: str
    target: str
    file: str
    line: int
    ours: bool
    at_once: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The imports of all files of the packages under a folder; the standard library's are left out."""

    modules: frozenset[str]
    subpackages: frozenset[str]
    imports: tuple[Import, ...]

    def room(self, module: str) -> str:
        """The subpackage of a module, or the module itself where it lies in no subpackage."""
        first_two = ".".join(module.split(".")[:2])
        return first_two if first_two in self.subpackages else module

    def files(self) -> networkx.DiGraph:
        """An arrow from each module to each module of ours that it imports."""
        graph = networkx.DiGraph()
        graph.add_nodes_from(self.modules)
        graph.add_edges_from((found.importer, found.target) for found in self.imports if found.ours)
        return graph

    def rooms(self) -> networkx.DiGraph:
        """The same between rooms."""
        arrows = ((self.room(importer), self.room(target)) for importer, target in self.files().edges)
        return networkx.DiGraph((importer, target) for importer, target in arrows if importer != target)

    def loaded_with(self, module: str) -> set[str]:
        """Top-level names of others' packages that are imported when a module is."""
        at_once = [found for found in self.imports if found.at_once]
        graph = networkx.DiGraph((found.importer, found.target) for found in at_once)
        loaded = {module, *(networkx.descendants(graph, module) if module in graph else ())}
        return {
            found.target.partition(".")[0] for found in at_once if found.importer in loaded and not found.ours
        }


def read_source(root: Path) -> Source:
    """Read every file of the packages below a folder."""
    paths = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = []
    for module, path in paths.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name, line, at_once in _statements(ast.parse(path.read_text()), package):
            if name.partition(".")[0] in sys.stdlib_module_names:
                continue
            ours = name.partition(".")[0] in PACKAGES
            target = _longest(name, paths) if ours else name
            if target != module:
                found.append(
                    Import(
                        importer=module,
                        target=target,
                        file=path.relative_to(root).as_posix(),
                        line=line,
                        ours=ours,
                        at_once=at_once,
                    )
                )
    subpackages = {
        module for module, path in paths.items() if module.count(".") == 1 and path.name == "__init__.py"
    }
    return Source(modules=frozenset(paths), subpackages=frozenset(subpackages), imports=tuple(found))


def circles(graph: networkx.DiGraph) -> list[list[str]]:
    """Groups of nodes each of which leads to every other, sorted."""
    groups = (sorted(group) for group in networkx.strongly_connected_components(graph) if len(group) > 1)
    return sorted(groups)


def within(name: str, modules: Iterable[str]) -> bool:
    """Tell whether a dotted name is one of the modules or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _longest(name: str, modules: Iterable[str]) -> str:
    """The module that a dotted name leads to: the name itself, or what it is an attribute of."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def _statements(tree: ast.Module, package: str) -> Iterator[tuple[str, int, bool]]:
    """Every imported name with its line, and whether it is imported when the file is."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, int, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child.lineno, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
                module = ".".join([*above, *([child.module] if child.module else [])])
                yield from ((f"{module}.{alias.name}", child.lineno, at_once) for alias in child.names)
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            )
            yield from walk(child, at_once and not later)

    return walk(tree, True)
