"""Several processes that prepare one set, each its part of the shards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

from snclr_jax.data.prepare.shards import JOURNAL, Journal, Shard


class Part(NamedTuple):
    """One of several processes, on machines that see the folder, and its shards."""

    process: int = 0
    processes: int = 1

    @property
    def journal(self) -> str:
        """The file of the journal of its shards."""
        if self.processes == 1:
            return JOURNAL
        return f"prepared-{self.process}-of-{self.processes}.jsonl"

    def all(self) -> list[Part]:
        """Returns every process."""
        return [self._replace(process=number) for number in range(self.processes)]

    def of(self, shards: list[Shard]) -> list[Shard]:
        """Returns those that it writes: as many as any other, one after another."""
        ends = [len(shards) * (self.process + i) // self.processes for i in (0, 1)]
        return shards[slice(*ends)]

    def written(self, folder: Path) -> list[dict[str, Any]]:
        """Returns the journals' lines of all processes, in the order of the shards."""
        lines = []
        for each in self.all():
            with contextlib.suppress(FileNotFoundError):
                # What follows the last line is nothing, or still being written.
                *whole, _ = (folder / each.journal).read_bytes().split(b"\n")
                lines += map(json.loads, whole[1:])
        return lines


ALONE = Part()


def check_part(folder: Path, part: Part) -> None:
    """Refuses another number of processes: two would write the same file.

    Raises:
      ValueError: where the folder was begun by another one, or there is no such part.
    """
    if not 0 <= part.process < part.processes:
        raise ValueError(
            f"--process={part.process} is not one of --processes={part.processes}; use "
            f"0 to {part.processes - 1}"
        )
    begun = {path.name for path in folder.glob("prepared*.jsonl")}
    shared = begun - {JOURNAL}
    own = {each.journal for each in part.all()}
    if (shared or begun) - own:
        raise ValueError(
            f"{folder} was begun by another number of processes than --processes="
            f"{part.processes} ({', '.join(sorted(shared or begun))}); use theirs, or "
            "delete the folder"
        )


@contextlib.contextmanager
def joined(
    folder: Path, identity: dict[str, Any], part: Part, lines: list[dict[str, Any]]
) -> Generator[None]:
    """Makes one journal of those of all processes, and keeps others out meanwhile.

    Args:
      folder: of the set.
      identity: see `Journal`.
      part: this process.
      lines: of all shards.

    Raises:
      Busy: where another process is at it.
    """
    if part.processes == 1:
        yield
        return
    with contextlib.closing(Journal(folder, identity)) as whole:
        for line in lines[len(whole.shards) :]:
            whole.add(line)
        yield
        for each in part.all():
            (folder / each.journal).unlink(missing_ok=True)
