"""The embedded image sets: handwritten digits drawn in colour, alone and in pairs.

The 1,797 digits of 8 x 8 grey levels that scikit-learn carries (UCI, "Optical
recognition of handwritten digits") are divided into 1,500 originals to train on and
297 to test on. Each is drawn several times, at a random size, shift, angle and pair of
colours, so that raw pixels say little about the class and no download is needed. Two of
them side by side are of one of a hundred classes, whose pictures share few originals.
"""

from __future__ import annotations

import numpy as np

from snclr_jax.data.split import Split
from snclr_jax.settings.embedded import EMBEDDED

TEST_ORIGINALS = 297
TEST_PICTURES = 4  # per original, whatever the training set: one test set for all runs
MAX_ANGLE = 20.0  # degrees: a 6 stays a 6
# Width of the box around one digit or two, as a part of the picture's.
BOX = {1: (13 / 32, 22 / 32), 2: (22 / 32, 30 / 32)}
POOL = 50  # originals that are paired with one another alone, and held back together
MIN_CONTRAST = 48.0  # difference in luminance, of 255, at which a person still reads
GRADIENT = 32.0  # standard deviation, of 255, between the two ends of the ground
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def open_digits(
    name: str, image_size: int, pictures_per_digit: int
) -> tuple[Split, Split, tuple[str, ...]]:
    """Draws the training and test splits; the same arguments give the same pixels.

    Args:
      name: of `EMBEDDED`, which says how many digits m are in a picture; the second
        one is a random original, drawn anew for each picture.
      image_size: side s of the pictures in pixels, 16 or more.
      pictures_per_digit: pictures drawn of each training original; more pictures
        leave the first ones as they are.

    Returns:
      The training split (1500 * pictures_per_digit images), the test split (1188) and
      the class names, numbers of m digits. `group` is the original's number, or that
      of the pool which pairs are made in: no original is in two groups.

    Raises:
      ValueError: for a side under 16 or no pictures.
    """
    if image_size < 16:
        raise ValueError(
            f"data.image_size is {image_size}; digits can be read from 16 pixels on"
        )
    if pictures_per_digit < 1:
        raise ValueError(
            f"data.pictures_per_digit is {pictures_per_digit}; use 1 or more"
        )
    # Takes longer to load than JAX.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits, labels = map(np.asarray, load_digits(return_X_y=True))
    masks = (digits / 16).reshape(-1, 8, 8).astype(np.float32)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=TEST_ORIGINALS,
        stratify=labels,
        random_state=0,
    )
    side_by_side = EMBEDDED[name]

    def draw(part: int, originals: np.ndarray, copies: int, split: str) -> Split:
        # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
        drawn = [
            originals[_places(len(originals), side_by_side, [part + 2, copy])]
            for copy in range(copies)
        ]
        images = [
            draw_digits(
                np.concatenate([masks[each] for each in of_copy.T], axis=2),
                image_size,
                np.random.RandomState([part, copy]),
            )
            for copy, of_copy in enumerate(drawn)
        ]
        pixels = np.concatenate(images)
        tens = 10 ** np.arange(side_by_side)[::-1]
        pool = np.arange(len(originals)) // POOL
        return Split(
            pixels.__getitem__,
            size=len(pixels),
            labels=(labels[np.concatenate(drawn)] @ tens).astype(np.int32),
            group=np.tile(originals if side_by_side == 1 else pool, copies).astype(
                np.int32
            ),
            names=f"{name}/{split}",
        )

    return (
        draw(0, train, pictures_per_digit, "train"),
        draw(1, test, TEST_PICTURES, "test"),
        tuple(f"{n:0{side_by_side}}" for n in range(10**side_by_side)),
    )


def _places(count: int, side_by_side: int, seed: list[int]) -> np.ndarray:
    """Returns (count, m) places of the originals of each picture; the first is its own.

    The others are of the same pool of `POOL` neighboring places.
    """
    first = np.arange(count)
    start = first // POOL * POOL
    size = np.minimum(count - start, POOL)
    share = np.random.RandomState(seed).uniform(0, 1, (side_by_side - 1, count))
    others = (start + share * size).astype(int)
    return np.concatenate([first[None], others]).T


