"""Weights from elsewhere become an encoder whole, or are refused by name."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file
from saved import SMALL, random_encoder

from snclr_jax.encoder.stored import open_encoder
from snclr_jax.export.import_weights import import_weights
from snclr_jax.export.run import FORMATS

FORMAT = {"resnet18": "torchvision", "vit_ti": "timm"}


def config_of(name, **fields):
    return tiny.config(model__name=name, **SMALL[name] | fields)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, mesh_of):
    """Returns {name: (encoder, tensors under the library's names, file)}."""
    found = {}
    for name, format in FORMAT.items():
        file = tmp_path_factory.mktemp(name) / "weights.safetensors"
        encoder, _ = random_encoder(name, mesh_of(1))
        FORMATS[format].save(file, encoder)
        found[name] = encoder, load_file(file), file
    return found


@pytest.fixture
def imported(tmp_path, mesh_of):
    """Returns a function from tensors and a config to the imported encoder."""

    def run(tensors, config, **arguments):
        weights, out = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
        out.unlink(missing_ok=True)
        save_file(tensors, weights)
        said = import_weights(weights, out, config, **arguments)
        assert said.startswith(f"{out}: imported encoder")
        return open_encoder(out, mesh=mesh_of(1))

    return run


@pytest.mark.parametrize("name", FORMAT)
def test_an_exported_encoder_comes_back(name, exported, tmp_path, mesh_of):
    encoder, _, file = exported[name]
    out = tmp_path / "ours.safetensors"
    import_weights(file, out, config_of(name))
    again = open_encoder(out, mesh=mesh_of(1))
    assert again.fingerprint == encoder.fingerprint
    assert (again.network, again.step) == ("imported", 0)


def test_layers_are_stacked_where_the_config_scans(exported, imported):
    encoder, tensors, _ = exported["vit_ti"]
    again = imported(tensors, config_of("vit_ti", model__scan=True)).tensors()
    kernel = again["params/encoder/blocks/fc1/kernel"]
    for layer, own in enumerate(kernel):
        name = f"params/encoder/blocks_{layer}/fc1/kernel"
        np.testing.assert_array_equal(own, encoder.tensors()[name])


def test_moco_checkpoints_give_one_network_without_its_heads(exported, imported):
    encoder, tensors, _ = exported["resnet18"]
    base = {f"module.base_encoder.{name}": each for name, each in tensors.items()}
    average = {
        f"module.momentum_encoder.{name}": each + 1 for name, each in tensors.items()
    }
    heads = {
        "module.base_encoder.fc.0.weight": np.ones((3, 2), np.float32),
        "module.predictor.0.weight": np.ones((3, 3), np.float32),
    }
    config = config_of("resnet18")
    found = imported(base | average | heads, config)
    assert found.fingerprint == encoder.fingerprint
    name = "params/encoder/layer1_0/conv1/kernel"
    found = imported(base | average | heads, config, network="target").tensors()
    np.testing.assert_array_equal(found[name], encoder.tensors()[name] + 1)
    config.evaluate.network = "target"
    found = imported(base | average | heads, config).tensors()
    np.testing.assert_array_equal(found[name], encoder.tensors()[name] + 1)
    with pytest.raises(ValueError, match="network 'ema' is unknown"):
        imported(base, config, network="ema")
    with pytest.raises(ValueError, match="--network=online, but .* leave the flag out"):
        imported(tensors, config, network="online")


def test_a_classifier_is_left_out_and_half_precision_read(exported, imported):
    encoder, tensors, _ = exported["resnet18"]
    halves = {
        name: each.astype(np.float16) if each.dtype == np.float32 else each
        for name, each in tensors.items()
    }
    fc = {"fc.weight": np.ones((5, 32), np.float16), "fc.bias": np.ones(5, np.float16)}
    found = imported(halves | fc, config_of("resnet18")).tensors()
    for name, each in encoder.tensors().items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], each, rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_named_and_nothing_written(exported, imported, tmp_path):
    def refused(tensors, message, name="resnet18", **fields):
        with pytest.raises(ValueError, match=message):
            imported(tensors, config_of(name, **fields))
        assert not (tmp_path / "ours.safetensors").exists()

    _, resnet, _ = exported["resnet18"]
    _, vit, _ = exported["vit_ti"]
    left = {name: each for name, each in resnet.items() if name != "bn1.weight"}
    refused(left, "bn1.weight is missing. Nothing was written")
    refused(resnet | {"layer5.x": np.zeros(1, np.float32)}, "layer5.x is not part of")
    wide = {"conv1.weight": np.zeros((4, 3, 7, 7), np.float32)}
    refused(resnet | wide, r"conv1.weight is \(4, 3, 7, 7\), not \(4, 3, 3, 3\)")
    refused(vit, "conv1.weight is missing; and 127 more")
    refused(resnet, "'patchnet' is known to no other tool", name="patchnet")
    refused(vit, "blocks.1.attn.proj.bias is not part", name="vit_ti", model__depth=1)
    refused(vit, r"proj.weight is \(12, 3, 8, 8\)", name="vit_ti", model__patch_size=4)


def test_positions_have_to_be_the_fixed_ones(exported, imported):
    encoder, vit, _ = exported["vit_ti"]
    config = config_of("vit_ti")
    learned = vit["pos_embed"] + np.float32(0.1)
    with pytest.raises(ValueError, match="not the fixed sine-cosine .*off by 0.1"):
        imported(vit | {"pos_embed": learned}, config)
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 16, 12\), not"):
        imported(vit | {"pos_embed": vit["pos_embed"][:, 1:]}, config)
    # The class token's own position is added to it in the network.
    moved = vit["pos_embed"].copy()
    moved[0, 0] = 2
    found = imported(vit | {"pos_embed": moved}, config).tensors()
    name = "params/encoder/cls_token"
    np.testing.assert_allclose(found[name], encoder.tensors()[name] + 2, rtol=1e-6)


