"""An ONNX program computes what the encoder does, of any number of images."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from saved import random_encoder, save_random_encoder

from snclr_jax.encoder.encode import make_encode
from snclr_jax.export import onnx_file
from snclr_jax.export.onnx_graph import OLDEST_OPSET
from snclr_jax.export.run import export

IMAGES = dict(
    data__image_size=40, data__mean=(0.4, 0.5, 0.6), data__std=(0.2, 0.25, 0.3)
)
FIVE = dict(data__channels=5, data__mean=(0.4,) * 5, data__std=(0.2,) * 5)
NETWORKS = {
    "patchnet": ("patchnet", dict(model__depth=2)),
    "vit": ("vit_ti", FIVE),
    "scanned vit": ("vit_ti", dict(model__scan=True, model__vit_heads="timm")),
    "resnet": ("resnet18", dict(model__stem="imagenet")),
    "bottlenecks": ("resnet50", dict(model__width=4, model__depth=None)),
}


def assert_same_features(name, path, rng, mesh, **fields):
    encoder, _ = random_encoder(name, mesh, **IMAGES | fields)
    onnx_file.write_onnx(path, encoder)
    session = onnxruntime.InferenceSession(path)
    encode = make_encode(encoder.model.encode, encoder.config, mesh)
    channels = encoder.config.data.channels
    images = rng.integers(0, 256, (3, 40, 40, channels), dtype=np.uint8)
    expected = np.asarray(encode(encoder.params, encoder.batch_stats, images))
    assert expected.std(axis=0).max() > 0.01, "features that differ by image"
    (several,) = session.run(None, {"images": images})
    (one,) = session.run(["features"], {"images": images[:1]})
    assert several.dtype == np.float32
    np.testing.assert_allclose(several, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one, expected[:1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", ["patchnet", "vit", "resnet"])
def test_onnxruntime_computes_the_same_features(case, tmp_path, rng, mesh_of):
    name, fields = NETWORKS[case]
    assert_same_features(name, tmp_path / "x.onnx", rng, mesh_of(1), **fields)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["scanned vit", "bottlenecks"])
def test_onnxruntime_computes_the_same_of_other_forms(case, tmp_path, rng, mesh_of):
    name, fields = NETWORKS[case]
    assert_same_features(name, tmp_path / "x.onnx", rng, mesh_of(1), **fields)


def test_a_program_says_what_it_takes_and_which_encoder_it_is(tmp_path, mesh_of):
    own, out = tmp_path / "own.safetensors", tmp_path / "x.onnx"
    encoder = save_random_encoder(own, "vit_ti", mesh_of(1), **IMAGES)
    export(own, out, format="onnx")
    model = onnx.load(out)
    assert [each.version for each in model.opset_import] == [OLDEST_OPSET]
    assert model.ir_version == 8, "of the time of that opset: runtimes refuse later"
    stated = {each.key: each.value for each in model.metadata_props}
    assert stated["fingerprint"] == encoder.fingerprint and stated["step"] == "7"
    card = (tmp_path / "x.onnx.md").read_text()
    assert "onnxruntime.InferenceSession('x.onnx')" in card
    assert "uint8, (b, 40, 40, 3)" in card and ".crop(" not in card
    newest = onnx.defs.onnx_opset_version()
    export(own, out, format="onnx", opset=newest)
    assert onnx.load(out).opset_import[0].version == newest


def test_what_onnx_cannot_take_is_one_line(tmp_path, mesh_of, monkeypatch):
    own, out = tmp_path / "own.safetensors", tmp_path / "x.onnx"
    save_random_encoder(own, "vit_ti", mesh_of(1))

    def refused(message, format="onnx", **settings):
        with pytest.raises(ValueError, match=message) as caught:
            export(own, out, format=format, **settings)
        assert "\n" not in str(caught.value) and not out.exists()

    refused("--opset=11 is too old: .* use --opset=17", opset=11)
    refused("--opset=999 is newer than the installed onnx .* use 17 to", opset=999)
    refused("--opset=17 is of --format=onnx alone", format="timm", opset=17)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "_MOST_BYTES", 1000)
        refused("GiB of weights, .* use --format=stablehlo")
    monkeypatch.delitem(sys.modules, "snclr_jax.export.onnx_file")
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused("needs the package onnx, .* pip install onnx")
