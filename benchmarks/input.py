"""Images per second that a host core decodes and crops for training.

    python benchmarks/input.py

Draws its own JPEGs of 500 x 400 pixels, and cuts two random crops of 224 pixels out of
each: by the pipeline of `snclr train` from an image folder and from a TFDS set, and by
a loop over Pillow that does what torchvision's ImageFolder and RandomResizedCrop do.
Sides take turns. Rates count decoding, cropping and joining batches, not the transfer.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import report
from PIL import Image

from snclr_jax.data.crop import View, crop_boxes, draw_uniforms
from snclr_jax.data.folder import open_folder
from snclr_jax.data.pipeline import train_batches
from snclr_jax.data.prepare.run import prepare
from snclr_jax.data.split import Split
from snclr_jax.data.tfds_source import open_tfds
from snclr_jax.preflight.chips import GPUS, TPUS

IMAGES, HEIGHT, WIDTH, QUALITY = 512, 400, 500, 90
VIEW = View(224, (0.08, 1.0), (3 / 4, 4 / 3))
VIEWS = [VIEW, VIEW]
BATCH = 64
WARM_UP, TIMED = 6, 16  # batches; what was read ahead meanwhile is used up at first
ROUNDS = 5
# Milliseconds of a step of 64 images per v5e chip: the table "Preflight of the
# recipes" of RESULTS.md; both are bound by main memory.
STEPS_V5E = {"ViT-S/16": 91.0, "ResNet-50": 66.9}
IMAGES_PER_STEP = 64
PILLOW, OURS = "Pillow, one after the other", "ours, threads"

Batches = Iterator[dict[str, np.ndarray]]


def draw_photo(seed: int) -> Image.Image:
    """An image whose spectrum falls as a photo's, with the edges of a few objects."""
    random = np.random.RandomState(seed)
    frequency = np.hypot(
        np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None, :]
    )
    frequency[0, 0] = 1.0

    def noise(falloff: float) -> np.ndarray:
        spectrum = np.fft.rfft2(random.randn(HEIGHT, WIDTH)) / frequency**falloff
        values = np.fft.irfft2(spectrum, (HEIGHT, WIDTH))
        return (values - values.mean()) / values.std()

    luma, blue, red = 120 + 45 * noise(1.1), 20 * noise(1.4), 20 * noise(1.4)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(12):
        y, x = random.uniform(0, HEIGHT), random.uniform(0, WIDTH)
        height, width = random.uniform(15, 120, 2)
        inside = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
        for channel, strength in ((luma, 40), (blue, 20), (red, 20)):
            channel[inside] += strength * random.randn()
    planes = [np.clip(np.rint(each), 0, 255) for each in (luma, blue + 128, red + 128)]
    pixels = np.stack(planes, axis=-1).astype(np.uint8)
    return Image.fromarray(pixels, "YCbCr").convert("RGB")


def write_photos(folder: Path) -> int:
    """Writes the JPEGs; returns their mean size in bytes."""
    folder.mkdir()
    for number in range(IMAGES):
        path = folder / f"{number:04}.jpg"
        draw_photo(number).save(path, quality=QUALITY, subsampling="4:2:0")
    return sum(path.stat().st_size for path in folder.iterdir()) // IMAGES


def pillow_batches(folder: Path) -> Batches:
    """The same crops by Pillow alone, one image after the other."""
    paths = sorted(folder.iterdir())
    for step in range(10**9):
        order = np.random.RandomState(step).permutation(len(paths))[:BATCH]
        draws = [draw_uniforms(0, step, v, range(BATCH)) for v in range(len(VIEWS))]
        views = [[] for _ in VIEWS]
        for row, index in enumerate(order):
            with Image.open(paths[index]) as file:
                image = file.convert("RGB")
            shape = image.height, image.width
            boxes = crop_boxes(shape, VIEWS, [numbers[row] for numbers in draws])
            for view, (top, left, height, width) in zip(views, boxes, strict=True):
                area = (left, top, left + width, top + height)
                size = (VIEW.size, VIEW.size)
                crop = image.resize(size, Image.Resampling.BILINEAR, box=area)
                view.append(np.asarray(crop))
        yield {f"view{v}": np.stack(view) for v, view in enumerate(views)}


