"""MkDocs hook: writes the configuration reference from the configs' own comments.

A comment explains the assignment below it, and those that follow it without a blank
line or another comment between. A function's docstring explains its section, and what
comes in it before the first comment.
"""

from __future__ import annotations

import ast
import html
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"<!-- fields of configs/(\w+)\.py -->")


class Field(NamedTuple):
    """One field of a config, by its dotted name."""

    name: str
    type: str
    default: str
    explanation: str


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the fields of a config in place of its marker; MkDocs calls it."""
    return MARKER.sub(lambda marker: reference(marker[1]), markdown)


def reference(name: str) -> str:
    """Returns a table of fields for every section of `configs/<name>.py`."""
    explained = explanations((ROOT / "configs" / f"{name}.py").read_text())
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
    explained = explanations((ROOT / "configs" / f"{name}.py").read_text())
    order = {path: place for place, path in enumerate(explained)}
    fields = [
        Field(path, kind, default, explained.get(path, ""))
        for path, kind, default in _flatten(config)
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
