"""Encoded images, read and decoded once by worker processes to see that they can be.

The workers load this file and what it imports: neither JAX nor TFDS.
"""

from __future__ import annotations

import collections
import io
import multiprocessing
import signal
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from snclr_jax.data.decode import UnreadableImage, check_size, decode_image
from snclr_jax.data.prepare.sources import EncodedImage
from snclr_jax.data.worker import start_worker

# A task is large enough to cost more than its hand-over, and small enough to wait.
_TASK_IMAGES = 128
_TASK_BYTES = 4 * 2**20

Checked = tuple[EncodedImage, bytes | str]  # the encoded bytes, or why it is left out


def read_checked(
    images: Iterable[EncodedImage], workers: int
) -> Generator[Checked, None, None]:
    """Reads images in their order, with worker processes that decode each of them.

    What a worker hands over are words. Encoded images are read again, from the system's
    memory: a worker that was killed while it handed over megabytes would be waited for
    without end, since the others keep the pipe open.

    Args:
      images: what to read.
      workers: number of processes.

    Yields:
      The image, and its encoded bytes or the reason why it cannot be used.

    Raises:
      OSError: where a file cannot be read, or has changed since it was found.
      ValueError: where a worker was killed.
    """
    pool = ProcessPoolExecutor(
        workers,
        # A forked copy of a process with JAX's threads may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    waiting: collections.deque[tuple[list[EncodedImage], Future]] = collections.deque()
    try:
        for task in _tasks(images):
            waiting.append((task, pool.submit(_check_all, task)))
            if len(waiting) > 2 * workers:
                yield from _result(*waiting[0])
                waiting.popleft()
        while waiting:
            yield from _result(*waiting[0])
            waiting.popleft()
    except BrokenProcessPool as error:
        raise ValueError(
            "a worker process was killed, perhaps for lack of memory, at an image from "
            f"{waiting[0][0][0].location if waiting else 'the first'} on; continue "
            "with the same command, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def check_image(image: EncodedImage) -> str:
    """Decodes an image; returns why it is left out, "" where it can be used.

    Raises:
      OSError: where its file cannot be read, or has changed since it was found.
    """
    if image.size == 0:
        return "empty, a link to nothing, or not a file"
    try:
        check_size(image.size)
        # At a side of 1, a JPEG is decoded at an eighth of its size: every one of its
        # bytes is still read.
        decode_image(io.BytesIO(read_encoded(image)), 1, name=image.location)
    except UnreadableImage as error:
        return error.reason
    except ValueError as error:
        return str(error)
    return ""


def read_encoded(image: EncodedImage) -> bytes:
    """Returns the bytes of an image.

    Raises:
      OSError: where its file cannot be read, or has changed since it was found.
    """
    with open(image.file, "rb") as file:
        file.seek(image.offset)
        content = file.read(image.size)
    if len(content) != image.size:
        raise OSError(
            f"{image.location} has changed since it was found: {len(content)} bytes of "
            f"{image.size} are left"
        )
    return content


def _check_all(images: list[EncodedImage]) -> list[str]:
    return [check_image(image) for image in images]


def _tasks(images: Iterable[EncodedImage]) -> Iterator[list[EncodedImage]]:
    task: list[EncodedImage] = []
    size = 0
    for image in images:
        task.append(image)
        size += image.size
        if len(task) == _TASK_IMAGES or size >= _TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _result(task: list[EncodedImage], future: Future) -> Iterator[Checked]:
    for image, reason in zip(task, future.result(), strict=True):
        yield image, reason or read_encoded(image)


def _start_worker() -> None:
    start_worker()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which the pool ends the others
    warnings.simplefilter("ignore")  # such as damaged EXIF, which hurts no pixel
