"""How a file is loaded and images are prepared: lines of code that its card shows."""

from __future__ import annotations

from ml_collections import ConfigDict

from snclr_jax.encoder.stored import HUB_FILE, Encoder
from snclr_jax.export.torch_file import attention_heads
from snclr_jax.models.resnet import STRUCTURE, WIDTH
from snclr_jax.models.vit import DEPTH
from snclr_jax.step.channels import COLOR, channels_of

# timm's names of the networks, whose sizes are then given one by one.
_TIMM = {"vit_ti": "tiny", "vit_s": "small", "vit_b": "base", "vit_l": "large"}


def load_lines(encoder: Encoder, file: str, format: str) -> str:
    """Returns Markdown that shows how to load a file.

    Args:
      encoder: that the file holds.
      file: its name.
      format: a key of `FORMATS`.
    """
    write = {
        "safetensors": _own,
        "stablehlo": _stablehlo,
        "torchvision": _torchvision,
        "detectron2": _detectron2,
        "timm": _timm,
        "onnx": _onnx,
        "hub": _hub,
    }
    return write[format](encoder, file)


def image_lines(config: ConfigDict, *, view: bool) -> str:
    """Returns Markdown that shows how `file`, an image, is read for an evaluation.

    Args:
      config: of the run. Of images that are not in color, the lines begin with `image`,
        the array of what is stored.
      view: cut the middle out and normalize it, or stop at what is stored of an image.
    """
    stored, size = config.data.image_size, config.augment.size
    first = (stored - size) // 2
    box = (first, first, first + size, first + size)
    mean, std = list(config.data.mean), list(config.data.std)
    channels, crop = channels_of(config.data), f".crop({box})" if view else ""
    lines = ["import numpy as np", "from PIL import Image, ImageOps"]
    if channels == COLOR:
        lines += _color_lines(stored, crop)
    else:
        lines += [
            f"# image: uint8, (h, w, {channels}); of more than 8 bits, a level v of",
            "# the range from low to high is floor(256 (v - low) / (high - low)).",
            "pixels = np.stack([",
            "    np.asarray(ImageOps.fit(",
            f"        Image.fromarray(channel), {(stored, stored)}, "
            "Image.Resampling.BICUBIC",
            f"    ){crop})",
            "    for channel in np.moveaxis(image, -1, 0)",
            "], axis=-1)",
        ]
    if view:
        lines.append(f"view = np.float32((pixels / 255 - {mean}) / {std})")
    return _python(*lines)


def _color_lines(stored: int, crop: str) -> list[str]:
    return [
        "image = Image.open(file)",
        f"image.draft(None, {(2 * stored, 2 * stored)})  # large JPEGs at a part of it",
        'image = ImageOps.exif_transpose(image).convert("RGB")',
        f"image = ImageOps.fit(image, {(stored, stored)}, Image.Resampling.BICUBIC)",
        f"pixels = np.asarray(image{crop})",
    ]


def stored_as(config: ConfigDict) -> str:
    """Returns type and shape of the images that a program takes."""
    side = config.data.image_size
    return f"uint8, (b, {side}, {side}, {channels_of(config.data)})"


def _own(encoder: Encoder, file: str) -> str:
    return _python(
        "import snclr_jax",
        f"encoder = snclr_jax.load_encoder({file!r})",
        "features = encoder(images)  # paths, PIL images or arrays, of any sizes",
    )


def _stablehlo(encoder: Encoder, file: str) -> str:
    return "With `pip install jax flatbuffers`:\n\n" + _python(
        "import pathlib, jax",
        f"program = jax.export.deserialize(pathlib.Path({file!r}).read_bytes())",
        f"features = program.call(images)  # {stored_as(encoder.config)}",
    )


