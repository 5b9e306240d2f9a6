"""The cost of a compiled program, read from its text, against XLA's own account."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.preflight.chips import slice_devices
from snclr_jax.preflight.hlo.work import cost, largest_arrays, list_work


def compile_for(function, *shapes, mesh=None, dtype=jnp.float32):
    """Compiles for arrays of these shapes, whole on every device of the mesh."""
    sharding = NamedSharding(mesh, P()) if mesh else None
    arguments = [jax.ShapeDtypeStruct(s, dtype, sharding=sharding) for s in shapes]
    return jax.jit(function).lower(*arguments).compile()


def cost_of(function, *shapes, **options):
    return cost(compile_for(function, *shapes, **options).as_text())


def layer(x, w):
    return jnp.tanh(x @ w)


def conv(x, w):
    return jax.lax.conv_general_dilated(
        x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_gradients(x, w):
    return jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), (0, 1))(x, w)


def dilated_conv(x, w):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        ((2, 1), (0, 3)),
        lhs_dilation=(2, 1),
        rhs_dilation=(1, 2),
        feature_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def max_pool(x):
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "SAME")


def batched(a, b):
    return jnp.einsum("bij,bkj->bik", a, b)


LOOP_FREE = [
    (layer, (64, 32), (32, 48)),
    (batched, (8, 16, 32), (8, 24, 32)),
    (conv, (8, 16, 16, 4), (3, 3, 4, 8)),
    (conv_gradients, (8, 16, 16, 4), (3, 3, 4, 8)),
    (dilated_conv, (2, 9, 9, 4), (3, 2, 2, 6)),
    (max_pool, (4, 16, 16, 8)),
    (lambda x: jax.nn.softmax(x, axis=1), (64, 100)),
]


@pytest.mark.parametrize("function, shapes", [(f, s) for f, *s in LOOP_FREE])
def test_loop_free_programs_cost_what_xla_says(function, shapes):
    compiled = compile_for(function, *shapes)
    xla = compiled.cost_analysis()
    ours = cost(compiled.as_text())
    assert ours.flops == xla["flops"] + xla.get("transcendentals", 0)
    # XLA also counts indices and padding values, a few bytes each.
    assert ours.bytes == pytest.approx(xla["bytes accessed"], rel=1e-3)
    assert not ours.notes


def looped(x, w):
    return jax.lax.fori_loop(0, 7, lambda i, x: layer(x, w), x)


def looped_from_two_by_scan(x, w):
    def outer(x, _):
        return jax.lax.fori_loop(2, 5, lambda i, x: layer(x, w), x), None

    return jax.lax.scan(outer, x, length=5)[0]


def unrolled(times):
    def function(x, w):
        for _ in range(times):
            x = layer(x, w)
        return x

    return function


@pytest.mark.parametrize("loop, times", [(looped, 7), (looped_from_two_by_scan, 3 * 5)])
def test_a_loop_costs_what_its_unrolled_twin_costs(loop, times):
    shapes = (64, 32), (32, 32)
    ours, twin = cost_of(loop, *shapes), cost_of(unrolled(times), *shapes)
    # The counters themselves are the difference.
    assert twin.flops <= ours.flops <= twin.flops + 10 * times
    assert twin.bytes <= ours.bytes <= 1.15 * twin.bytes
    assert not ours.notes


def test_the_trip_count_is_read_from_the_counter_where_nothing_else_says_it():
    text = compile_for(looped_from_two_by_scan, (64, 32), (32, 32)).as_text()
    bare = text.replace("known_trip_count", "nothing")
    assert bare != text
    assert cost(bare) == cost(text)


def test_a_loop_of_unknown_length_counts_once_and_is_reported():
    def until_small(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: layer(x, w), x)

    ours = cost_of(until_small, (64, 32), (32, 32))
    assert ours.flops == pytest.approx(2 * 64 * 32 * 32 + 64 * 32, abs=10)
    assert "no fixed length: counted once" in ours.notes[0]


def test_a_conditional_costs_its_dearest_branch():
    def choose(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: layer(layer(x, w), w), lambda: x + 1)

    def skip_all_but_some(x, w):
        def body(i, x):
            return jax.lax.cond(i < 2, lambda: layer(layer(x, w), w), lambda: x)

        return jax.lax.fori_loop(0, 6, body, x)

    shapes = (64, 32), (32, 32)
    twin = cost_of(unrolled(2), *shapes).flops
    assert cost_of(choose, *shapes).flops == pytest.approx(twin, abs=10)
    assert cost_of(skip_all_but_some, *shapes).flops == pytest.approx(6 * twin, abs=100)


def test_slices_and_updates_inside_a_loop_count_their_part_of_the_array():
    def add_rows(x, y):
        def body(i, y):
            row = jax.lax.dynamic_slice_in_dim(x, i, 1)
            return jax.lax.dynamic_update_slice_in_dim(y, row * 2, i, 0)

        return jax.lax.fori_loop(0, 1000, body, y)

    ours = cost_of(add_rows, (1000, 64), (1000, 64))
    array = 1000 * 64 * 4
    # Read and write every row once, and at most a copy of each argument.
    assert 2 * array <= ours.bytes <= 2 * array + 4 * array + 100_000


def test_a_scatter_into_two_arrays_counts_the_updates_of_both():
    text = """\
