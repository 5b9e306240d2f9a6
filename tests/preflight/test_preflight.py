"""Preflight says what a step needs, whether it fits, and how long it may take."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import pytest
import tiny
from command import DIGITS, start
from snclr_jax.configs import digits, imagenet_resnet50, imagenet_vit_s16
from snclr_jax.configs.objectives import choose_objective

import snclr_jax.preflight as preflight_package
from snclr_jax.preflight import DoesNotFit, preflight
from snclr_jax.preflight.chips import GPUS, TPUS, chip_of, slice_devices
from snclr_jax.preflight.hlo.work import Collective, Work
from snclr_jax.preflight.lower import compile_step, held_bytes, number_of_images
from snclr_jax.preflight.report import Memory, advice, estimate, time_lines
from snclr_jax.settings.check import check_config


@pytest.fixture
def libtpu():
    pytest.importorskip("libtpu")


def test_the_estimate_takes_the_longer_of_arithmetic_and_memory_and_adds_the_network():
    chip = TPUS["v5e"]
    work = [
        Work("", 2, 197e12, 819e9 / 4, 197e12, None),  # 2 x 1 s, memory 2 x 0.25 s
        Work("", 1, 0.0, 819e9 * 3, 0.0, None),  # 3 s
        # A ring of 4 sends 2 x 3 / 4 of what it adds up.
        Work("", 1, 0.0, 0.0, 0.0, Collective("all-reduce", 200e9, 4)),
        Work("", 1, 0.0, 0.0, 0.0, Collective("reduce-scatter", 200e9, 4)),
        Work("", 1, 0.0, 0.0, 0.0, Collective("all-gather", 200e9, 4)),
        # Between two slices: half of 3.125 GB, at 3.125 GB/s.
        Work("", 2, 0.0, 0.0, 0.0, Collective("all-gather", 3.125e9, 2, True)),
    ]
    time = estimate(work, chip, dtype="bfloat16")
    assert time == pytest.approx((2.0, 3.5, 5.25, 1.0, 5 + 5.25 + 1.0))
    of_gpu = estimate(work[:1], GPUS["H200"], dtype="float32")
    assert of_gpu.arithmetic == pytest.approx(2 * 197 / 494)
    (line,) = [
        line
        for line in time_lines(time, chip, steps=1, between_slices=True)
        if "slices" in line
    ]
    assert "1000.00 ms at 3.125 GB/s a chip" in line
    # Where no rate is known, that is said.
    silent = "\n".join(time_lines(time, TPUS["v4"], steps=1, between_slices=True))
    assert "between slices    not counted" in silent


@pytest.mark.parametrize("recipe", [imagenet_vit_s16, imagenet_resnet50])
@pytest.mark.parametrize("variant", ["", "debug", "paper", "authors"])
def test_imagenet_recipes_are_accepted(recipe, variant):
    devices = 64 if variant != "debug" else 8
    check_config(recipe.get_config(variant), devices=devices)


def test_the_number_of_images_is_given_prepared_or_known(tmp_path):
    config = imagenet_vit_s16.get_config()
    config.data.path = str(tmp_path)
    assert number_of_images(config, 10_000) == 10_000
    assert number_of_images(config, None) == 1_281_167
    config.data.tfds_name = "flowers"
    with pytest.raises(ValueError, match="flowers.*--images=N"):
        number_of_images(config, None)
    assert number_of_images(digits.get_config("debug"), None) == 1500


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:2x2x2", "v4:8x8", "v5e:8x8y"])
def test_a_wrong_topology_is_named_with_examples(name):
    with pytest.raises(ValueError, match=f"--topology={name} is not a TPU .*v5e:8x8"):
        slice_devices(name)


@pytest.mark.parametrize("name", ["v5e:32x32", "v6e:16x32", "v4:16x16x32"])
def test_a_slice_larger_than_its_kind_is_refused_before_it_is_compiled(name):
    kind = name.partition(":")[0]
    said = f"{name} has .* chips, and the largest slice of {kind} has .*--slices"
    with pytest.raises(ValueError, match=said):
        slice_devices(name)


def test_a_missing_libtpu_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "\.\[tpu\]"'):
        slice_devices("v5e:2x2")


@pytest.fixture(scope="module")
def tiny_step(mesh_of):
    config = tiny.config()
    return compile_step(config, mesh_of(8), images=tiny.IMAGES)


def test_the_step_that_is_compiled_takes_the_state_and_batch_of_a_run(
    tiny_step, mesh_of
):
    config, mesh = tiny.config(), mesh_of(8)
    _, _, state = tiny.build(config, mesh)
    batch = tiny.batch(config, mesh)
    # Its signature is the one of a run: it can be called with a run's own arrays.
    state, metrics = tiny_step(state, batch)
    assert int(state.step) == 1 and jnp.isfinite(metrics["loss"])


def test_the_report_of_a_step_that_fits(tiny_step, monkeypatch, capsys):
    monkeypatch.setattr(preflight_package, "compile_step", lambda *_, **__: tiny_step)
    preflight(tiny.config(), images=tiny.IMAGES)
    output = capsys.readouterr().out
    titles = "memory per device", "of which the objective", "time: "
    assert "state.objective" in output and "state.target_params" in output
    assert "largest arrays of the step" in output
    for words in ("compiling", "temporaries", "GFLOP", "all-gather", *titles):
        assert words in output
    assert "no peak numbers are known for cpu" in output
    monkeypatch.setattr(preflight_package, "chip_of", lambda device: TPUS["v5e"])
    preflight(tiny.config(), images=tiny.IMAGES)
    assert "cloud.google.com" in capsys.readouterr().out


def test_what_an_objective_leaves_open_follows_from_the_images_that_are_given(
    tiny_step, monkeypatch, tmp_path
):
    compiled = []

    def compile_it(config, *_, **__):
        compiled.append(config.objective.queue.size)
        return tiny_step

    monkeypatch.setattr(preflight_package, "compile_step", compile_it)
    config = tiny.config(data__name="tfds", data__path=str(tmp_path))
    config = choose_objective(config, "memory_dcl")
    preflight(config, images=1001)
    assert compiled == [1008]  # on eight devices
    with pytest.raises(ValueError, match=r"data\.path"):
        preflight(config)


def test_a_step_that_does_not_fit_names_the_fields_to_change(monkeypatch, tiny_step):
    def out_of_memory(*_, **__):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20G of 15G"
        )

    config = tiny.config()
    monkeypatch.setattr(preflight_package, "compile_step", out_of_memory)
    with pytest.raises(DoesNotFit, match="Used 20G of 15G; use --config.batch_size=8"):
        preflight(config, images=tiny.IMAGES)
    # Where the compiler does not mind, the account says so.
    small = preflight_package.chips.Chip("small", 1, 1, 1000, 1, 1, "")
    monkeypatch.setattr(preflight_package, "chip_of", lambda device: small)
    monkeypatch.setattr(preflight_package, "compile_step", lambda *_, **__: tiny_step)
    with pytest.raises(DoesNotFit, match="model.dtype=bfloat16"):
        preflight(config, images=tiny.IMAGES)


def test_what_is_held_is_counted_on_one_device(mesh_of):
    config, mesh = tiny.config(), mesh_of(8)
    _, _, state = tiny.build(config, mesh)
    held = held_bytes(config, mesh, images=tiny.IMAGES)
    for name in ("params", "objective"):
        leaves = jax.tree.leaves(getattr(state, name))
        here = [leaf.addressable_shards[0].data.nbytes for leaf in leaves]
        assert held[f"state.{name}"] == sum(here) > 0


def test_advice_proposes_only_what_a_run_takes():
    config = imagenet_vit_s16.get_config()
    config.model.bn_scope = None  # over the batch: no micro-batches
    assert "accumulate" not in advice(config, devices=64, images=1_281_167)
    config.objective.queue.size = 64  # half of it is less than one row a device
    assert "queue.size" not in advice(config, devices=64, images=1_281_167)
    config = digits.get_config()  # its network has no blocks to compute again
    assert "model.remat" not in advice(config, devices=1, images=12_000)
    assert "data.resident=False" in advice(config, devices=1, images=12_000)
    config.steps_per_call = 2
    assert "data.resident" not in advice(config, devices=1, images=12_000)


def test_advice_keeps_the_batch_a_multiple_of_the_devices():
    config = imagenet_vit_s16.get_config()
    suggestion = advice(config, devices=64, images=1_281_167)
    assert "batch_size=2048 (it is 4096)" in suggestion
    queue = config.objective.queue
    for field in (
        "model.remat=True (it is False)",
        f"objective.queue.size={queue.size // 2} (it is {queue.size})",
        f"objective.queue.block={queue.block // 4} (it is {queue.block})",
    ):
        assert f"--config.{field}" in suggestion
    assert "resident" not in suggestion
    config.batch_size = 64
    suggestion = advice(config, devices=64, images=10_000)
    assert "batch_size" not in suggestion
    assert "data.resident=False" in suggestion


def test_memory_counts_donated_outputs_once():
    donated = jax.jit(lambda x: x + 1, donate_argnums=0)
    shape = jax.ShapeDtypeStruct((1024,), jnp.float32)
    memory = Memory.of(donated.lower(shape).compile())
    assert memory.aliased == memory.outputs == memory.arguments == 4096
    assert memory.peak == 4096 + memory.temporaries + memory.program


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize(
    "topology, chips, name",
    [
        ("v4:2x2x2", 8, "TPU v4"),
        ("v5e:1x1", 1, "TPU v5e"),
        ("v5p:2x2x1", 4, "TPU v5p"),
        ("v6e:2x4", 8, "TPU v6e"),
    ],
)
def test_every_kind_of_tpu_has_its_slices_and_peak_numbers(topology, chips, name):
    devices = slice_devices(topology)
    assert (len(devices), chip_of(devices[0]).name) == (chips, name)


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
def test_a_slice_that_does_not_exist_is_named_with_examples():
    with pytest.raises(ValueError, match="v5e:8x7 is not a slice that exists.*v5e:8x8"):
        slice_devices("v5e:8x7")


def test_the_command_line_refuses_what_it_cannot_compile():
    cases = {
        ("preflight",): "preflight needs --config=RECIPE",
        ("preflight", DIGITS, "--topology=v5e:8"): "--topology=v5e:8 is not a TPU",
    }
    for process, message in [(start(*each), cases[each]) for each in cases]:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert errors.startswith("snclr: ") and message in errors


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
def test_a_recipe_is_preflighted_for_a_slice_and_may_not_fit():
    vit = ["--config=configs/imagenet_vit_s16.py:debug", "--topology=v5e:2x2"]
    output, _ = start("preflight", *vit).communicate(timeout=600)
    assert "TPU v5e has 16.0 GiB" in output and "recipe" in output
    large = ["--config.batch_size=524288", "--images=1000000"]
    process = start("preflight", *vit, *large)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 3
    assert "does not fit" in errors and "--config.batch_size=262144" in errors
    assert "Traceback" not in errors
