"""Exported files hold the encoder under the names and layouts that they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from recipes import recipe
from safetensors import safe_open
from safetensors.numpy import load_file
from saved import random_encoder, save_random_encoder

from snclr_jax.data.decode import decode_image
from snclr_jax.encoder.encode import prepare
from snclr_jax.encoder.stored import expected_tensors
from snclr_jax.encoder.torch_names import to_torch
from snclr_jax.export.run import FORMATS, export
from snclr_jax.export.torch_file import detectron2_name, positions

GOLDEN = Path(__file__).parents[1] / "golden"


def stated(file):
    """Returns {name: shape} as a library states them."""
    lines = (GOLDEN / file).read_text().splitlines()
    rows = (line.split() for line in lines)
    return {name: tuple(map(int, shape)) for name, *shape in rows}


def hollow(config):
    """Returns the arrays of a large encoder that take no memory."""
    return {
        name: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for name, leaf in expected_tensors(config).items()
    }


def test_resnet50_has_torchvisions_names_and_shapes():
    found = to_torch(hollow(recipe("imagenet_resnet50")), 3)
    shapes = {name: each.shape for name, each in found.items()}
    counts = {
        name.replace("running_mean", "num_batches_tracked"): ()
        for name in shapes
        if name.endswith("running_mean")
    }
    assert shapes | counts == stated("torchvision_resnet50.txt")


@pytest.mark.parametrize("scan", [False, True])
def test_vit_small_has_timms_names_and_shapes(scan):
    config = recipe("imagenet_vit_s16")
    config.model.scan = scan
    found = to_torch(hollow(config), 3)
    shapes = {name: each.shape for name, each in found.items()}
    shapes["pos_embed"] = positions(14, 384).shape
    assert shapes == stated("timm_vit_small_patch16_224.txt")


def test_detectron2s_names_follow_from_torchvisions():
    names = [n for n in stated("torchvision_resnet50.txt") if "tracked" not in n]
    leaves = ("weight", "bias", "running_mean", "running_var")
    expected = {"stem.conv1.weight", *(f"stem.conv1.norm.{each}" for each in leaves)}
    for stage, blocks in {"res2": 3, "res3": 4, "res4": 6, "res5": 3}.items():
        for block in range(blocks):
            convolutions = ["conv1", "conv2", "conv3"] + ["shortcut"] * (block == 0)
            for conv in convolutions:
                module = f"{stage}.{block}.{conv}"
                expected |= {f"{module}.weight"}
                expected |= {f"{module}.norm.{each}" for each in leaves}
    found = [detectron2_name(name) for name in names]
    assert set(found) == expected and len(found) == len(expected)


def test_each_layout_puts_every_number_in_its_place(mesh_of):
    encoder, _ = random_encoder("resnet18", mesh_of(1))
    ours, theirs = encoder.tensors(), to_torch(encoder.tensors(), 3)
    kernel = ours["params/encoder/layer2_0/downsample_conv/kernel"]
    for i, o in np.ndindex(kernel.shape[2:]):
        assert theirs["layer2.0.downsample.0.weight"][o, i, 0, 0] == kernel[0, 0, i, o]
    kernel = ours["params/encoder/conv1/kernel"]
    for h, w, i, o in np.ndindex(kernel.shape):
        assert theirs["conv1.weight"][o, i, h, w] == kernel[h, w, i, o]
    encoder, _ = random_encoder("vit_ti", mesh_of(1), model__scan=True)
    ours, theirs = encoder.tensors(), to_torch(encoder.tensors(), 3)
    kernel = ours["params/encoder/blocks/qkv/kernel"]
    assert kernel.shape == (2, 12, 36)
    for layer, i, o in np.ndindex(kernel.shape):
        own = theirs[f"blocks.{layer}.attn.qkv.weight"]
        assert own[o, i] == kernel[layer, i, o]
    encoder, _ = random_encoder("vit_ti", mesh_of(1), data__channels=5)
    ours, theirs = encoder.tensors(), to_torch(encoder.tensors(), 5)
    kernel = ours["params/encoder/patch_embed/kernel"].reshape(8, 8, 5, 12)
    for h, w, i, o in np.ndindex(kernel.shape):
        assert theirs["patch_embed.proj.weight"][o, i, h, w] == kernel[h, w, i, o]


def test_files_for_torch_say_what_no_shape_tells(tmp_path, mesh_of):
    vit, resnet = tmp_path / "v.safetensors", tmp_path / "r.safetensors"
    encoder = save_random_encoder(vit, "vit_ti", mesh_of(1))
    export(vit, tmp_path / "timm.safetensors", format="timm")
    with safe_open(tmp_path / "timm.safetensors", framework="numpy") as file:
        assert file.metadata()["num_heads"] == "12"
        assert file.metadata()["fingerprint"] == encoder.fingerprint
        assert file.metadata()["format"] == "pt"
        found = file.get_tensor("pos_embed")
    assert found.shape == (1, 17, 12) and not found[0, 0].any()
    # The second patch lies in row 0 and column 1: its row's sine is 0, its cosine 1.
    np.testing.assert_allclose(found[0, 2, :6], [0, 0, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[0, 2, 6], np.sin(1), atol=1e-6)
    card = (tmp_path / "timm.safetensors.md").read_text()
    assert "num_heads=12" in card and "embed_dim=12, depth=2" in card
    assert "It has 12 attention heads" in card and "img_size=32" in card
    assert "BatchNorm" not in card
    save_random_encoder(resnet, "resnet18", mesh_of(1))
    export(resnet, tmp_path / "tv.safetensors", format="torchvision")
    assert load_file(tmp_path / "tv.safetensors")["bn1.num_batches_tracked"] == 7
    card = (tmp_path / "tv.safetensors.md").read_text()
    assert "torchvision.models.resnet18()" in card and "3 x 3 convolution" in card
    assert "has 4 channels" in card
    assert "running variances of its BatchNorm layers are the unbiased ones" in card
    save_random_encoder(resnet, "resnet18", mesh_of(1), model__stem="imagenet")
    export(resnet, tmp_path / "new" / "d2.safetensors", format="detectron2")
    found = load_file(tmp_path / "new" / "d2.safetensors")
    assert found["stem.conv1.norm.running_var"].shape == (4,)
    assert found["res3.0.shortcut.weight"].shape == (8, 4, 1, 1)
    assert all(name.startswith(("stem.", "res")) for name in found)
    card = (tmp_path / "new" / "d2.safetensors.md").read_text()
    assert "`MODEL.PIXEL_MEAN: [127.5, 127.5, 127.5]`" in card


def test_a_format_refuses_what_it_has_no_names_for(tmp_path, mesh_of):
    own = tmp_path / "own.safetensors"

    def refused(name, format, message, **fields):
        save_random_encoder(own, name, mesh_of(1), **fields)
        with pytest.raises(ValueError, match=message):
            export(own, tmp_path / "x.safetensors", format=format)
        assert not (tmp_path / "x.safetensors").exists()

    refused("patchnet", "timm", r"'patchnet'; use one of \['safetensors', 'stablehlo'")
    refused("resnet18", "timm", "'resnet18'; use one of .*'torchvision', 'stablehlo'")
    refused("resnet18", "detectron2", "model.stem 'cifar'")
    refused("vit_ti", "torchvision", "'vit_ti'; use one of .*'timm'")
    refused("patchnet", "caffe", "--format=caffe is unknown; use one of")
    refused("patchnet", "stablehlo", "does not end in .stablehlo")


def test_a_card_shows_the_scores_of_this_very_encoder(tmp_path, mesh_of):
    own, out = tmp_path / "own.safetensors", tmp_path / "encoder.safetensors"
    encoder = save_random_encoder(own, "patchnet", mesh_of(1))
    record = {"what": "knn", "data": "<my|photos>", "metrics": {"k20": 84.123}}
    records = [
        record | {"fingerprint": encoder.fingerprint},
        record | {"fingerprint": "another", "metrics": {"k20": 12.3}},
    ]
    said = export(own, out, records=records)
    assert said.startswith(f"{out}: target encoder (patchnet) of step 7 from {own}")
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == [out.name, f"{out.name}.md", own.name]
    card = Path(f"{out}.md").read_text()
    assert "| knn | &lt;my\\|photos&gt; | k20 | 84.12 |" in card and "12.3" not in card
    assert encoder.fingerprint in card and "| step | 7 |" in card
    assert "snclr_jax.load_encoder('encoder.safetensors')" in card
    assert "## License\n\nTo be stated" in card and "model.vit_heads" not in card
    export(own, out)
    assert "None: `snclr evaluate`" in Path(f"{out}.md").read_text()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("format", ["torchvision", "safetensors", "stablehlo"])
def test_the_cards_lines_give_the_pixels_of_an_evaluation(
    format, suffix, tmp_path, rng, mesh_of
):
    """Sides that differ by an odd number: the central square lies between pixels."""
    own, out = tmp_path / "own.safetensors", tmp_path / "out.safetensors"
    out = out.with_suffix(FORMATS[format].suffix)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    fields = dict(data__image_size=40, data__mean=mean, data__std=std)
    encoder = save_random_encoder(own, "resnet18", mesh_of(1), **fields)
    export(own, out, format=format)
    images = Path(f"{out}.md").read_text().partition("## Images")[2]
    code = images.partition("```python\n")[2].partition("```")[0]
    for size in ((61, 84), (84, 61), (333, 250), (250, 333), (45, 40), (200, 41)):
        file = tmp_path / f"image.{suffix}"
        noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        names = {"file": str(file)}
        exec(code, names)
        stored = decode_image(str(file), 40, name="it")
        if format == "stablehlo":
            np.testing.assert_array_equal(names["pixels"], stored)
            continue
        view = np.asarray(prepare(stored[None], encoder.config)[0])
        levels = np.rint(255 * (view * std + mean))
        np.testing.assert_array_equal(levels, names["pixels"])
        # A level is 0.013 or more; float32 rounds numbers up to 3.
        np.testing.assert_allclose(names["view"], view, rtol=0, atol=1e-6)
        assert names["view"].dtype == view.dtype


PROGRAM = """
import pathlib, sys
sys.modules["snclr_jax"] = sys.modules["flax"] = None
import jax, numpy
program = jax.export.deserialize(pathlib.Path(sys.argv[1]).read_bytes())
print(*program.platforms)
images = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], three=program.call(images), one=program.call(images[:1]))
"""


def assert_program_runs_alone(name, tmp_path, rng, mesh, **fields):
    own, out = tmp_path / "own.safetensors", tmp_path / "encoder.stablehlo"
    encoder = save_random_encoder(own, name, mesh, data__image_size=40, **fields)
    export(own, out, format="stablehlo")
    images = rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    files = (out, tmp_path / "images.npy", tmp_path / "features.npz")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, files)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["cpu", "cuda", "tpu"]
    config = encoder.config
    assert config.augment.size == 32  # the middle of 40 pixels
    mean, std = (np.array(each) for each in (config.data.mean, config.data.std))
    views = np.float32((images[:, 4:36, 4:36] / 255 - mean) / std)
    expected = jax.jit(encoder.model.encode)(encoder.params, encoder.batch_stats, views)
    with np.load(files[-1]) as found:
        assert found["three"].dtype == np.float32
        np.testing.assert_allclose(found["three"], expected, atol=1e-5)
        np.testing.assert_allclose(found["one"], expected[:1], atol=1e-5)


def test_a_program_runs_without_this_package(tmp_path, rng, mesh_of):
    assert_program_runs_alone("patchnet", tmp_path, rng, mesh_of(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_ti"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_network_becomes_a_program(name, dtype, tmp_path, rng, mesh_of):
    fields = dict(model__dtype=dtype)
    if name == "vit_ti":
        # XLA's CPU compiler of jaxlib 0.10.2 aborts on bfloat16 heads of width 1.
        fields |= dict(model__scan=True, model__width=24)
    assert_program_runs_alone(name, tmp_path, rng, mesh_of(1), **fields)


def compare_with_torch(tmp_path, rng, mesh, module, name, format, **fields):
    """Loads a file into a module of the tests' own, strictly; compares features."""
    import torch
    from safetensors.torch import load_file as load_torch

    own, out = tmp_path / "own.safetensors", tmp_path / "torch.safetensors"
    encoder = save_random_encoder(own, name, mesh, **fields)
    export(own, out, format=format)
    module.load_state_dict(load_torch(out), strict=True)
    module.eval()
    size = encoder.config.augment.size
    views = rng.normal(size=(4, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = module(torch.from_numpy(views).permute(0, 3, 1, 2)).numpy()
    ours = np.asarray(
        jax.jit(encoder.model.encode)(encoder.params, encoder.batch_stats, views)
    )
    assert ours.std(axis=0).max() > 0.01, "features that differ from image to image"
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("depth, width", [(18, 8), (50, 4)])
def test_torch_computes_the_same_features_of_a_resnet(
    depth, width, stem, tmp_path, rng, mesh_of
):
    pytest.importorskip("torch", reason="pip install torch==2.13.0")
    from torch_modules import ResNet

    module, name = ResNet(depth, width, stem), f"resnet{depth}"
    fields = dict(model__width=width, model__depth=None, model__stem=stem)
    fields |= dict(augment__size=64, data__image_size=64)
    compare_with_torch(tmp_path, rng, mesh_of(1), module, name, "torchvision", **fields)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("vit_heads, heads", [("mocov3", 12), ("timm", 6)])
def test_torch_computes_the_same_features_of_a_vit(
    vit_heads, heads, scan, tmp_path, rng, mesh_of
):
    pytest.importorskip("torch", reason="pip install torch==2.13.0")
    from torch_modules import VisionTransformer

    module = VisionTransformer(48, 3, heads, 8, 32)
    fields = dict(model__width=48, model__depth=3, model__patch_size=8)
    fields |= dict(model__vit_heads=vit_heads, model__scan=scan)
    compare_with_torch(tmp_path, rng, mesh_of(1), module, "vit_s", "timm", **fields)
