"""MkDocs hook: writes the configuration reference from the comments beside each field.

A comment explains the assignment below it, and those that follow it without a blank
line or another comment between. A function's docstring explains its section, and what
comes in it before the first comment.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from snclr_jax.objectives import OBJECTIVES

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"<!-- fields of configs/(\w+)\.py -->")
OBJECTIVES_MARKER = "<!-- fields of every objective -->"


class Field(NamedTuple):
    """One field of a config, by its dotted name."""

    name: str
    type: str
    default: str
    explanation: str


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the fields of a config in place of its marker; MkDocs calls it."""
    if OBJECTIVES_MARKER in markdown:
        markdown = markdown.replace(OBJECTIVES_MARKER, objectives_reference())
    return MARKER.sub(lambda marker: reference(marker[1]), markdown)


def objectives_reference() -> str:
    """Returns a table of fields for every section of every objective."""
    parts = []
    for name, cls in OBJECTIVES.items():
        for section, part in _sections("objective", cls()):
            parts += [
                f"### {name}: `{section}`",
                _escape(" ".join((part.__doc__ or "").split())),
                _table(list(_class_fields(section, part))),
            ]
    return "\n\n".join(parts)


def _sections(path: str, section: Any) -> Iterator[tuple[str, Any]]:
    """Yields a dataclass with its defaults, and those that its fields are, by name."""
    yield path, section
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(part := getattr(section, field.name)):
            yield from _sections(f"{path}.{field.name}", part)


def _class_fields(path: str, section: Any) -> Iterator[Field]:
    """Yields the fields of a dataclass, those that it inherits first."""
    kinds = typing.get_type_hints(type(section), include_extras=True)
    for name, text in _comments(type(section)).items():
        default = getattr(section, name)
        if not dataclasses.is_dataclass(default):
            yield Field(f"{path}.{name}", _kind(kinds[name]), repr(default), text)


def _comments(cls: type) -> dict[str, str]:
    """Returns the comment above each field of a dataclass."""
    names, comments = {field.name for field in dataclasses.fields(cls)}, {}
    for each in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        lines, text = inspect.getsource(each).splitlines(), ""
        for node in ast.parse("\n".join(lines)).body[0].body:
            if isinstance(node, ast.AnnAssign) and node.target.id in names:
                comment = _comment_above(lines, node.lineno)
                if comment or not lines[node.lineno - 2].strip():
                    text = comment
                comments[node.target.id] = text
    return comments


def _kind(kind: Any) -> str:
    """Returns a type with what it allows, in words."""
    match typing.get_origin(kind):
        case typing.Literal:
            return " or ".join(f'"{each}"' for each in typing.get_args(kind))
        case typing.Annotated:
            base, *bounds = typing.get_args(kind)
            signs = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
            rules = (
                f"{signs[type(each).__name__]} {dataclasses.astuple(each)[0]}"
                for each in bounds
            )
            return f"{base.__name__}, {', '.join(rules)}"
        case types.UnionType | typing.Union:
            return f"{_kind(typing.get_args(kind)[0])}, or None"
    return kind.__name__


def reference(name: str) -> str:
    """Returns a table of fields for every section of `configs/<name>.py`."""
    source = ROOT / "configs" / f"{name}.py"
    explained = explanations(source.read_text(encoding="utf-8"))
    sections: dict[str, list[Field]] = {}
    for field in read_fields(name):
        section = field.name.rpartition(".")[0]
        sections.setdefault(section, []).append(field)
    parts = []
    for section, fields in sections.items():
        # Both configs have sections of one name, and share a page.
        title = f"{name}: `{section}`" if section else f"{name}: everything"
        parts += [f"### {title}", _escape(explained.get(section, "")), _table(fields)]
    return "\n\n".join(filter(None, parts))


def read_fields(name: str) -> list[Field]:
    """Returns every field of `configs/<name>.py`, in the order of the file."""
    config = importlib.import_module(f"snclr_jax.configs.{name}").get_config()
    source = ROOT / "configs" / f"{name}.py"
    explained = explanations(source.read_text(encoding="utf-8"))
    order = {path: place for place, path in enumerate(explained)}
    # Of the section, all fields but this one stand in the objective's file.
    order["objective.name"] = order.get("objective", 0)
    names = " or ".join(f'"{each}"' for each in OBJECTIVES)
    explained["objective.name"] = f'{names}, or "module:Class" for one of your own.'
    fields = [
        Field(path, kind, default, explained.get(path, ""))
        for path, kind, default in _flatten(config)
        if not path.startswith("objective.") or path == "objective.name"
    ]
    return sorted(fields, key=lambda field: order.get(field.name, len(order)))


def explanations(source: str) -> dict[str, str]:
    """Returns the text that explains each field and section, by its dotted name."""
    lines = source.splitlines()
    functions = {
        node.name: node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }
    found: dict[str, str] = {}

    def read(function: ast.FunctionDef, prefix: str) -> None:
        text = " ".join((ast.get_docstring(function) or "").split())
        for statement in function.body:
            if not isinstance(statement, ast.Assign):
                continue
            comment = _comment_above(lines, statement.lineno)
            if comment or not lines[statement.lineno - 2].strip():
                text = comment
            _, _, field = ast.unparse(statement.targets[0]).partition(".")
            if not field:
                continue
            found[prefix + field] = text
            value = statement.value
            if isinstance(value, ast.Call) and ast.unparse(value.func) in functions:
                called = functions[ast.unparse(value.func)]
                if not text:
                    found[prefix + field] = ast.get_docstring(called) or ""
                read(called, f"{prefix}{field}.")

    read(functions["get_config"], "")
    return found


def _comment_above(lines: list[str], lineno: int) -> str:
    comment = []
    for line in reversed(lines[: lineno - 1]):
        if not line.strip().startswith("#"):
            break
        comment.append(line.strip().removeprefix("#").strip())
    return " ".join(reversed(comment))


def _flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from _flatten(value, f"{prefix}{name}.")
            continue
        kind = config.get_type(name).__name__
        if value is None:
            kind = f"{kind} or None"
        yield prefix + name, kind, repr(value)


def _table(fields: list[Field]) -> str:
    rows = [
        f"| `{field.name}` | {field.type} | `{field.default}` "
        f"| {_escape(field.explanation)} |"
        for field in fields
    ]
    return "\n".join(
        ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
    )


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_|#])", r"\\\1", html.escape(text, quote=False))
