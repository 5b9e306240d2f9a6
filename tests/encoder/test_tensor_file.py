"""Arrays in one file, whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from full_disk import full_disk
from safetensors.numpy import load_file

from snclr_jax.encoder.tensor_file import write_tensors


def test_a_full_disk_is_named_and_leaves_the_file_before(tmp_path):
    path = tmp_path / "encoder.safetensors"
    write_tensors(path, {"a": np.zeros(3, np.float32)}, {"format": "pt"})
    message = f"^{path} cannot be written .*too large"
    with pytest.raises(OSError, match=message), full_disk(4096):
        write_tensors(path, {"a": np.zeros(30_000, np.float32)}, {})
    assert load_file(path)["a"].shape == (3,)
    assert list(tmp_path.iterdir()) == [path]
