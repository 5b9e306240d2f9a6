"""`data.range`: which levels of an image of more than 8 bits become black and white."""

from __future__ import annotations

AUTO = "auto"
Levels = tuple[float, float]
FULL: Levels = (0.0, 65536.0)  # of 16 bits


def parse_levels(text: str | None) -> Levels:
    """Returns (low, high): a level v becomes floor(256 (v - low) / (high - low)).

    Args:
      text: "low,high", brackets are as good; None and "full" are `FULL`.

    Raises:
      ValueError: for anything else, "auto" among it.
    """
    if text is None or text == "full":
        return FULL
    try:
        low, high = map(float, text.strip("()[] ").split(","))
    except ValueError:
        low = high = 0.0
    # Neither infinite nor so close that dividing by the distance fails.
    if not 1e-30 < high - low < 1e30:
        raise ValueError(
            f"data.range {text!r} must be 'full', 'auto', or the levels that become "
            "black and white, such as '0,4096' for 12 bits"
        )
    return low, high