def _torchvision(encoder: Encoder, file: str) -> str:
    model, channels = encoder.config.model, channels_of(encoder.config.data)
    lines = [f"model = torchvision.models.{model.name}()"]
    cifar = model.stem == "cifar"
    if cifar or channels != COLOR:
        stem = "3, stride=1, padding=1" if cifar else "7, stride=2, padding=3"
        lines.append(
            f"model.conv1 = torch.nn.Conv2d({channels}, 64, {stem}, bias=False)"
        )
    if cifar:
        lines.append("model.maxpool = torch.nn.Identity()")
    text = _python(
        "import torch, torchvision, safetensors.torch",
        *lines,
        "model.fc = torch.nn.Identity()  # no classifier: the model returns features",
        f"model.load_state_dict(safetensors.torch.load_file({file!r}))",
        "model.eval()",
    )
    if cifar:
        text += (
            "\n\nThe stem is that for small images: one 3 x 3 convolution of stride 1, "
            "without a pool, under torchvision's names."
        )
    if model.width not in (None, WIDTH):
        text += (
            f"\n\nIts first stage has {model.width} channels and every layer follows; "
            f"torchvision's constructors have {WIDTH} only, so it needs a ResNet that "
            "is built for that width, under the same names."
        )
    return text


def _detectron2(encoder: Encoder, file: str) -> str:
    data = encoder.config.data
    mean, std = (
        [round(255 * value, 3) for value in values] for values in (data.mean, data.std)
    )
    name = encoder.config.model.name
    text = "Detectron2 reads a pickled dictionary of arrays:\n\n" + _python(
        "import pickle, safetensors.numpy",
        f"model = safetensors.numpy.load_file({file!r})",
        'content = {"model": model, "__author__": "snclr_jax",',
        '           "matching_heuristics": True}',
        'pickle.dump(content, open("backbone.pkl", "wb"))',
    )
    return text + (
        "\n\nAnd in its config: `MODEL.WEIGHTS: backbone.pkl`, "
        f"`MODEL.RESNETS.DEPTH: {name.removeprefix('resnet')}`, "
        "`MODEL.RESNETS.STRIDE_IN_1X1: False`, `INPUT.FORMAT: RGB`, "
        f"`MODEL.PIXEL_MEAN: {mean}`, `MODEL.PIXEL_STD: {std}`."
    )


def _timm(encoder: Encoder, file: str) -> str:
    name, settings = timm_model(encoder)
    heads = settings["num_heads"]
    arguments = ", ".join(f"{name}={value}" for name, value in settings.items())
    text = _python(
        "import timm, safetensors.torch",
        "model = timm.create_model(",
        f'    "{name}", num_classes=0,',
        f"    {arguments},",
        ")",
        f"model.load_state_dict(safetensors.torch.load_file({file!r}))",
        "model.eval()",
    )
    return text + (
        f"\n\n**It has {heads} attention heads.** No shape tells: with another number "
        "the file loads as well, and the features are wrong. (timm's own ViT-S has 6 "
        "heads, MoCo v3's 12; the file's header has `num_heads`.)"
    )


def timm_model(encoder: Encoder) -> tuple[str, dict[str, int]]:
    """Returns timm's name of a network, and the arguments that make it this one.

    The name is "" where timm has no such network: patchnet, a ResNet of another width
    or with the stem for small images.
    """
    model, channels = encoder.config.model, channels_of(encoder.config.data)
    own = {} if channels == COLOR else {"in_chans": channels}
    if model.name in STRUCTURE:
        known = model.stem == "imagenet" and model.width in (None, WIDTH)
        return model.name if known else "", own
    if model.name not in _TIMM:
        return "", {}
    return f"vit_{_TIMM[model.name]}_patch16_224", dict(
        img_size=encoder.config.augment.size,
        patch_size=model.patch_size,
        embed_dim=encoder.model.feature_dim,
        depth=model.depth or DEPTH[model.name],
        num_heads=attention_heads(model),
        **own,
    )


def _hub(encoder: Encoder, file: str) -> str:
    text = _own(encoder, file)
    if timm_model(encoder)[0]:
        return f"{text}\n\nOr, with timm:\n\n" + _python(
            "import timm",
            f'model = timm.create_model("local-dir:{file}", pretrained=True)',
            'model.eval()  # "hf-hub:OWNER/NAME" in its place, once it is on a hub',
        )
    if encoder.config.model.name in STRUCTURE:
        lines = _torchvision(encoder, f"{file}/{HUB_FILE}")
        return f"{text}\n\nOr, with torchvision:\n\n{lines}"
    return text


def _onnx(encoder: Encoder, file: str) -> str:
    return "With `pip install onnxruntime`:\n\n" + _python(
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({file!r})",
        '(features,) = session.run(None, {"images": images})'
        f"  # {stored_as(encoder.config)}",
    )


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
