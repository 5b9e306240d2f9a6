"""What an image becomes, of the values that are stored of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from snclr_jax.settings.levels import FULL, Levels, parse_levels
from snclr_jax.step.channels import COLOR, channels_of


class Form(NamedTuple):
    """What images become.

    Attributes:
      levels: what becomes black and white in more than 8 bits, see `parse_levels`.
      channels: 3 is color, whatever an image is stored as; of another number, images
        have exactly so many, and keep each as it is.
    """

    levels: Levels = FULL
    channels: int = COLOR

    @classmethod
    def of(cls, data: Any) -> Form:
        """Returns what `config.data` says."""
        return cls(parse_levels(data.get("range")), channels_of(data))

    @property
    def in_color(self) -> bool:
        return self.channels == COLOR


RGB = Form()
