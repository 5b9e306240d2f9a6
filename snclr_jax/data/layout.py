"""What lies below a folder, or in a tar: images, their splits and their classes.

`train` and `snclr prepare` read an image set by this file alone. Names are paths below
the root of the set, with "/" between folders.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from snclr_jax.data.decode import printable
from snclr_jax.data.formats import SUFFIXES

# What a split's folder may be called, in any case; the first that is there counts.
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
USUAL = TRAIN[0], TEST[0]
# Folders of thumbnails, copies and deleted files that systems and programs make. Those
# of others, such as .ipynb_checkpoints, are hidden.
_MADE_BY_PROGRAMS = (
    "@eadir",
    "@recycle",
    "#recycle",
    "$recycle.bin",
    "__macosx",
    "lost+found",
    "system volume information",
    "thumbnails",
    "thumbs",
)
# What reads files that are passed over.
_READ_BY = {suffix: "pip install 'snclr_jax[heic]'" for suffix in (".heic", ".heif")}
_SHOWN = 3  # names that a note or an error shows
_COUNTED = 8  # suffixes and folders that are counted one by one


class Layout(NamedTuple):
    """Which images of a set are which.

    Attributes:
      train: folder of the training images, "" for the root.
      test: folder of the test images, or None.
      classes: folders in `train`, sorted; None for unlabelled images.
      notes: what a person may not have meant, a sentence each.
    """

    train: str
    test: str | None
    classes: tuple[str, ...] | None
    notes: list[str]


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yields every file below a folder, and every folder that is passed over.

    Links are followed: subsets are often made of links to the folders of a large set.

    Yields:
      The name, and `why_not` of it; files in a folder that is passed over have none.

    Raises:
      ValueError: where a link leads back up.
      OSError: where a folder cannot be listed.
    """
    for folder, folders, files in os.walk(root, onerror=_stop, followlinks=True):
        below = Path(folder).relative_to(root)
        for name in list(folders):
            if _is_passed_over(name):
                folders.remove(name)
                yield (below / name).as_posix(), f"folder {name}"
        _refuse_loops(folder, folders)
        for file in files:
            yield (name := (below / file).as_posix()), why_not(name)


def why_not(name: str) -> str:
    """Returns why a file is not an image of the set, in short; "" where it is one."""
    *folders, file = name.split("/")
    for folder in folders:
        if _is_passed_over(folder):
            return f"folder {folder}"
    if file.startswith("."):
        return "hidden file"
    if file.lower().endswith(SUFFIXES):
        return ""
    return PurePosixPath(file).suffix.lower() or "file without suffix"


def passed_over(reasons: Iterable[str]) -> str:
    """Counts what `why_not` said of some files, in a phrase; "" where it was nothing.

    The most frequent ones come first.
    """
    counts = Counter(filter(None, reasons))
    parts = [
        f"{n} x {_plain(reason)}"
        + (f" ({_READ_BY[reason]} reads them)" if reason in _READ_BY else "")
        for reason, n in counts.most_common(_COUNTED)
    ]
    if len(counts) > _COUNTED:
        parts.append("and others")
    return ", ".join(parts)


def top_folders(root: Path) -> set[str]:
    """Returns the folders in a folder that are not passed over, empty ones too."""
    with os.scandir(root) as entries:
        return {e.name for e in entries if e.is_dir() and not _is_passed_over(e.name)}


def read_layout(
    names: Sequence[str],
    folders: Collection[str],
    *,
    splits: tuple[str, str] = USUAL,
    naming: str,
) -> Layout:
    """Finds out which images of a set are which; docs/data.md has the rules.

    Args:
      names: of the images.
      folders: in the root.
      splits: folders of the training and the test images. Of the first, "" is the
        root; "train" is also another name of `TRAIN` where that can only be meant so,
        and else the root. Of the second, "" is none; a name of `TEST` is also each of
        the others, and none where they are missing.
      naming: how the two are named, for notes.

    Raises:
      ValueError: for a folder that is asked for and not there.
    """
    train = _train_folder(names, folders, splits[0])
    test = _test_folder(folders, splits[1], train)
    inside = below(names, train)
    classes = _class_names(inside, at_root=not train)
    if classes is None:
        test = None  # scores need the classes of training images
    notes = []
    if train or splits[0]:
        notes = _notes_on_folders(names, folders, train, test, naming)
    if not train and classes:
        notes.append(
            f"its {len(classes)} folders ({_first(classes)}) are read as classes, for "
            "scores alone"
        )
    if classes and (loose := [name for name in inside if "/" not in name]):
        notes.append(
            f"{len(loose)} images ({_first(loose)}) lie beside the class folders of "
            f"{train} and have no class"
        )
    if test is not None and not below(names, test):
        notes.append(f"{test} holds no images, so nothing is scored")
        test = None
    return Layout(train, test, classes, notes)


