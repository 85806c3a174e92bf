"""Reading YAML as people mean it: ``1e-3`` is a number, a repeated key is a mistake.

A file is read within limits: of its length, of its depth, and of how much it says once every alias is
written out. So no file takes long or much memory, whatever it holds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from study.errors import StudyError

MAX_BYTES = 250_000
MAX_NODES = 20_000
"""Values of a file, each alias counted with all that it stands for."""
MAX_DEPTH = 30


class _Loader(yaml.SafeLoader):
    """Safe YAML with the floats of YAML 1.2, without repeated keys, and within limits."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        mark = self.peek_event().start_mark
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH}", mark)
        alias = self.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "a value that contains itself", mark)
        if not alias:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        if self._sizes[id(node)] > MAX_NODES or len(self._sizes) > MAX_NODES:
            problem = f"more than {MAX_NODES:,} values, with every alias written out"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        self.mark = node.start_mark
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool) and key is not None:
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is repeated", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parts(node: Any) -> list[Any]:
    """The nodes inside a list or a mapping."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


# PyYAML follows YAML 1.1, where 1e-3 (no dot, or no sign in the exponent) is text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: Path) -> Any:
    """Return plain Python values of a YAML file.

    Raises:
        StudyError: The file cannot be read, or its text is not YAML; the message gives line and column.
    """
    try:
        if path.exists() and not path.is_file():
            reason = "not a file"  # to open a pipe would be to wait for its other end
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            # Of a file that is too long, the end that was not read may cut a letter in two.
            whole = len(content) <= MAX_BYTES
            return parse_yaml(content.decode(errors="strict" if whole else "replace"), source=str(path))
    except (OSError, ValueError) as error:
        reason = (error.strerror or "") if isinstance(error, OSError) else "not UTF-8 text"
    rule = f"must be a readable study file ({reason})"
    raise StudyError(value=str(path), rule=rule, remedy="check the path")


def parse_yaml(text: str, *, source: str = "") -> Any:
    """Return plain Python values of YAML text.

    Raises:
        StudyError: The text is not YAML; the message gives line and column.

    >>> parse_yaml("{train: {learning_rate: 1e-3}}")
    {'train': {'learning_rate': 0.001}}

    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        rule = f"a study file has at most {MAX_BYTES:,} bytes"
        raise StudyError(rule=rule, remedy="a Python file can compute its values", source=source)
    loader = _Loader.__new__(_Loader)
    try:
        loader.__init__(text)  # type: ignore[misc]
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable text"
        remedy = "check indentation, colons and brackets near that line"
    except (ValueError, OverflowError, TypeError, AttributeError, RecursionError) as error:
        # What a value's own parser raises: a day that is not in the calendar, a number of too many digits.
        mark = getattr(loader, "mark", None)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "write the value in quotes if it is meant as text"
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark and mark.line < len(lines) else text[:40]
    rule = f"must be YAML that parses ({reason})"
    raise StudyError(where, value=line, rule=rule, remedy=remedy, source=source)