HloModule jit_f, num_partitions=1

%both (a: f32[], b: s32[], u: f32[], v: s32[]) -> (f32[], s32[]) {
  %a = f32[] parameter(0)
  %b = s32[] parameter(1)
  %u = f32[] parameter(2)
  %v = s32[] parameter(3)
  %sum = f32[] add(%a, %u)
  ROOT %pair = (f32[], s32[]) tuple(%sum, %v)
}

ENTRY %main (x: f32[1000], y: s32[1000], i: s32[10,1], u: f32[10]) -> f32[] {
  %x = f32[1000]{0} parameter(0)
  %y = s32[1000]{0} parameter(1)
  %i = s32[10,1]{1,0} parameter(2)
  %u = f32[10]{0} parameter(3)
  %v = s32[10]{0} parameter(4)
  ROOT %s = (f32[1000]{0}, s32[1000]{0}) scatter(%x, %y, %i, %u, %v), to_apply=%both
}
"""
    ours = cost(text)
    # Read and write 10 places of each array, read 10 updates of each and 10 indices.
    assert (ours.flops, ours.bytes) == (10, 4 * (20 + 20 + 20 + 10))


def test_collectives_are_counted_with_the_bytes_of_their_results(mesh_of):
    mesh = mesh_of(8)

    def on_each_device(x):
        def body(i, x):
            return x + jax.lax.psum(x, "data") / 8

        x = jax.lax.fori_loop(0, 3, body, x)
        everything = jax.lax.all_gather(x, "data", tiled=True)
        part = jax.lax.psum_scatter(everything * everything, "data", tiled=True)
        swapped = jax.lax.all_to_all(part, "data", 1, 1, tiled=True)
        neighbor = [(i, (i + 1) % 8) for i in range(8)]
        return jax.lax.ppermute(swapped, "data", neighbor)

    function = jax.shard_map(
        on_each_device, mesh=mesh, in_specs=P("data"), out_specs=P("data")
    )
    sharding = NamedSharding(mesh, P("data"))
    shape = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=sharding)
    ours = cost(jax.jit(function).lower(shape).compile().as_text())
    row = 16 * 4
    assert ours.collectives == {
        "all-reduce": (3, 3 * 8 * row),
        "all-gather": (1, 64 * row),
        "reduce-scatter": (1, 8 * row),
        "all-to-all": (1, 8 * row),
        "collective-permute": (1, 8 * row),
    }


def test_a_scope_has_its_own_share_gradient_and_loops_included():
    def both(x, w):
        x = layer(x, w)
        with jax.named_scope("search"):
            return jax.lax.fori_loop(0, 3, lambda i, x: layer(x, w), x).sum()

    compiled = compile_for(jax.grad(both, (0, 1)), (64, 32), (32, 32))
    whole = cost(compiled.as_text())
    part = cost(compiled.as_text(), ["search", "push"])
    product = 2 * 64 * 32 * 32
    # Forward one product per layer, backward two; three of four layers are inside.
    assert whole.flops == pytest.approx(12 * product, rel=0.05)
    assert part.flops == pytest.approx(9 * product, rel=0.05)
    assert 0 < part.bytes < whole.bytes
    # A scope is a whole name, not a part of one.
    assert cost(compiled.as_text(), ["sear"]).flops == 0


# What only a TPU's compiler writes: memory on the chip (S(1)), and a collective that
# a fusion starts, others carry on and one ends.
TPU_TEXT = """\
HloModule jit_f, is_scheduled=true, num_partitions=4

