"""Omniglot as its archives unpack: handwritten characters, split by who wrote them.

Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic
program induction", Science 2015. Each character was drawn once by each of 20 people:
`<alphabet>/<character>/<number>_<writer>.png`.
"""

from __future__ import annotations

import re
from pathlib import Path

from snclr_jax.data.folder import Stored, split_of_files
from snclr_jax.data.form import Form
from snclr_jax.data.layout import passed_over, walk
from snclr_jax.data.split import Split
from snclr_jax.settings.paths import expanded

TRAIN_WRITERS = 16  # the first ones; the others' drawings are scored
_DRAWING = re.compile(r"(?:.*/)?([^/]+/[^/]+)/(\d+_(\d\d)\.png)")


def open_omniglot(
    path: str, image_size: int, *, max_bad: float, form: Form
) -> tuple[Split, Split, tuple[str, ...], tuple[str, ...]]:
    """Opens what Omniglot's archives unpack; images are decoded when asked for.

    A class is a character of an alphabet. A drawing that two archives hold, as
    `images_background_small1` and `images_background_small2` do, is one image.

    Args:
      path: folder that holds the alphabets, at any depth.
      image_size: side s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.
      form: see `Encoded`.

    Returns:
      The training split (writers 1 to 16), the test split (the others), the classes'
      names and notes for a person, as `open_folder`.

    Raises:
      ValueError: for a folder that is missing, or lacks drawings of either split.
      OSError: where a folder cannot be listed.
    """
    root = Path(expanded(path))
    found = list(walk(root)) if path and root.is_dir() else []
    drawings: dict[str, tuple[str, str, int]] = {}
    copies = 0
    for name in sorted(name for name, reason in found if not reason):
        if drawing := _DRAWING.fullmatch(name):
            character, file, writer = drawing.groups()
            copies += (key := f"{character}/{file}") in drawings
            drawings.setdefault(key, (name, character, int(writer)))
    writers = [writer for _, _, writer in drawings.values()]
    if not writers or not min(writers) <= TRAIN_WRITERS < max(writers):
        others = passed_over(reason for _, reason in found)
        raise ValueError(
            f"data.path is {path!r}, which holds {len(writers)} drawings, and needs "
            f"some of writers 1 to {TRAIN_WRITERS} and some of others; unpack "
            "images_background_small1.zip and images_background_small2.zip there, "
            "whose files are <alphabet>/<character>/<number>_<writer>.png"
            + (f" (found {others})" if others else "")
        )
    classes = sorted({character for _, character, _ in drawings.values()})
    number = {character: label for label, character in enumerate(classes)}

    def split(writers: range) -> Split:
        of_split = [each for each in drawings.values() if each[2] in writers]
        return split_of_files(
            root,
            "",
            [Stored(name) for name, _, _ in of_split],
            labels=[number[character] for _, character, _ in of_split],
            side=image_size,
            max_bad=max_bad,
            form=form,
        )

    notes = (f"data.path: {copies} drawings are there twice and count once",)
    return (
        split(range(1, TRAIN_WRITERS + 1)),
        split(range(TRAIN_WRITERS + 1, 100)),
        tuple(classes),
        notes if copies else (),
    )
