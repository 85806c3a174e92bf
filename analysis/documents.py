"""Settings documents by dotted path: the texts of ``config_json`` as columns of words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One dotted path of many documents.

    Attributes:
        words: the JSON of every value that it takes; the first is None, for documents without the path.
        codes: of each document the place of its word, shape (documents,).
    """

    words: tuple[str | None, ...]
    codes: np.ndarray


def settings_of(texts: Sequence[str | None]) -> dict[str, Setting]:
    """The settings of many documents, by path in alphabetical order. What is no JSON object has none."""
    values: dict[str, dict[Any, int]] = {}
    codes: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for path, value in _leaves(_parsed(text)):
            if path not in values:
                values[path], codes[path] = {}, [0] * len(texts)
            known = values[path]
            codes[path][number] = known.setdefault(_as_key(value), len(known) + 1)
    return {
        path: Setting(words=(None, *map(_word, values[path])), codes=np.array(codes[path], dtype=np.int64))
        for path in sorted(values)
    }


def flat_config(text: str | None) -> tuple[tuple[str, str], ...]:
    """The settings of one document as sorted (dotted path, JSON) pairs; nothing if it is not an object."""
    return tuple(sorted((path, _json(value)) for path, value in _leaves(_parsed(text))))


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        document = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _leaves(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """The (dotted path, value) pairs of a document."""
    found: list[tuple[str, Any]] = []
    waiting = [("", document)]
    while waiting:
        above, node = waiting.pop()
        for name, value in node.items():
            if type(value) is dict and value:
                waiting.append((f"{above}{name}.", value))
            else:
                found.append((above + name, value))
    return found


def _as_key(value: Any) -> Any:
    """A value as a key of a dict. It tells 1, 1.0 and true apart; a list is there as its JSON, in a pair."""
    kind = type(value)
    if kind is str:
        return value
    return (kind, value) if kind in (int, float, bool) else (None, _json(value))


def _word(key: Any) -> str:
    """The JSON of a value, from its key."""
    if type(key) is str:
        return _json(key)
    kind, value = key
    return str(value) if kind is None else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