def test_a_stated_number_of_heads_has_to_be_the_configs(exported, tmp_path):
    _, tensors, file = exported["vit_ti"]
    config, out = config_of("vit_ti", model__vit_heads="timm"), tmp_path / "o"
    with pytest.raises(ValueError, match="has 12 attention heads, and .* means 3"):
        import_weights(file, out, config)
    save_file(tensors, tmp_path / "w.safetensors")
    out = out.with_suffix(".safetensors")
    said = import_weights(tmp_path / "w.safetensors", out, config)
    assert "3 attention heads" in said and "the weights do not tell" in said


def test_files_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    def refused(file, message):
        with pytest.raises(ValueError, match=message):
            import_weights(file, tmp_path / "o.safetensors", config_of("resnet18"))

    refused(tmp_path / "nothing.safetensors", "nothing.safetensors is not a file")
    (tmp_path / "w.safetensors").write_bytes(b"12345678abc")
    refused(tmp_path / "w.safetensors", "w.safetensors cannot be read")
    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(tmp_path / "w.pth", r"PyTorch.*not installed.*weights_only=True")


@pytest.mark.slow
def test_files_of_torch_are_read_without_running_them(exported, tmp_path, mesh_of):
    torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
    encoder, tensors, _ = exported["resnet18"]
    weights = {
        f"module.base_encoder.{name}": torch.from_numpy(each)
        for name, each in tensors.items()
    }
    file, out = tmp_path / "moco.pth.tar", tmp_path / "ours.safetensors"
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": weights}, file)
    import_weights(file, out, config_of("resnet18"))
    assert open_encoder(out, mesh=mesh_of(1)).fingerprint == encoder.fingerprint

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").mkdir, ())

    torch.save({"state_dict": weights, "trap": Trap()}, file)
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        import_weights(file, out, config_of("resnet18"))
    assert not (tmp_path / "sprung").exists()
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="holds no state_dict"):
        import_weights(file, out, config_of("resnet18"))
