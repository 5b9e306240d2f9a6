"""A logger that keeps what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from snclr_jax.run.loggers import LoggedRun, Logger


class KeptLogger(Logger):
    """Refuses what `refused` names: "open", "write", "write_image" or "close"."""

    library: ClassVar[str] = "json"
    opened: ClassVar[list[KeptLogger]] = []
    refused: ClassVar[str] = ""

    def __init__(self, run: LoggedRun) -> None:
        self._may("open")
        self.run, self.id = run, run.id or "named by the service"
        self.numbers, self.images, self.closed = [], [], False
        self.opened.append(self)

    def _may(self, what: str) -> None:
        if self.refused == what:
            raise ConnectionResetError("the service\nis gone")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._may("write")
        self.numbers.append((step, dict(scalars)))

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        self._may("write_image")
        self.images.append((step, name, image.shape))

    def close(self) -> None:
        self._may("close")
        self.closed = True
