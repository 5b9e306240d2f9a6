"""The lock of a workdir: it keeps others out for as long as a run is under way."""

from __future__ import annotations

import os
import socket
from typing import IO

from etils import epath

from snclr_jax.run.files import is_still_at, lock, written

LOCK_FILE = "lock"


class InUse(ValueError):
    """Another run has the workdir."""


class WorkdirLock:
    """Keeps a workdir for this process, from `take` to `close`.

    The kernel lets go of the lock however the process ends.

    Args:
      workdir: the run's folder.
    """

    def __init__(self, workdir: epath.PathLike) -> None:
        self._workdir = workdir
        self._path = epath.Path(workdir) / LOCK_FILE
        self._file: IO | None = None

    def take(self) -> list[str]:
        """Locks the folder, which it makes; returns why not, where it cannot.

        Raises:
          InUse: where another process has it.
          OSError: where it cannot be written to.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self._path, "a+", encoding="utf-8")
        try:
            lacking = lock(file)
        except BlockingIOError as error:
            with file:
                file.seek(0)
                holder = file.read()
            raise InUse(
                f"{self._workdir} is in use by another run ({holder}); wait for it, "
                "stop it, or use another --workdir"
            ) from error
        self.close()
        self._file = file
        own = f"process {os.getpid()} on {socket.gethostname()}"
        with written(self._path):
            file.truncate(0)
            # At once: closing the file would try again what has no room.
            os.write(file.fileno(), own.encode())
        said = f"{self._workdir}: {lacking}; start no second run in it"
        return [said] if lacking else []

    def keep(self) -> None:
        """Takes the lock again where its file was removed, which lets others in.

        Does nothing where no lock was taken, or where the folder is gone, too.

        Raises:
          InUse: where another run has it by now.
        """
        if self._file is None or is_still_at(self._path, self._file):
            return
        if self._path.parent.exists():
            self.take()

    def close(self) -> None:
        """Lets others in."""
        if self._file is not None:
            self._file.close()
