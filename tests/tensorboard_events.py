"""What TensorBoard would show of a folder."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the (step, value) pairs of every tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            # 8 bytes of length, 4 of its checksum, the event, 4 of its checksum.
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            for value in event.summary.value:
                pair = event.step, value.simple_value
                found.setdefault(value.tag, []).append(pair)
    return found
