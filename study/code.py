"""What a study brings along: objects by import path, such as ``nets:build``, and the identity of their code.

A path is looked up in the folder of the study file first, then among what is installed. Packages announce
names through the entry points ``revstudy.models``, ``revstudy.data`` and ``revstudy.tasks``.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from study.errors import StudyError, nearest

GROUPS = {"model.name": "revstudy.models", "data.name": "revstudy.data", "task.name": "revstudy.tasks"}
"""The entry points of each setting that takes an import path."""

_folders: list[str] = []
"""The folders that modules were looked up in, the present one last."""

_brought: set[str] = set()
"""Modules that came from one of them."""


def is_path(name: str) -> bool:
    """Return whether a name is an import path, ``module:object``, and not that of a kind of data.

    >>> is_path("nets:build"), is_path("folder:images"), is_path("revnet38")
    (True, False, False)
    """
    module, colon, attribute = name.partition(":")
    kinds = ("synthetic", "parquet", "folder", "hf", "text", "tokens", "markov", "bpe", "file")
    named = all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
    return bool(colon) and module not in kinds and named


@lru_cache(maxsize=1)
def _announced() -> dict[tuple[str, str], str]:
    return {
        (group, point.name): point.value
        for group in GROUPS.values()
        for point in metadata.entry_points(group=group)
    }


def announced(where: str, name: str) -> str | None:
    """The import path that an installed package has announced for a name, such as that of a model."""
    return _announced().get((GROUPS[where], name)) if where in GROUPS else None


def is_own(where: str, name: str) -> bool:
    """Whether a setting names something that the study or an installed package brings."""
    return is_path(name) or announced(where, name) is not None


def use(folder: str | None) -> None:
    """Have modules looked up in the folder of a study first, from now on, and forget those of another's."""
    if folder is None or _folders[-1:] == [folder] or not Path(folder).is_dir():
        return
    for name in [name for name in _brought if name in sys.modules]:
        if not _is_below(sys.modules[name], folder):
            del sys.modules[name]
            _brought.discard(name)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry not in (*_folders, folder))]
    _folders.append(folder)
    importlib.invalidate_caches()


def find(where: str, name: str, folder: str | None = None) -> Any:
    """Import what a setting names.

    Args:
        where: The setting, such as ``model.name``.
        name: An import path, or a name that a package has announced.
        folder: Where the study file is; None stays with the folder that is in use.

    Returns:
        The object.

    Raises:
        StudyError: There is no such module or object, or the module fails when it is imported.
    """
    path = announced(where, name) or name
    module_name, _, attribute = path.partition(":")
    use(folder)
    here = f"{module_name.partition('.')[0]}.py in {folder or 'the folder of the study file'}"
    before = set(sys.modules)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            rule = f"its module needs {error.name}, which is not installed on {_machine()}"
            raise StudyError(where, value=name, rule=rule, remedy=f"install {error.name} there") from error
        raise StudyError(
            where,
            value=name,
            rule=f"must name a module that {_machine()} can import",
            remedy=f"put {here}, or install the package",
        ) from error
    except Exception as error:
        rule = f"its module must import without an error ({type(error).__name__}: {error})"
        raise StudyError(where, value=name, rule=rule, remedy="import it by itself to see where") from error
    _brought.update(n for n in set(sys.modules) - before if folder and _is_below(sys.modules[n], folder))
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key in vars(found) if not key.startswith("_")]
            rule = f"{getattr(found, '__name__', module_name)} must define {part}"
            raise StudyError(where, value=name, rule=rule, remedy=nearest(part, public)[:200])
        found = getattr(found, part)
    return found


def call(where: str, name: str, function: Any, *arguments: Any, options: dict[str, Any]) -> Any:
    """Call what a study brings with its options.

    Returns:
        What it returns.

    Raises:
        StudyError: It takes other arguments, or fails.
    """
    if not callable(function):
        raise StudyError(
            where, value=name, rule=f"must be a function or a class, not {type(function).__name__}"
        )
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        options_of = f"{where.partition('.')[0]}.options" if where in GROUPS else f"{where}_options"
        shown = f"{name.rpartition(':')[2]}{inspect.signature(function)}"
        raise StudyError(
            options_of,
            value=dict(options),
            rule=f"{shown} must take what it is called with ({error})",
            remedy=f"change {options_of} or the function",
        ) from None
    except ValueError:  # what is written in C has no signature
        pass
    try:
        return function(*arguments, **options)
    except StudyError:
        raise
    except Exception as error:
        rule = f"must run with these options ({type(error).__name__}: {error})"
        raise StudyError(where, value=name, rule=rule, remedy="call it by itself to see where") from error


def source_of(where: str, name: str, folder: str | None) -> str:
    """Return the identity of the source of what a setting names.

    It is the ``version`` that the object declares, or that of the installed package, or else a hash of the
    module's file and of the files beside it that it imports.

    Raises:
        StudyError: It cannot be imported.
    """
    found = find(where, name, folder)
    declared = getattr(found, "version", None)
    if isinstance(declared, str | int):
        return f"version:{declared}"
    path = announced(where, name) or name
    module = sys.modules[path.partition(":")[0]]
    file = getattr(module, "__file__", None)
    if file is None:
        return "builtin"
    if "site-packages" in Path(file).parts:
        top = module.__name__.partition(".")[0]
        return f"{top}=={getattr(sys.modules.get(top), '__version__', None) or _version(top)}"
    return files_hash(Path(file), module.__name__)


def _version(package: str) -> str:
    for name in metadata.packages_distributions().get(package, ()):
        return metadata.version(name)
    return "unknown"


def files_hash(file: Path, module: str) -> str:
    """16 hexadecimal digits over a module's file and the files of the same root that it imports, by name."""
    root = file.parents[len(module.split(".")) - (0 if file.name == "__init__.py" else 1)]
    seen: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        current = waiting.pop()
        name = current.relative_to(root).as_posix()
        if name in seen:
            continue
        seen[name] = current.read_bytes()
        waiting += [found for found in _imported(current, seen[name], root) if found.is_file()]
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{len(seen[name])}\0".encode() + seen[name])
    return digest.hexdigest()[:16]


def _imported(file: Path, content: bytes, root: Path) -> list[Path]:
    """Files below `root` that a file may import."""
    names: list[tuple[str, ...]] = []
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = (*base, *(node.module or "").split(".")) if node.module else tuple(base)
            names += [base, *((*base, alias.name) for alias in node.names)]
    found = []
    for name in names:
        for count in range(1, len(name) + 1):
            place = root.joinpath(*name[:count])
            found += [place.with_suffix(".py"), place / "__init__.py"]
    return found


def _is_below(module: Any, folder: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)


def _machine() -> str:
    import socket

    return socket.gethostname()
