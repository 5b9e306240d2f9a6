"""One deliberate mistake: a small change of one file, which its tests must notice."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mistake(NamedTuple):
    """A change that no test may let pass.

    Attributes:
      file: to be changed, relative to the repository.
      test: the test file that must fail.
      name: what is wrong then.
      right: text that occurs once in the file.
      wrong: what takes its place.
    """

    file: str
    test: str
    name: str
    right: str
    wrong: str

    def made(self) -> str:
        """Returns the file's text with the mistake."""
        text = (ROOT / self.file).read_text()
        assert text.count(self.right) == 1, f"{self.file}: {self.name}: {self.right!r}"
        return text.replace(self.right, self.wrong)


def of(file: str, test: str, *changes: tuple[str, str, str]) -> list[Mistake]:
    """Returns the mistakes of one file: (name, right, wrong) each."""
    return [Mistake(file, test, *change) for change in changes]
