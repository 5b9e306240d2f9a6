"""Weights from elsewhere, without ever running what a pickle says."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from snclr_jax.encoder.stored import SUFFIX
from snclr_jax.encoder.torch_names import Tensors


def read_weights(path: str | Path) -> tuple[Tensors, dict[str, str]]:
    """Returns the tensors of a file as float32, and what its header says.

    Args:
      path: a safetensors file, or, where PyTorch is installed, one of `torch.save`,
        which PyTorch then reads with `weights_only=True`.

    Raises:
      ValueError: where it cannot be read, or not without running a pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--weights={path} is not a file")
    if path.suffix == SUFFIX:
        tensors, header = _read_safetensors(path)
    else:
        tensors, header = _read_torch(path), {}
    return {
        name: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in tensors.items()
    }, header


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, file.metadata() or {}
    # A type that numpy lacks is a TypeError.
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(
            f"--weights={path} cannot be read: it is damaged, or its tensors are not "
            f"float32 or float16 ({error})"
        ) from error


def _read_torch(path: Path) -> Tensors:
    try:
        # Not among the requirements.
        import torch  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ValueError(
            f"--weights={path} is not a {SUFFIX} file, and PyTorch, which could read "
            "it, is not installed: pip install torch, or turn it into one where it is: "
            f'safetensors.torch.save_file(torch.load("{path.name}", '
            f'weights_only=True), "{path.stem}{SUFFIX}")'
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"--weights={path} cannot be read as tensors alone, and nothing else is "
            f"read; save its state_dict by itself. PyTorch says: {error}"
        ) from error
    # As MoCo v3's checkpoints and many others keep it, beside the optimizer's state.
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {
        name: value.float().numpy() if value.is_floating_point() else value.numpy()
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ValueError(f"--weights={path} holds no state_dict: no tensors by name")
    return tensors