%start (p0: f32[8,128]) -> (f32[8,128], f32[32,128], u32[]) {
  %p0 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %g0 = f32[32,128]{1,0:T(8,128)} all-gather(%p0), replica_groups={{0,1,2,3}}, \
dimensions={0}, metadata={op_name="jit(f)/search/all_gather"}, \
backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %c0 = (f32[8,128]{1,0:T(8,128)}, f32[32,128]{1,0:T(8,128)}, u32[]{:S(2)}) \
custom-call(%g0), custom_call_target="AsyncCollectiveStart"
}

%carry (p1: f32[8,128], p2: f32[32,128]) -> f32[32,128] {
  %p1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %p2 = f32[32,128]{1,0:T(8,128)} parameter(1)
  ROOT %g1 = f32[32,128]{1,0:T(8,128)} all-gather(%p1), replica_groups={{0,1,2,3}}, \
dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

ENTRY %main (x: f32[8,128], w: f32[128,256]) -> f32[8,256] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %w = f32[128,256]{1,0:T(8,128)} parameter(1), metadata={op_name="w"}
  %s = (f32[8,128]{1,0:T(8,128)}, f32[32,128]{1,0:T(8,128)}, u32[]{:S(2)}) \
fusion(%x), kind=kCustom, calls=%start
  %e = f32[32,128]{1,0:T(8,128)} get-tuple-element(%s), index=1
  %d = f32[32,128]{1,0:T(8,128)} fusion(%x, %e), kind=kCustom, calls=%carry
  %copy-start = (f32[128,256]{1,0:T(8,128)S(1)}, f32[128,256]{1,0:T(8,128)}, \
u32[]{:S(2)}) copy-start(%w)
  %copy-done = f32[128,256]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %y = f32[8,256]{1,0:T(8,128)} convolution(%x, %copy-done), dim_labels=bf_io->bf, \
operand_precision={highest,highest}, metadata={op_name="jit(f)/search/dot_general"}
  ROOT %z = f32[8,256]{1,0:T(8,128)S(1)} add(%y, %y), metadata={op_name="jit(f)/add"}
}
"""


def test_a_tpu_program_counts_main_memory_and_each_collective_once():
    whole, part = cost(TPU_TEXT), cost(TPU_TEXT, ["search"])
    assert whole.collectives == {"all-gather": (1, 32 * 128 * 4)}
    product = 2 * 8 * 128 * 256
    assert (whole.flops, part.flops) == (product + 8 * 256, product)
    x, w, y = 8 * 128 * 4, 128 * 256 * 4, 8 * 256 * 4
    # The product reads x and, from the chip, w, whose copy into it belongs to it too.
    assert part.bytes == w + x + y
    preflighted = list_work(TPU_TEXT)[0]
    assert sum(each.passes for each in preflighted) == 6 * product + 8 * 256


def test_library_calls_of_a_gpu_count_as_the_products_that_they_are():
    text = """\
HloModule jit_f, num_partitions=1