def draw_digits(
    masks: np.ndarray, side: int, random: np.random.RandomState
) -> np.ndarray:
    """Draws digits once each: random size, shift, angle, ink and ground.

    A pixel is a * ink + (1 - a) * ground, where the opacity a is the digit, smoothly
    enlarged, at the pixel turned and scaled back into the digit's box.

    Args:
      masks: float32 (n, 8, 8 m), grey levels in [0, 1], 1 is ink; m digits side by
        side, which keep their shape, so that the box of two is twice as wide as high.
      side: side s of the pictures in pixels.
      random: what the pictures are drawn from.

    Returns:
      uint8 (n, s, s, 3).
    """
    n, side_by_side = len(masks), masks.shape[2] // masks.shape[1]
    angle = np.radians(random.uniform(-MAX_ANGLE, MAX_ANGLE, n))
    cos, sin = np.cos(angle), np.sin(angle)
    reach = np.abs(cos) + np.abs(sin)  # side of the upright square around a turned one
    box = np.minimum(random.uniform(*BOX[side_by_side], n) * side, side / reach)
    slack = (side - box * reach) / 2
    center = side / 2 + random.uniform(-1, 1, (2, n)) * slack
    grid = np.arange(side) + 0.5
    x = grid[None, None, :] - center[0][:, None, None]
    y = grid[None, :, None] - center[1][:, None, None]
    cos, sin, box = (v[:, None, None] for v in (cos, sin, box))
    opacity = _sample(masks, (cos * x + sin * y) / box, (cos * y - sin * x) / box)

    ink, start, end = _colors(n, random)
    heading = random.uniform(0, 2 * np.pi, n)[:, None, None]
    across, down = grid[None, None, :] / side - 0.5, grid[None, :, None] / side - 0.5
    t = 0.5 + (np.cos(heading) * across + np.sin(heading) * down) / np.sqrt(2)
    t = t[..., None].astype(np.float32)
    ground = start[:, None, None] + t * (end - start)[:, None, None]
    picture = ground + opacity[..., None] * (ink[:, None, None] - ground)
    return np.rint(picture).astype(np.uint8)


def _sample(masks: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Masks (n, h, w) at positions x, y (n, s, s) from their middle, in widths.

    0 outside. Bilinear in a four times larger mask, itself enlarged by a Gaussian of
    half a cell: the edges of the cells vanish, and a point costs 4 reads, not 16.
    """
    scale, margin = 4, 2 * 4  # two empty cells around the mask
    high, wide = masks.shape[1:]

    def weights(cells: int) -> np.ndarray:
        fine = (np.arange(cells * scale + 2 * margin) + 0.5 - margin) / scale
        near, all_cells = (
            np.exp(-0.5 * ((fine[:, None] - each - 0.5) / 0.5) ** 2)
            for each in (np.arange(cells), np.arange(-4, cells + 4))
        )
        return (near / all_cells.sum(1, keepdims=True)).astype(np.float32)

    large = np.einsum(
        "ah,nhw,bw->nab", weights(high), masks, weights(wide), optimize=True
    )
    rows, columns = large.shape[1:]

    def at(v: np.ndarray, cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        v = np.clip((v + 0.5) * cells * scale + margin - 0.5, 0, size - 1.001)
        return v.astype(np.intp), (v % 1).astype(np.float32)

    (column, right), (row, below) = (
        at(x, wide, columns),
        at(y * (wide / high), high, rows),
    )
    corner = (np.arange(len(masks))[:, None, None] * rows + row) * columns + column
    flat = large.ravel()
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    corner = corner + columns
    lower = flat[corner] * (1 - right) + flat[corner + 1] * right
    return upper * (1 - below) + lower * below


def _colors(
    n: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ink and the ground's two ends, float32 (n, 3) each, redrawn until legible."""
    colors = np.empty((3, n, 3), np.float32)
    todo = np.arange(n)
    while len(todo):
        ink, start = random.uniform(0, 255, (2, len(todo), 3))
        end = np.clip(start + random.normal(0, GRADIENT, start.shape), 0, 255)
        colors[:, todo] = ink, start, end
        luminance = colors[:, todo] @ LUMINANCE
        contrast = luminance[0] - luminance[1:]
        # Both ends on the same side of the ink, so the digit never fades into it.
        legible = np.abs(contrast).min(0) >= MIN_CONTRAST
        legible &= contrast[0] * contrast[1] > 0
        todo = todo[~legible]
    return colors[0], colors[1], colors[2]
