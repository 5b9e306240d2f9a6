"""Files that are replaced as a whole, or stay as they were."""

from __future__ import annotations

import errno
import os

import pytest

from snclr_jax.run.files import read_lines, replaced, write_whole


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    write_whole(path, "ä")
    assert path.read_bytes() == "ä".encode()
    with replaced(path) as part:
        part.write_text("half")
        assert path.read_bytes() == "ä".encode()
    assert path.read_text() == "half"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # names no file
    message = rf"^{path} cannot be written \(No space left on device\); free space"
    with pytest.raises(OSError, match=message), replaced(path) as part:
        part.write_text("quarter")
        raise full
    assert path.read_text() == "half"
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("Bär\nDachs\n".encode())
    assert read_lines(path) == ["Bär", "Dachs"]
    path.write_bytes("Bär\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes\.txt is not in UTF-8 .* at byte 1"):
        read_lines(path)


def test_what_went_wrong_first_is_said(tmp_path):
    with pytest.raises(NotADirectoryError, match=r"file/new\.part"):
        (tmp_path / "file").write_text("")
        write_whole(tmp_path / "file" / "new", "text")