ENTRY %main (a: f32[64,32], b: f32[32,48]) -> f32[] {
  %a = f32[64,32]{1,0} parameter(0)
  %b = f32[32,48]{1,0} parameter(1)
  %x = f32[8,4,16,16]{3,2,1,0} parameter(2)
  %k = f32[8,4,3,3]{3,2,1,0} parameter(3)
  %g = (f32[64,48]{1,0}, s8[1024]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],\
"rhs_contracting_dimensions":["0"]}}}
  %f = (f32[8,8,14,14]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), \
custom_call_target="__cudnn$convForward", window={size=3x3}, dim_labels=bf01_oi01->bf01
  %t = f32[64,32]{1,0} custom-call(%a, %a), \
custom_call_target="__cublas$triangularSolve"
  ROOT %u = f32[] custom-call(%a), custom_call_target="mystery"
}
"""
    ours = cost(text)
    assert ours.flops == 2 * 64 * 32 * 48 + 2 * 8 * 8 * 14 * 14 * 4 * 3 * 3
    assert ours.notes == (
        "operations of custom call __cublas$triangularSolve are not counted",
        "operations of custom call mystery are not counted",
    )


@pytest.mark.slow
def test_programs_of_a_tpu_cost_what_xla_says():
    pytest.importorskip("libtpu")
    mesh = make_mesh(slice_devices("v5e:2x2"))
    shapes = (1024, 512), (512, 512)
    ours = cost_of(looped_from_two_by_scan, *shapes, mesh=mesh)
    twin = cost_of(unrolled(15), *shapes, mesh=mesh)
    # Unrolled, each layer's input is rounded to bfloat16 anew, one operation each.
    assert ours.flops == pytest.approx(twin.flops, abs=15 * 1024 * 512)
    assert not ours.notes
    for function, *shapes in LOOP_FREE:
        compiled = compile_for(function, *shapes, mesh=mesh)
        xla = compiled.cost_analysis()
        expected = xla["flops"] + xla.get("transcendentals", 0)
        assert cost(compiled.as_text()).flops == pytest.approx(expected, rel=1e-6)


def test_windows_that_each_hold_a_whole_row_are_one_reduction_of_it():
    """So a TPU's compiler writes a softmax, of which every element needs the sum."""

    def sums(x, pad):
        padding = ((0, 0), (pad, pad))
        window = (1, 1 + 2 * pad)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1), padding)

    assert cost_of(lambda x: sums(x, 15), (8, 16)).flops == 8 * 15
    assert cost_of(lambda x: sums(x, 1), (8, 16)).flops == 8 * 16 * 2


MULTISLICE = """HloModule two, is_scheduled=true, num_partitions=4

ENTRY %main (x: f32[128,1024]) -> f32[256,1024] {
  %x = f32[128,1024]{1,0} parameter(0), metadata={op_name="x"}
  %after = token[] after-all()
  %send = (f32[128,1024]{1,0}, u32[], token[]) send(%x, %after), channel_id=4, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_GATHER"}
  %recv = (f32[256,1024]{1,0}, u32[], token[]) recv(%after), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_GATHER"}
  %done = (f32[256,1024]{1,0}, token[]) recv-done(%recv), channel_id=3, is_host_transfer=true
  ROOT %y = f32[256,1024]{1,0} get-tuple-element(%done), index=0
}
"""  # noqa: E501


def test_what_goes_between_slices_is_counted_apart():
    """As a TPU's compiler writes it: each device sends its rows to the other slice."""
    (collective,) = [w.collective for w in list_work(MULTISLICE)[0] if w.collective]
    assert (collective.kind, collective.group) == ("all-gather", 2)
    assert collective.bytes == pytest.approx(256 * 1024 * 4, abs=8)
    (kind,) = cost(MULTISLICE).collectives
    assert kind == "all-gather between slices"


def test_the_largest_arrays_are_named_and_what_hands_them_on_is_not():
    compiled = compile_for(lambda x, w: jnp.sin(x @ w).sum(), (256, 64), (64, 512))
    (size, what), *rest = largest_arrays(compiled.as_text(), 5)
    assert size == 256 * 512 * 4 and what.startswith("f32[256, 512] ")
    assert all(other < size or "parameter" not in name for other, name in rest)
