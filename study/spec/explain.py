"""What a key of a study file means: `explain`, from the same schema that checks the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from study.errors import StudyError, nearest
from study.settings.setting import IF_CHANGED, NEVER
from study.settings.trial import sections, settings_of
from study.spec.study import Study

BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_IDENTITY = {
    NEVER: "no: trials that differ in it alone are the same trial",
    IF_CHANGED: "yes, where it differs from its default",
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is to be known of one key.

    Attributes:
        key: Its dotted path.
        meaning: What it is for, with its unit.
        kind: What is written there: ``number``, ``section``, ``list of section`` and so on.
        default: What counts where the file does not give it; None for nothing.
        values: Which values it takes, in words; empty where the kind says all.
        swept: How the file varies it over trials; empty where it does not vary.
        identity: Whether it makes another trial; empty for what belongs to a study and not to a trial.
        column: The column of the trials table that holds it; empty where it is in ``config_json`` alone.
        keys: The keys below it, with their meanings.
    """

    key: str
    meaning: str
    kind: str
    default: Any = None
    values: str = ""
    swept: str = ""
    identity: str = ""
    column: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)


def explain(key: str) -> Explanation:
    """Explain one key of a study file.

    Args:
        key: Its dotted path, such as ``train.learning_rate``, or a section, such as ``train``.

    Returns:
        The explanation, from the schema that checks study files.

    Raises:
        StudyError: A study file has no such key.
    """
    schema = Study.json_schema()
    node: dict[str, Any] = schema
    done: list[str] = []
    for part in key.split("."):
        below = _inside(node, schema).get("properties", {})
        if part not in below:
            where = ".".join(done)
            names = [".".join([*done, name]) for name in below] or list(schema["properties"])
            rule = f"has no key {part!r} in {where}" if where else f"has no key {part!r}"
            raise StudyError(f"a study file {rule}", remedy=nearest(key, names), value=key)
        node = below[part]
        done.append(part)
    section = _inside(node, schema)
    return Explanation(
        key=key,
        meaning=" ".join(str(node.get("description") or section.get("description", "")).split()),
        kind=" or ".join(dict.fromkeys(_kinds(node, schema))),
        default=None if "properties" in section else node.get("default"),
        values=", ".join(legal_values(node)),
        keys={
            name: " ".join(value.get("description", "").split())
            for name, value in section.get("properties", {}).items()
        },
        **_of_a_trial(key),
    )


def legal_values(node: Mapping[str, Any]) -> list[str]:
    """Return the values that a key takes, as far as its schema lists or bounds them."""
    found = []
    for kind in [node, *node.get("anyOf", ())]:
        found += [f"`{choice}`" for choice in kind.get("enum", ())]
        found += [f"{words} {kind[bound]:g}" for bound, words in BOUNDS.items() if bound in kind]
    return list(dict.fromkeys(found))


def _inside(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the section that a key holds, directly, in a list or by a name; else the key's own."""
    if "$ref" in node:
        return dict(schema["$defs"][node["$ref"].rpartition("/")[2]])
    if "properties" in node:
        return node
    inner = [*node.get("oneOf", ()), *node.get("anyOf", ())]
    inner += [node[name] for name in ("items", "additionalProperties") if isinstance(node.get(name), dict)]
    for each in inner:
        found = _inside(each, schema)
        if "properties" in found:
            return found
    return node


def _kinds(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """What may be written at a key, in words."""
    if "$ref" in node:
        yield "section"
    elif node.get("type") == "array":
        items = node.get("items", {})
        yield "list of " + (" or ".join(dict.fromkeys(_kinds(items, schema))) or "values")
    elif node.get("type") == "object":
        yield "section" if "properties" in node else "mapping"
    elif "type" in node:
        if node["type"] != "null":
            yield {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(
                node["type"], node["type"]
            )
    else:
        for each in (*node.get("oneOf", ()), *node.get("anyOf", ())):
            yield from _kinds(each, schema)


def _of_a_trial(key: str) -> dict[str, str]:
    """How a setting of trials is swept, whether it makes another trial, and its column."""
    section, _, name = key.partition(".")
    kind = sections().get(section)
    setting = settings_of(kind).get(name) if kind is not None else None
    if setting is None:
        return {}
    return {
        "swept": f"space: {{{key}: {{grid: [...]}}}}",
        "identity": _IDENTITY.get(setting.identity, "yes"),
        "column": setting.column,
    }
