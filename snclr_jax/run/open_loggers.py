"""The loggers that a run has opened: kept apart from it, so that none can end it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

from etils import epath

from snclr_jax.run.files import LOGGERS_FILE, read_if_there, write_whole
from snclr_jax.run.loggers import LOGGERS, LoggedRun, Logger


class Loggers:
    """All loggers of a run, on process 0. None of them can end it once it has begun.

    What a run is called at each is kept in `workdir/loggers.json`.

    Args:
      names: of `LOGGERS`.
      workdir: the run's folder.
      run: what they are told.
      say: prints a line.

    Raises:
      ValueError: where one that the run is new to cannot be opened.
    """

    def __init__(
        self,
        names: Sequence[str],
        workdir: epath.PathLike,
        run: LoggedRun,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._loggers, self._say = {}, say
        path = epath.Path(workdir) / LOGGERS_FILE
        fix = "remove it, and new runs are begun at the loggers"
        before = read_if_there(path, fix) or {}
        for name in names:
            known = before.get(name, "")
            try:
                its_run = dataclasses.replace(run, id=known)
                self._loggers[name] = LOGGERS[name](its_run)
            except Exception as error:  # each library has its own
                if not known:
                    self.close()
                    raise ValueError(
                        f"log.to {name!r} cannot be opened: {_line(error)}; correct "
                        "that, or leave it out"
                    ) from error
                self._lost(name, error)
        ids = {name: logger.id for name, logger in self._loggers.items() if logger.id}
        if ids.items() - before.items():
            write_whole(path, json.dumps(before | ids, indent=2))

    def tell(self, call: Callable[[Logger], None]) -> None:
        """Calls it with each logger; one that fails is said, and not called again."""
        for name, logger in [*self._loggers.items()]:
            try:
                call(logger)
            except Exception as error:  # each library has its own
                del self._loggers[name]
                self._lost(name, error)

    def close(self) -> None:
        """Closes each of them."""
        self.tell(lambda logger: logger.close())

    def _lost(self, name: str, error: Exception) -> None:
        self._say(
            f"log.to {name!r} fails: {_line(error)}; training goes on without it, and "
            "the same command opens it again"
        )


def _line(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]}..."
