"""Reading YAML as people mean it: ``1e-3`` is a number, a repeated key is a mistake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from study.errors import StudyError


class _Loader(yaml.SafeLoader):
    """Safe YAML with the floats of YAML 1.2 and without repeated keys."""

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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        rule = f"must be a readable study file ({reason})"
        raise StudyError(value=str(path), rule=rule, remedy="check the path") from None
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str = "") -> Any:
    """Return plain Python values of YAML text.

    Raises:
        StudyError: The text is not YAML; the message gives line and column.

    >>> parse_yaml("{train: {learning_rate: 1e-3}}")
    {'train': {'learning_rate': 0.001}}

    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        lines = text.splitlines()
        line = lines[mark.line].strip() if mark and mark.line < len(lines) else text[:40]
        reason = getattr(error, "problem", None) or "unreadable text"
        raise StudyError(
            where,
            value=line,
            rule=f"must be YAML that parses ({reason})",
            remedy="check indentation, colons and brackets near that line",
            source=source,
        ) from None