def our_batches(split: Split, num_workers: int) -> Batches:
    return train_batches(
        split,
        order="random",
        batch_size=BATCH,
        seed=0,
        num_workers=num_workers,
        views=VIEWS,
    )


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keeps this thread, and the threads and processes it starts, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rate(open_batches: Callable[[], Batches], cores: int) -> float:
    """Images per second of a side that runs on so many cores."""
    with on_cores(cores), contextlib.closing(open_batches()) as batches:
        for _ in range(WARM_UP):
            next(batches)
        start = time.perf_counter()
        for _ in range(TIMED):
            next(batches)
        return TIMED * BATCH / (time.perf_counter() - start)


def measure(sides: dict) -> dict[tuple[str, str], float]:
    """Returns the median rate of every side over rounds in which they take turns."""
    rates = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (open_batches, cores) in sides.items():
            rates[name].append(rate(open_batches, cores))
    return {name: statistics.median(each) for name, each in rates.items()}


def needs(per_core: float) -> list[list[str]]:
    """What a chip needs at its step time, and how many cores make that."""
    v5e, h200 = TPUS["v5e"], GPUS["H200"]
    slower = h200.memory_bandwidth / v5e.memory_bandwidth
    rows = []
    for chip, faster in ((v5e, 1.0), (h200, slower)):
        for recipe, milliseconds in STEPS_V5E.items():
            images = 1e3 * IMAGES_PER_STEP / (milliseconds / faster)
            row = [chip.name, recipe, f"{milliseconds / faster:.1f}", f"{images:.0f}"]
            rows.append([*row, f"{images / per_core:.1f}"])
    return rows


def main() -> None:
    packages = ["pillow", "opencv-python-headless", "grain", "array_record"]
    origin = report.origin("python benchmarks/input.py", packages, timed=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        size = write_photos(folder)
        prepare(str(folder), "photos", f"{temporary}/tfds", workers=1)
        tfds = {"train_split": "train", "test_split": "", "max_bad": 0.0}
        files = open_folder(str(folder), VIEW.size, max_bad=0.0, pages=None)[0]
        records = open_tfds("photos", f"{temporary}/tfds", VIEW.size, **tfds)[0]
        sides = {
            (PILLOW, "folder"): (lambda: pillow_batches(folder), 1),
            (OURS, "folder"): (lambda: our_batches(files, 0), 1),
            (OURS, "array_record"): (lambda: our_batches(records, 0), 1),
        }
        for workers in (1, 2):
            name = f"ours, {workers} worker process{'es' * (workers > 1)}"
            for source, split in (("folder", files), ("array_record", records)):
                sides[name, source] = (
                    lambda split=split, workers=workers: our_batches(split, workers),
                    os.cpu_count(),
                )
        rates = measure(sides)
    baseline, best = rates[PILLOW, "folder"], rates[OURS, "folder"]
    report.write(
        "Images that a host core feeds",
        f"Two random crops of {VIEW.size} pixels out of each of {IMAGES} JPEGs of "
        f"{WIDTH} x {HEIGHT}\npixels (quality {QUALITY}, 4:2:0, {size / 1e3:.0f} KB in "
        "the mean), in batches of "
        f"{BATCH}.\nThe first three sides are pinned to one core, threads included; "
        "of the others, the main\nprocess that joins the batches has the cores that "
        "the workers leave.",
        report.table(
            ["side", "images from", "cores", "images/s", "of Pillow's"],
            [
                [side, source, sides[side, source][1], f"{each:.0f}"]
                + [f"{each / baseline:.2f}"]
                for (side, source), each in rates.items()
            ],
        ),
        "What chips need. The step times of a v5e are lower bounds from peak numbers "
        "(`snclr\npreflight`, batch 4096 on 64 chips); those of an H200 are an "
        "estimate: the same step at its\nbandwidth of main memory, which bounds both. "
        "Real steps take longer, and need fewer cores.",
        report.table(
            ["chip", "recipe", "step ms", "images/s", "cores for one chip"],
            needs(best),
        ),
        origin,
    )


if __name__ == "__main__":
    main()