def below(names: Iterable[str], folder: str) -> list[str]:
    """Returns the names in a folder as they are from there; "" is the root."""
    prefix = f"{folder}/" if folder else ""
    return [n.removeprefix(prefix) for n in names if n.startswith(prefix)]


def class_of(name: str) -> str:
    """Returns the class folder that an image of a split lies in, or ""."""
    return name.split("/", 1)[0] if "/" in name else ""


def number_classes(of_images: Iterable[str], classes: Sequence[str]) -> list[int]:
    """Returns the label of each image, -1 where it is of none of the classes."""
    number = {name: label for label, name in enumerate(classes)}
    return [number.get(name, -1) for name in of_images]


def notes_on_test(
    names: Sequence[str], of_images: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Returns what hinders the scores, a sentence each.

    Args:
      names: of the test images.
      of_images: the class of each of them, or "".
      classes: of the training images.
    """
    notes, found, known = [], set(of_images), set(classes)
    unknown = [
        name
        for name, of_image in zip(names, of_images, strict=True)
        if of_image not in known
    ]
    if unknown:
        notes.append(
            f"{len(unknown)} of {len(names)} test images ({_first(unknown)}) are of no "
            "class of the training images and are not scored"
        )
    lacking = [name for name in classes if name not in found]
    if lacking and len(unknown) < len(names):
        notes.append(
            f"the test images lack {len(lacking)} of {len(classes)} classes "
            f"({_first(lacking)})"
        )
    return notes


def as_text(name: os.PathLike | str) -> str:
    """A name that is not UTF-8 could be neither printed nor written to a file."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_passed_over(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in _MADE_BY_PROGRAMS


def _refuse_loops(folder: str, folders: list[str]) -> None:
    """What lies in a link back up would be found again, as images of other classes."""
    for path in (Path(folder, name).absolute() for name in folders):
        if path.is_symlink() and any(path.samefile(above) for above in path.parents):
            raise ValueError(
                f"{path} is a link to a folder that it lies in; remove the link"
            )


def _stop(error: OSError) -> None:
    """Left to itself, os.walk would pass over a folder that it cannot list."""
    raise error


def _train_folder(names: Iterable[str], folders: Collection[str], wanted: str) -> str:
    if not wanted or wanted in folders:
        return wanted
    if wanted != TRAIN[0]:
        raise _missing("data.train_split", wanted, folders, "the whole folder")
    near, tests = named(folders, TRAIN), named(folders, TEST)
    others = set(map(class_of, names)) - {"", *near}
    # "Train" beside "Bus" is a class; alone, or beside "Test", it is a split.
    return near[0] if near and (tests or not others) else ""


def _test_folder(folders: Collection[str], wanted: str, train: str) -> str | None:
    usual = not wanted or wanted in TEST
    if not usual and wanted not in folders:
        raise _missing("data.test_split", wanted, folders, "none")
    if not usual and not train:
        raise ValueError(
            f"data.test_split {wanted!r} lies in the folder of the training images; "
            "name one beside it by data.train_split, or '' for no test images"
        )
    if not wanted or not train:
        return None
    return wanted if wanted in folders else next(iter(named(folders, TEST)), None)


def named(folders: Collection[str], names: Sequence[str]) -> list[str]:
    """Returns the folders of these names in any case, in the order of the names."""
    return [f for name in names for f in sorted(folders) if f.lower() == name]


def _missing(
    field: str, wanted: str, folders: Collection[str], nothing: str
) -> ValueError:
    return ValueError(
        f"{field} {wanted!r} is not a folder in data.path, which has "
        f"{_first(sorted(folders)) or 'none'}; use one of them, or '' for {nothing}"
    )


def _class_names(inside: Sequence[str], *, at_root: bool) -> tuple[str, ...] | None:
    classes = tuple(sorted({class_of(name) for name in inside} - {""}))
    # A folder of photographs has folders, too: only what can be nothing else is read
    # as classes where no folder `train` says so.
    if at_root and (len(classes) < 2 or any(n.count("/") != 1 for n in inside)):
        return None
    return classes or None


def _notes_on_folders(
    names: Iterable[str],
    folders: Collection[str],
    train: str,
    test: str | None,
    naming: str,
) -> list[str]:
    used = [folder for folder in (train, test) if folder]
    unused = Counter(map(class_of, names))
    if not train:
        near = [f for f in named(folders, TRAIN + TEST) if unused[f]]
        return near and [
            f"no folder is called train, so the images in {_first(near)} are trained "
            f"on like all others; {naming} name splits"
        ]
    for folder in used:
        del unused[folder]
    if not unused:
        return []
    counted = [f"{n} in {f}" if f else f"{n} in no folder" for f, n in unused.items()]
    return [
        f"{unused.total()} images beside {' and '.join(map(_plain, used))} are not "
        f"used ({_first(counted)}); {naming} name splits"
    ]


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(map(_plain, names[:_SHOWN]))
    return shown + (", ..." if len(names) > _SHOWN else "")


def _plain(name: str) -> str:
    return printable(as_text(name))
