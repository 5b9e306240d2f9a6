"""A folder in the layout of Hugging Face's hub: read by this package, timm and others.

Nothing is sent anywhere: the folder is pushed with the user's own client.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from snclr_jax import __version__
from snclr_jax.encoder.stored import HUB_FILE, TORCH, Encoder, file_header
from snclr_jax.encoder.tensor_file import write_tensors
from snclr_jax.export.load_lines import timm_model
from snclr_jax.export.torch_file import library_tensors
from snclr_jax.run.files import CHECKPOINTS, write_whole
from snclr_jax.step.channels import COLOR, channels_of

CARD_FILE, CONFIG_FILE = "README.md", "config.json"
_TASK = "image-feature-extraction"
FRONT_MATTER = """\
---
library_name: {library}
pipeline_tag: {task}
tags:
{tags}
# license: to be stated by whoever passes this on
---

"""


def check_folder(path: Path) -> None:
    """Refuses a path whose content is neither an earlier export nor a clone of a hub's.

    Raises:
      ValueError: where there is a file, or a folder with other files.
    """
    if path.is_file():
        raise ValueError(f"--out={path} is a file, and --format=hub writes a folder")
    ours = (path / HUB_FILE).exists() or (path / ".git").exists()
    if (path / CHECKPOINTS).exists():
        ours = False  # a run, whose own config.json this would replace
    if path.exists() and any(path.iterdir()) and not ours:
        raise ValueError(
            f"--out={path} holds other files; name a new folder, or one that "
            "--format=hub wrote"
        )


def save_hub(path: Path, encoder: Encoder) -> None:
    """Writes config.json and model.safetensors; the latter is whole by itself.

    The tensors have the names and layouts of timm and torchvision; the header is that
    of `save_encoder`.
    """
    path.mkdir(exist_ok=True)
    tensors = {
        name: np.ascontiguousarray(array) if array.ndim else array
        for name, array in library_tensors(encoder).items()
    }
    # The large file first: where there is no room, all is as it was.
    write_tensors(path / HUB_FILE, tensors, file_header(encoder) | TORCH)
    write_whole(path / CONFIG_FILE, json.dumps(_config(encoder), indent=2) + "\n")


def front_matter(encoder: Encoder) -> str:
    """Returns what a hub reads of a card, in YAML."""
    library = "timm" if timm_model(encoder)[0] else "snclr_jax"
    tags = dict.fromkeys((_TASK, library, "snclr_jax", "self-supervised-learning"))
    lines = "\n".join(f"- {tag}" for tag in tags)
    return FRONT_MATTER.format(library=library, task=_TASK, tags=lines)


def _config(encoder: Encoder) -> dict[str, Any]:
    """Returns config.json: of a network that timm has, what its loader reads."""
    config, features = encoder.config, encoder.model.feature_dim
    size, (name, arguments) = config.augment.size, timm_model(encoder)
    vit, channels = "img_size" in arguments, channels_of(config.data)
    first = "patch_embed.proj" if vit else "conv1"
    content: dict[str, Any] = {"num_classes": 0, "num_features": features}
    if name:
        content |= {
            "architecture": name,
            "global_pool": "token" if vit else "avg",
            "model_args": arguments,
            "pretrained_cfg": {
                "input_size": [channels, size, size],
                "fixed_input_size": vit,
                "interpolation": "bicubic",
                "crop_pct": size / config.data.image_size,
                "crop_mode": "center",
                "mean": list(config.data.mean),
                "std": list(config.data.std),
                "num_classes": 0,
                # What it names, timm would adapt to other channels than color's.
                "first_conv": first if channels == COLOR else None,
                "classifier": "head" if vit else "fc",
            },
        }
    return content | {
        "snclr_jax": {
            "version": __version__,
            "model": config.model.name,
            "network": encoder.network,
            "step": encoder.step,
            "fingerprint": encoder.fingerprint,
        }
    }
