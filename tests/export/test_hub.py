"""A folder for a hub comes back as the encoder, and says what a hub and timm read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from full_disk import full_disk
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from saved import save_random_encoder

import snclr_jax
from snclr_jax.encoder.stored import open_encoder
from snclr_jax.export.hub import save_hub
from snclr_jax.export.run import export

IMAGENET = dict(model__stem="imagenet", model__width=None)


def front_matter(folder):
    _, head, card = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), card


@pytest.fixture
def hub(tmp_path, mesh_of):
    """Returns a function from a network to (encoder, folder)."""

    def make(name, **fields):
        own, out = tmp_path / "own.safetensors", tmp_path / "hub" / "mine"
        encoder = save_random_encoder(own, name, mesh_of(1), **fields)
        said = export(own, out, format="hub")
        assert said.startswith(f"{out}: target encoder") and "README.md says" in said
        names = sorted(each.name for each in out.iterdir())
        assert names == ["README.md", "config.json", "model.safetensors"]
        return encoder, out

    return make


@pytest.mark.parametrize(
    "name, fields",
    [
        ("patchnet", {}),
        ("resnet18", {}),
        ("vit_ti", {}),
        ("vit_ti", dict(model__scan=True)),
    ],
)
def test_a_folder_is_loaded_whole(name, fields, hub):
    encoder, folder = hub(name, **fields)
    for path in (folder, folder / "model.safetensors"):
        loaded = snclr_jax.load_encoder(path).encoder
        assert loaded.fingerprint == encoder.fingerprint
        assert (loaded.network, loaded.step) == ("target", 7)
    config = json.loads((folder / "config.json").read_text())
    assert config["snclr_jax"]["fingerprint"] == encoder.fingerprint
    if name != "vit_ti":
        assert "architecture" not in config, "timm has no such network"
        assert front_matter(folder)[0]["library_name"] == "snclr_jax"


def test_timm_reads_the_names_and_the_network(hub):
    """Its documentation names the fields; its loader was run by hand."""
    encoder, folder = hub("vit_ti", data__image_size=40, model__vit_heads="timm")
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["model_args"] == {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 12,
        "depth": 2,
        "num_heads": 3,
    }
    prepared = config["pretrained_cfg"]
    assert prepared["input_size"] == [3, 32, 32] and prepared["crop_pct"] == 0.8
    assert prepared["mean"] == list(encoder.config.data.mean)
    assert config["num_classes"] == prepared["num_classes"] == 0
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "pt"
        assert file.get_tensor("pos_embed").shape == (1, 17, 12)
        assert "blocks.1.attn.qkv.weight" in file.keys()
    head, card = front_matter(folder)
    assert head["library_name"] == "timm" and "license" not in head
    assert head["pipeline_tag"] == "image-feature-extraction"
    assert {"timm", "snclr_jax", "image-feature-extraction"} <= set(head["tags"])
    assert 'timm.create_model("local-dir:mine", pretrained=True)' in card


def test_a_resnet_is_timms_where_timm_has_it_else_torchvisions(hub):
    _, folder = hub("resnet18", **IMAGENET)
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["global_pool"]) == ("resnet18", "avg")
    assert not config["model_args"]
    tensors = load_file(folder / "model.safetensors")
    assert tensors["bn1.num_batches_tracked"] == 7 and "fc.weight" not in tensors
    _, folder = hub("resnet18")
    assert "architecture" not in json.loads((folder / "config.json").read_text())
    card = front_matter(folder)[1]
    assert "torchvision.models.resnet18()" in card
    assert "load_file('mine/model.safetensors')" in card


def test_a_damaged_folder_is_refused(hub, mesh_of):
    _, folder = hub("patchnet")
    file = folder / "model.safetensors"
    with safe_open(file, framework="numpy") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}

    def refused(changed, message):
        save_file(changed, file, metadata=header)
        with pytest.raises(ValueError, match=message):
            open_encoder(folder, mesh=mesh_of(1))

    less = {name: each for name, each in tensors.items() if name != "join.weight"}
    refused(less, "model.safetensors is damaged: join.weight is missing; export it")
    moved = tensors | {"join.weight": tensors["join.weight"] + np.float32(1)}
    refused(moved, "model.safetensors is damaged: its arrays have the fingerprint")


def test_on_a_full_disk_a_folder_stays_as_it_was(hub):
    encoder, out = hub("patchnet")
    before = {path: path.stat().st_ino for path in out.iterdir()}
    with pytest.raises(OSError, match="safetensors cannot be"), full_disk(4096):
        save_hub(out, encoder)
    assert before == {path: path.stat().st_ino for path in out.iterdir()}


def test_other_peoples_folders_are_left_alone(tmp_path, mesh_of, hub):
    encoder, folder = hub("patchnet")
    own, other = tmp_path / "own.safetensors", tmp_path / "run"
    export(own, folder, format="hub")  # once more
    (other / "checkpoints").mkdir(parents=True)
    (other / "model.safetensors").touch()
    for out, message in (
        (other, f"--out={other} holds other files; name a new folder"),
        (own, f"--out={own} is a file, and --format=hub writes a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            export(own, out, format="hub")
    clone = tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)
    (clone / "LICENSE").touch()
    export(own, clone, format="hub")
    assert open_encoder(clone, mesh=mesh_of(1)).fingerprint == encoder.fingerprint
