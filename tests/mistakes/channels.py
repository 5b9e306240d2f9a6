"""Mistakes with images that are not in color."""

from __future__ import annotations

from mistakes.mistake import of

FILES = "tests/data/test_channels.py"
VIEWS = "tests/step/test_augment.py"
EXPORTED = "tests/export/test_channels_of_files.py"

MISTAKES = [
    *of(
        "snclr_jax/data/decode.py",
        FILES,
        (
            "Pillow reads TIFFs of many channels",
            "if form.channels > 1 and is_tiff(file)",
            "if False",
        ),
        (
            "a pipe is waited for where images are not in color",
            "    check_file(file, page)\n    if form.channels",
            "    if form.channels",
        ),
    ),
    *of(
        "snclr_jax/data/tiff.py",
        FILES,
        (
            "pages are not channels",
            "if page is None and count == 1 and",
            "if False and",
        ),
    ),
    *of(
        "snclr_jax/data/upright.py",
        FILES,
        (
            "any number of channels is as good",
            "    if count in wanted:",
            "    if count:",
        ),
        (
            "more channels than are read are to be set",
            "    if count > MOST:",
            "    if False:",
        ),
        (
            "images of own channels lie on their side",
            '''channels.
    """
    image = ImageOps.exif_transpose(image)''',
            '''channels.
    """''',
        ),
    ),
    *of(
        "snclr_jax/data/pixels.py",
        FILES,
        (
            "many channels are resized as a mean",
            "return np.stack(each, axis=-1)",
            "return np.stack([np.mean(each, axis=0)] * len(each), axis=-1)",
        ),
        (
            "gray arrays become color where one channel is asked for",
            "    if not form.in_color:\n        return pixels\n",
            "",
        ),
    ),
    *of(
        "snclr_jax/data/crop.py",
        FILES,
        (
            "crops of many channels are those of the first",
            "for of in cv2.split(pixels)]",
            "for of in [pixels[..., 0].copy()] * pixels.shape[2]]",
        ),
    ),
    *of(
        "snclr_jax/data/choose_channels.py",
        FILES,
        (
            "a run that is continued measures again",
            "    if not found and measure:",
            "    if measure:",
        ),
        (
            "deviations are those around zero",
            "squares / count - mean**2",
            "squares / count",
        ),
        (
            "what is constant is divided by 0",
            "np.maximum(std, _LEAST)",
            "std",
        ),
        (
            "one view keeps its colors",
            'views = ("view1", "view2", "local")',
            'views = ("view1", "local")',
        ),
    ),
    *of(
        "snclr_jax/data/depth.py",
        FILES,
        (
            "the range of many channels is not found",
            "            values = stored_values(image)",
            "            values = None",
        ),
    ),
    *of(
        "snclr_jax/step/augment.py",
        VIEWS,
        (
            "contrast is around the first channel",
            "return pixels.mean(axis=0, keepdims=True)",
            "return pixels[:1]",
        ),
        (
            "hue changes in other images than RGB",
            "of_color |= settings.saturation > 0 or settings.hue > 0",
            "of_color |= settings.saturation > 0",
        ),
        (
            "one mean serves every channel",
            "if not len(mean) == len(std) == channels:",
            "if False:",
        ),
    ),
    *of(
        "snclr_jax/encoder/torch_names.py",
        "tests/export/test_export.py",
        (
            "patches of other channels are out of order",
            "array = array.reshape(side, side, channels, -1)",
            "array = array.reshape(channels, side, side, -1).transpose(1, 2, 0, 3)",
        ),
    ),
    *of(
        "snclr_jax/encoder/init_from.py",
        "tests/encoder/test_init_from.py",
        (
            "a run starts from an encoder of other channels",
            "    if given != ours:",
            "    if False:",
        ),
    ),
    *of(
        "snclr_jax/export/load_lines.py",
        EXPORTED,
        (
            "timm is not told the channels",
            '{"in_chans": channels}',
            "{}",
        ),
        (
            "the stem of a file for torchvision is that of color",
            "torch.nn.Conv2d({channels}, 64",
            "torch.nn.Conv2d(3, 64",
        ),
    ),
    *of(
        "snclr_jax/export/hub.py",
        EXPORTED,
        (
            "timm adapts the stem to other channels",
            "first if channels == COLOR else None",
            "first",
        ),
    ),
    *of(
        "snclr_jax/visualize/pictures.py",
        "tests/visualize/test_pictures.py",
        (
            "gray images are red",
            "    if channels == 1:",
            "    if False:",
        ),
    ),
    *of(
        "snclr_jax/explore/duplicates.py",
        "tests/explore/test_arrays.py",
        (
            "copies have their channels first",
            "return np.moveaxis(np.asarray(copies), 0, -1)",
            "return np.asarray(copies)",
        ),
    ),
    *of(
        "snclr_jax/run/workdir.py",
        "tests/run/test_workdir.py",
        (
            "a run from before channels is another one",
            '{"channels": COLOR} | theirs.get("data", {})',
            'theirs.get("data", {})',
        ),
    ),
]
