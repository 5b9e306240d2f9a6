"""Arrays written to one file, in the safetensors format."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors.numpy import save_file

from snclr_jax.run.files import replaced


def write_tensors(
    path: epath.PathLike, tensors: dict[str, np.ndarray], header: Mapping[str, str]
) -> None:
    """Replaces a file by one of these arrays and this header.

    Raises:
      OSError: where it cannot be written, as `replaced`.
    """
    with replaced(path) as part:
        try:
            save_file(tensors, part, metadata=dict(header))
        except SafetensorError as error:  # its only kind, also where the disk is full
            raise OSError(str(error)) from error
