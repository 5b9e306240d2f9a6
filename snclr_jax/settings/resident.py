"""Which training sets stay on the devices, decoded, and are cropped there."""

from __future__ import annotations

from snclr_jax.step.channels import channels_of

# A decoded set up to this size is kept whole on every device: STL-10's 105,000
# training images of 96 pixels are 2.7 GiB, and leave 13 of the smallest chip's 16.
RESIDENT_BYTES = 3 * 2**30


def is_resident(config, images: int) -> bool:
    """Whether a training set of this many images stays on the device."""
    if config.data.resident is not None:
        return config.data.resident
    pixels = images * config.data.image_size**2
    return pixels * channels_of(config.data) <= RESIDENT_BYTES
