"""Griffe extension: a docstring's "Example:" is a block of code, as "Examples:" is."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the heading, which Griffe knows in the plural only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Is called for every function, class and module."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M
            )
