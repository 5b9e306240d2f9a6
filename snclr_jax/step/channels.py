"""How many channels the images of a run have."""

from __future__ import annotations

from typing import Any

COLOR = 3  # RGB, as which images of one, three or four channels are read by default
MOST = 16


def channels_of(data: Any) -> int:
    """Returns the channels of images.

    Args:
      data: `config.data`, also of a run from before there was a choice.
    """
    return data.get("channels", COLOR)
