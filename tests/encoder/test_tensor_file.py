"""Arrays in one file, whole or not at all."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from safetensors.numpy import load_file

from snclr_jax.encoder.tensor_file import write_tensors


def test_a_full_disk_is_named_and_leaves_the_file_before(tmp_path):
    path = tmp_path / "encoder.safetensors"
    write_tensors(path, {"a": np.zeros(3, np.float32)}, {"format": "pt"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=f"^{path} cannot be written .*too large"):
            write_tensors(path, {"a": np.zeros(30_000, np.float32)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_file(path)["a"].shape == (3,)
    assert list(tmp_path.iterdir()) == [path]
