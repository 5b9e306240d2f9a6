"""Text files that are replaced as a whole."""

from __future__ import annotations

from etils import epath


def write_whole(path: epath.PathLike, text: str) -> None:
    """Writes a file so that, killed at any moment, the one before it is still there."""
    path = epath.Path(path)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
