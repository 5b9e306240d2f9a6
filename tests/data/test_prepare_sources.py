"""`snclr prepare`: folders and tars, and the mistakes made with them."""

from __future__ import annotations

import io
import json
import random
import tarfile

import pytest
from pictures import (
    pack,
    records,
    save,
    snapshot,
)

from snclr_jax.data.prepare.run import prepare
from snclr_jax.data.prepare.sources import open_source
from snclr_jax.data.tfds_source import open_tfds


@pytest.mark.parametrize("top", ["", "./", "photos/"])
def test_a_packed_folder_is_the_folder(folder, tmp_path, no_pool, top):
    files = [path for path in folder.rglob("*") if path.is_file()]
    random.Random(0).shuffle(files)
    names = {f"{top}{p.relative_to(folder).as_posix()}": p.read_bytes() for p in files}
    tar = pack(tmp_path / "photos.tar", names)
    assert snapshot(prepare(str(tar), "photos", str(tmp_path / "a"))) == snapshot(
        prepare(str(folder), "photos", str(tmp_path / "b"))
    )


def test_imagenets_tars(tmp_path, no_pool):
    # The classes of the first three validation images, as ImageNet's own list has them.
    classes = ("n01751748", "n09193705", "n02105855")
    inner = {}
    for seed, name in enumerate(classes):
        images = {
            f"{name}_{i}.JPEG": save(tmp_path / "1.jpg", 10 * seed + i).read_bytes()
            for i in (7, 3)
        }
        tar = pack(tmp_path / "c.tar", images).read_bytes()
        if seed:  # some writers leave out the empty blocks at the end
            tar = tar[: -(len(tar.rstrip(b"\0")) // -512) * 512]
        inner[f"{name}.tar"] = tar
    train = pack(tmp_path / "ILSVRC2012_img_train.tar", inner)
    images = {
        f"ILSVRC2012_val_0000000{i}.JPEG": save(tmp_path / "1.jpg", 90 + i).read_bytes()
        for i in (3, 1, 2)
    }
    val = pack(tmp_path / "ILSVRC2012_img_val.tar", images)
    out = str(tmp_path)
    made = prepare(str(train), "imagenet2012", out, source_test=str(val))

    names = tuple(sorted(classes))
    split, test, found = open_tfds(
        "imagenet2012", out, 8, train_split="train", test_split="test", max_bad=0.0
    )
    assert found == names and split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [names[label] for label in test.labels] == list(classes)
    assert [r["image"] for r in records(made, "test")] == [
        images[name] for name in sorted(images)
    ]
    assert [r["file_name"].decode() for r in records(made, "train")] == [
        f"{name}/{name}_{i}.JPEG" for name in names for i in (3, 7)
    ]
    # The training tar alone has labels, too.
    prepare(str(train), "alone", out)
    alone = open_tfds("alone", out, 8, train_split="train", test_split="", max_bad=0.0)[
        0
    ]
    assert alone.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_listed_classes_label_a_flat_test_folder(folder, tmp_path, no_pool):
    for seed in range(3):
        save(tmp_path / "flat" / f"{seed}.png", seed)
    (tmp_path / "list.txt").write_text("bee\nant lion\nbee\n")
    prepare(
        str(folder / "train"),
        "photos",
        str(tmp_path),
        source_test=str(tmp_path / "flat"),
        test_labels=str(tmp_path / "list.txt"),
    )
    test = open_tfds(
        "photos", str(tmp_path), 8, train_split="train", test_split="test", max_bad=0.0
    )
    assert test[1].labels.tolist() == [1, 0, 1]


def test_mistakes_are_named(folder, tmp_path):
    train, test = str(folder / "train"), str(folder / "test")
    save(tmp_path / "flat" / "0.png", 0)
    save(tmp_path / "odd" / "cat" / "0.png", 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list").write_text("bee\nbee\n")
    tar = pack(tmp_path / "a.tar", {"a.png": save(tmp_path / "a.png", 0).read_bytes()})
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "a.png", "a.png")
    (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[:700])
    inner = {"a.tar": tar.read_bytes()[:700], "b.tar": tar.read_bytes()}
    pack(tmp_path / "inner.tar", inner)
    flat, listed = str(tmp_path / "flat"), {"test_labels": str(tmp_path / "list")}
    cases = [
        ("nowhere", {}, "--source=nowhere does not exist"),
        (tmp_path / "empty", {}, r"--source=.*empty holds no images; .*\.webp"),
        (tmp_path / "a.tar.gz", {}, r"a\.tar\.gz cannot be read as a tar.*unpack"),
        (tmp_path / "cut.tar", {}, r"cut\.tar cannot be read as a tar.*fetch it again"),
        (
            tmp_path / "inner.tar",
            {},
            r"inner\.tar cannot be read as a tar.*a/a\.png is",
        ),
        (train, {"source_test": "nowhere"}, "--source_test=nowhere does not exist"),
        (flat, {"source_test": test}, "flat has no class folders.*leave out"),
        (train, {"source_test": flat}, r"no class folders \(.*0\.png.*--test_labels"),
        (train, {"source_test": str(tmp_path / "odd")}, r"\['cat'\].*\['ant lion"),
        (train, {"source_test": flat} | listed, "list has 2 lines for 1 test images"),
        (flat, listed, "no class folders, so that test"),
    ]
    for source, options, message in cases:
        with pytest.raises(ValueError, match=message):
            open_source(str(source), **options)


def test_no_tar_leads_out_of_itself(folder, tmp_path, no_pool):
    """Names that climb, links to secrets and devices: nothing is followed or made."""
    image = (folder / "train" / "bee" / "9.png").read_bytes()
    secret = save(tmp_path / "secret.png", 0)
    members = {
        "a.png": (tarfile.REGTYPE, image, ""),
        "/etc/absolute.png": (tarfile.REGTYPE, image, ""),
        "../../climbs.png": (tarfile.REGTYPE, image, ""),
        "b/../../climbs.png": (tarfile.REGTYPE, image, ""),
        "soft.png": (tarfile.SYMTYPE, b"", str(secret)),
        "soft": (tarfile.SYMTYPE, b"", str(tmp_path)),
        "soft/written.png": (tarfile.REGTYPE, image, ""),
        "hard.png": (tarfile.LNKTYPE, b"", str(secret)),
        "device.png": (tarfile.CHRTYPE, b"", ""),
        "pipe.png": (tarfile.FIFOTYPE, b"", ""),
    }
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        for name, (kind, content, target) in members.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            tar.addfile(member, io.BytesIO(content))
    inner = (tmp_path / "evil.tar").read_bytes()
    before = snapshot(tmp_path)
    out = tmp_path / "out"
    made = prepare(
        str(tmp_path / "evil.tar"), "evil", str(out), max_unreadable=0.8, workers=1
    )
    names = [record["file_name"].decode() for record in records(made, "train")]
    assert names == ["a.png", "soft/written.png"]
    assert {record["image"] for record in records(made, "train")} == {image}
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("out") for name in after.keys() - before.keys())
    left_out = {
        line["file"].split(": ")[1]: line["reason"]
        for line in map(json.loads, (made / "unreadable.jsonl").open())
    }
    reason = "empty, a link to nothing, or not a file"
    for name in ("soft.png", "hard.png", "device.png", "pipe.png"):
        assert left_out.pop(name) == reason
    # What climbs out of an inner tar is the same.
    assert left_out.pop("soft") == "file without suffix"
    assert left_out == dict.fromkeys(
        ("/etc/absolute.png", "../../climbs.png", "../climbs.png"),
        "its name leads out of the tar",
    )
    outer = pack(tmp_path / "outer.tar", {"x.tar": inner, "y/b.png": image})
    found = open_source(str(outer)).splits["train"]
    assert [i.name for i in found if i.size] == [
        *("x/a.png", "x/soft/written.png", "y/b.png")
    ]


def test_a_sparse_file_in_a_tar_is_left_out(tmp_path):
    """Its bytes lie in pieces: what follows the header is no image."""
    header = tarfile.TarInfo("s.png")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (1 << 20, 512)
    block[483:495] = b"%011o\0" % ((1 << 20) + 512)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    tar = pack(tmp_path / "a.tar", {"a.png": b"x"}).read_bytes()
    (tmp_path / "s.tar").write_bytes(bytes(block) + b"y" * 512 + tar)
    found = open_source(str(tmp_path / "s.tar")).splits["train"]
    assert [(image.name, image.size) for image in found] == [("a.png", 1), ("s.png", 0)]
