"""`bad_files.jsonl` in the workdir: every image that could not be read, once."""

from __future__ import annotations

import json
from typing import Any

import jax
from etils import epath

from snclr_jax.data import Data
from snclr_jax.data.shared import tell_bad
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.processes import from_first
from snclr_jax.run.files import write_whole

FILE = "bad_files.jsonl"
_SHOWN = 3  # images that `describe_bad` names


class BadFiles:
    """What `workdir/bad_files.jsonl` holds: JSON, one bad image a line.

    "split" and "index" are the image's index in the set as it was opened, before any
    were held back; "name" is what `Split.names` calls it. Lines are in this order, of
    this and of earlier runs in the workdir; an image that can be read again stays in
    the file and counts no more. Only process 0 writes.

    Args:
      workdir: the run's folder.
      data: the image set.

    Raises:
      ValueError: where the file is damaged, and where more of the images that were bad
        before still are than may be.
    """

    def __init__(self, workdir: str, data: Data) -> None:
        self._path = epath.Path(workdir) / FILE
        self._sets = {"train": data.train.bad}
        if data.test is not None and data.test.bad is not data.train.bad:
            self._sets["test"] = data.test.bad
        self._told = 0
        read = from_first(lambda: read_bad_files(workdir))
        self._lines = {(line["split"], line["index"]): line for line in read}
        in_agreement(self._try_again, lambda _: {})
        tell_bad([*self._sets.values()])

    def _try_again(self) -> None:
        """Decodes those of earlier runs; each process reads some of them."""
        known = [*self._lines][jax.process_index() :: jax.process_count()]
        for split, index in known:
            if split in self._sets and index < self._sets[split].size:
                self._sets[split].try_again(index)

    @property
    def count(self) -> int:
        """Bad images that this process knows of."""
        return sum(len(bad.errors) for bad in self._sets.values())

    def update(self) -> int:
        """Tells every process what the others met, and writes it; all of them call it.

        Returns:
          How many bad images were met since the last time.

        Raises:
          ValueError: in all of them, where more images are bad than may be.
        """
        tell_bad([*self._sets.values()])
        self.close()
        told, self._told = self._told, self.count
        return self.count - told

    def close(self) -> None:
        """Writes what this process has met since."""
        if jax.process_index() != 0:
            return
        known = len(self._lines)
        for split, bad in self._sets.items():
            new = [i for i in bad.errors.copy() if (split, i) not in self._lines]
            for line in bad.lines(sorted(new)):
                self._lines[split, line["index"]] = {"split": split, **line}
        if len(self._lines) == known:
            return
        lines = [json.dumps(self._lines[key]) + "\n" for key in sorted(self._lines)]
        write_whole(self._path, "".join(lines))


def read_bad_files(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the lines of `workdir/bad_files.jsonl`; none where there is no file.

    Raises:
      ValueError: where the file is damaged.
    """
    path = epath.Path(workdir) / FILE
    if not path.exists():
        return []
    try:
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return list({(line["split"], line["index"]): line for line in lines}.values())
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it") from error


def describe_bad(data: Data, become: str = "replaced by others") -> str:
    """Says how many images were bad, and names the first ones; "" where none was.

    Args:
      data: the image set.
      become: what was done about them.
    """
    sets = {data.train.bad, data.test.bad if data.test else data.train.bad}
    errors = [error for bad in sets for error in bad.errors.values()]
    if not errors:
        return ""
    named = "; ".join(sorted(error.describe() for error in errors)[:_SHOWN])
    return f"{len(errors)} images were {become}: {named}"
