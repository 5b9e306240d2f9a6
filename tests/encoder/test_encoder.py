"""An encoder is read whole, says what it is, or is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from saved import save_random_encoder, save_run

import snclr_jax
from snclr_jax.data.decode import decode_image
from snclr_jax.encoder.stored import open_encoder, save_encoder
from snclr_jax.export.run import export
from snclr_jax.run.digest import digest_of_json
from snclr_jax.run.workdir import as_json


@pytest.fixture(scope="module")
def run(tmp_path_factory, mesh_of):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, *save_run(workdir, mesh_of(4))


@pytest.mark.parametrize("network", ["online", "target"])
def test_an_encoder_is_that_of_the_network_asked_for(run, mesh_of, network):
    workdir, state, config = run
    for path in (workdir, workdir / "checkpoints" / "0"):
        encoder = open_encoder(path, network=network, mesh=mesh_of(8))
        params, batch_stats = state.params, state.batch_stats
        if network == "target":
            params, batch_stats = state.target_params, state.target_batch_stats
        for found, expected in (
            (encoder.params, params),
            (encoder.batch_stats, batch_stats),
        ):
            jax.tree.map(
                np.testing.assert_array_equal, found["encoder"], expected["encoder"]
            )
        assert set(encoder.params) == {"encoder"}
        assert encoder.network == network and encoder.step == 0
        assert as_json(encoder.config) == as_json(config)
        assert len(jax.tree.leaves(encoder.params)[0].devices()) == 8


def test_the_config_says_which_network_is_meant(tmp_path, mesh_of):
    save_run(tmp_path, mesh_of(1), evaluate__network="target")
    assert open_encoder(tmp_path, mesh=mesh_of(1)).network == "target"


def test_what_leaves_a_run_is_the_network_that_is_named(run, tmp_path, mesh_of):
    out = tmp_path / "encoder.safetensors"
    for network, holds in ((None, "online"), ("target", "target")):
        expected = open_encoder(run[0], network=holds, mesh=mesh_of(1)).fingerprint
        export(run[0], out, network=network)
        assert open_encoder(out, mesh=mesh_of(1)).fingerprint == expected
        loaded = snclr_jax.load_encoder(run[0], network=network)
        assert loaded.encoder.fingerprint == expected
        assert snclr_jax.load_encoder(out).encoder.network == holds


def test_networks_without_statistics_are_read_too(tmp_path, mesh_of):
    state, _ = save_run(tmp_path, mesh_of(1), model__name="vit_ti", model__width=12)
    encoder = open_encoder(tmp_path, mesh=mesh_of(1))
    assert encoder.batch_stats == {} and "encoder" not in state.batch_stats
    save_encoder(tmp_path / "vit.safetensors", encoder)
    again = open_encoder(tmp_path / "vit.safetensors", mesh=mesh_of(1))
    assert again.fingerprint == encoder.fingerprint


def test_a_fingerprint_tells_encoders_apart(run, mesh_of):
    online, same, target = (
        open_encoder(run[0], network=network, mesh=mesh_of(count))
        for network, count in (("online", 1), ("online", 8), ("target", 1))
    )
    assert online.fingerprint == same.fingerprint != target.fingerprint
    assert len(online.fingerprint) == 64


def test_an_untrained_encoder_has_the_shapes_and_its_seed(run, mesh_of):
    encoder = open_encoder(run[0], network="target", mesh=mesh_of(1))
    first, again, other = (encoder.untrained(seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.network == "untrained" and first.step == 0
    # The run's own seed is 0, so its untrained network is the one it started from.
    assert first.fingerprint == open_encoder(run[0], mesh=mesh_of(1)).fingerprint


def test_a_file_holds_the_same_encoder(run, tmp_path, mesh_of):
    encoder = open_encoder(run[0], network="target", mesh=mesh_of(1))
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, encoder)
    again = open_encoder(file, mesh=mesh_of(8))
    assert again.fingerprint == encoder.fingerprint
    assert (again.network, again.step) == ("target", 0)
    assert as_json(again.config) == as_json(encoder.config)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    with pytest.raises(ValueError, match="the target network, not the online one"):
        open_encoder(file, network="online", mesh=mesh_of(1))
    with pytest.raises(ValueError, match="must end in .safetensors"):
        save_encoder(tmp_path / "encoder.bin", encoder)


def rewrite(source, target, *, change):
    """Copies a file, with its tensors changed and its header kept."""
    with safe_open(source, framework="numpy") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    change(tensors)
    save_file(tensors, target, metadata=header)


def test_a_file_that_is_not_what_was_saved_is_refused(run, tmp_path, mesh_of):
    encoder = open_encoder(run[0], mesh=mesh_of(1))
    file, changed = tmp_path / "good.safetensors", tmp_path / "changed.safetensors"
    save_encoder(file, encoder)
    with safe_open(file, framework="numpy") as opened:
        name = sorted(opened.keys())[-1]

    def refused(change, message):
        rewrite(file, changed, change=change)
        with pytest.raises(ValueError, match=message):
            open_encoder(changed, mesh=mesh_of(1))

    refused(lambda tensors: tensors.pop(name), f"{name} is missing.*Nothing was loaded")
    refused(
        lambda tensors: tensors.update({"params/encoder/more": np.zeros(2)}),
        "params/encoder/more is not part of it",
    )
    refused(
        lambda tensors: tensors.update({"extra/tensor": np.zeros(2)}),
        "extra/tensor is not part of it",
    )
    refused(
        lambda tensors: tensors.update({name: tensors[name][..., None]}),
        rf"{name} is \(\(.*, 1\), 'float32'\), not",
    )
    refused(
        lambda tensors: tensors.update({name: tensors[name].astype(np.float16)}),
        "'float16'.*not.*'float32'",
    )
    refused(
        lambda tensors: tensors.update({name: np.nextafter(tensors[name], 9e9)}),
        "damaged: its arrays have the fingerprint",
    )
    changed.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="not a whole .safetensors file"):
        open_encoder(changed, mesh=mesh_of(1))
    save_file({"weight": np.zeros(3)}, changed)
    with pytest.raises(ValueError, match="own format: its header names no config"):
        open_encoder(changed, mesh=mesh_of(1))


def test_a_checkpoint_of_another_network_is_refused(run, tmp_path, mesh_of):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    (stored,) = (workdir / "checkpoints" / "0" / "config").glob("metadata")
    (digest,) = (workdir / "checkpoints" / "0" / "digest").glob("metadata")
    config = json.loads(stored.read_text())

    def refused(message, **changed):
        other = config | {"model": config["model"] | changed}
        stored.write_text(json.dumps(other))
        # As if it had been saved so.
        saved = json.loads(digest.read_text()) | {"config": digest_of_json(other)}
        digest.write_text(json.dumps(saved))
        with pytest.raises(ValueError, match=message):
            open_encoder(workdir, mesh=mesh_of(1))

    refused(r"is missing.*Nothing was loaded", depth=2)
    refused("another network than its config: .* is .*, not", width=48)
    refused("another network than its config", name="vit_ti", width=12)
    stored.write_text("{")
    with pytest.raises(ValueError, match="cannot be read; it is damaged"):
        open_encoder(workdir, mesh=mesh_of(1))


def test_a_path_without_a_whole_checkpoint_says_so(run, tmp_path, mesh_of):
    def refused(path, message):
        with pytest.raises(ValueError, match=message):
            open_encoder(path, mesh=mesh_of(1))

    refused(tmp_path / "nothing", "does not exist")
    refused(tmp_path, "no whole checkpoint in .*train first")
    assert not (tmp_path / "checkpoints").exists()
    half = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp-1"
    half.mkdir(parents=True)
    refused(half, "was not written to its end")
    refused(tmp_path, "no whole checkpoint")
    damaged = tmp_path / "checkpoints" / "0"
    shutil.copytree(run[0] / "checkpoints" / "0", damaged)
    for file in (damaged / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    refused(damaged, "cannot be read; it is damaged")
    with pytest.raises(ValueError, match="network 'best' is unknown"):
        open_encoder(run[0], network="best", mesh=mesh_of(1))


def test_a_loaded_encoder_maps_images_of_any_size(run, rng, mesh_of, monkeypatch):
    monkeypatch.setattr("snclr_jax.encoder.loaded._AT_ONCE", 2)
    encode = snclr_jax.load_encoder(run[0], network="online")
    images = rng.integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)
    features = encode(images)
    assert isinstance(features, np.ndarray) and features.dtype == np.float32
    encoder, config = open_encoder(run[0], mesh=mesh_of(1)), run[2]
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file, "png")
    stored = [decode_image(file, config.data.image_size, name="it") for file in files]
    assert config.augment.size == config.data.image_size  # nothing is cut off
    mean, std = (np.array(each) for each in (config.data.mean, config.data.std))
    view = np.float32((np.stack(stored) / 255 - mean) / std)
    encode_view = jax.jit(encoder.model.encode)
    expected = encode_view(encoder.params, encoder.batch_stats, view)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(encode(images[1]), expected[1], atol=1e-5)


def test_maps_and_views_are_of_what_the_encoder_sees(tmp_path, rng, mesh_of):
    """The middle 8 of 12 pixels; on a grid of one place the map is the feature's."""
    own = tmp_path / "own.safetensors"
    fields = dict(data__image_size=12, augment__size=8, model__patch_size=4)
    save_random_encoder(own, "patchnet", mesh_of(1), **fields)
    encode = snclr_jax.load_encoder(own)
    images = rng.integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(encode.views(images), images[:, 2:10, 2:10])
    np.testing.assert_array_equal(encode.views(images[0]), images[0, 2:10, 2:10])
    found = encode.maps(images)["activation"]
    assert found.shape == (3, 1, 1) and found.dtype == np.float32
    features = encode(images)
    np.testing.assert_allclose(
        encode(images, dense=True), features[:, None, None], rtol=1e-5
    )
    assert encode(images[0], dense=True).shape == (1, 1, features.shape[1])
    lengths = np.linalg.norm(features, axis=-1)
    np.testing.assert_allclose(found[:, 0, 0], lengths, rtol=1e-5)
    assert encode.maps(images[0])["activation"].shape == (1, 1)


class Tensor:
    """What PyTorch's have of an array."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def numpy(self):
        return self.array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return Tensor(self.array[index])


@pytest.fixture(scope="module")
def encode(run):
    return snclr_jax.load_encoder(run[0])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_form_of_an_image_is_read_as_the_file_is(encode, rng, tmp_path, mode):
    levels = rng.integers(0, 256, (40, 52, 4), dtype=np.uint8)
    picture = Image.fromarray(levels).convert(mode)
    array, file = np.asarray(picture), tmp_path / "picture.png"
    picture.save(file)
    side = encode.encoder.config.data.image_size
    expected = encode(decode_image(str(file), side, name="it"))
    batch = array[None]
    first = np.moveaxis(batch if array.ndim == 3 else batch[..., None], -1, 1)
    for one in (str(file), file, picture, array, array / 255, Tensor(first[0])):
        np.testing.assert_array_equal(encode(one), expected)
        np.testing.assert_array_equal(encode([one]), expected[None])
    for several in (batch, np.array([str(file)]), Tensor(first)):
        np.testing.assert_array_equal(encode(several), expected[None])


def test_a_list_may_hold_images_of_any_size_and_kind(encode, rng, tmp_path):
    sizes = ((40, 60, 3), (33, 32), (32, 90, 4))
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    Image.fromarray(images[1]).save(tmp_path / "grey.png")
    found = encode([images[0], tmp_path / "grey.png", Image.fromarray(images[2])])
    expected = np.stack([encode(image) for image in images])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_loaded_encoder_says_what_is_no_image_and_what_to_give(encode, tmp_path):
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    (tmp_path / "text.jpg").write_text("text")
    for images, message in (
        (
            255.0 * (pixels + 1),
            "image 0 has values from 255 .*scale them, or give uint8",
        ),
        (pixels.astype(int), "image 0 has values of type int64; give uint8"),
        (pixels[0, 0], r"the image has shape \(8, 3\), and \(h, w\), \(h, w, 1\)"),
        (np.moveaxis(pixels, -1, 1), r"image 0 has shape \(3, 8, 8\).*moveaxis"),
        ([pixels[0], pixels], r"image 1 has shape \(2, 8, 8, 3\), and"),
        (pixels[:0], "images are empty; give one image, or a list"),
        ({"image": pixels}, "images are a dict; give the path of a file, an array"),
        ("nothing.jpg", "the image: there is no file nothing.jpg; check its path"),
        ([pixels[0], tmp_path], rf"image 1 is the folder {tmp_path}; give .*'\*.jpg'"),
        (tmp_path / "text.jpg", "text.jpg cannot be decoded as an image"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            encode(images)
        assert "\n" not in str(refused.value)


def test_the_package_itself_loads_no_jax():
    code = "import snclr_jax, sys; print('jax' in sys.modules, snclr_jax.load_encoder)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.startswith("False <function load_encoder"), ran.stderr
