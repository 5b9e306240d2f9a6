"""The queue: pushes that wrap, who is eligible, ties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from snclr_jax.queue.ring import find_neighbors, init_queue, push


def keys_of(*numbers, dim=4):
    """Rows that carry their number, so that a test can see who is where."""
    return jnp.stack([jnp.full((dim,), float(number)) for number in numbers])


def push_numbers(queue, numbers, **kwargs):
    image_id = jnp.asarray(numbers, jnp.int32)
    return push(queue, keys_of(*numbers), image_id=image_id, **kwargs)


def test_pushes_wrap_and_lose_no_row():
    queue = init_queue(7, 4)
    held = [None] * 7
    cursor = 0
    for step in range(6):
        numbers = [10 * step + j for j in range(3)]
        queue = push_numbers(queue, numbers, step=step)
        for number in numbers:
            held[cursor % 7] = (number, step)
            cursor += 1
        for row, entry in enumerate(held):
            number, pushed_at = (0, -1) if entry is None else entry
            assert queue.keys[row, 0] == number
            assert queue.pushed_at[row] == pushed_at
            assert queue.image_id[row] == (-1 if entry is None else number)
    assert queue.cursor == cursor % 7


def test_a_batch_larger_than_the_queue_keeps_its_last_rows():
    queue = push_numbers(init_queue(4, 4), range(10), step=0)
    assert sorted(queue.image_id.tolist()) == [6, 7, 8, 9]
    assert queue.cursor == 10 % 4
    # The next push overwrites the oldest, number 6.
    assert 6 not in push_numbers(queue, [10], step=1).image_id


@pytest.mark.parametrize(
    ("size", "batch", "banks"), [(7, 3, 1), (7, 9, 1), (12, 10, 2), (6, 14, 2)]
)
def test_pushes_of_both_views_are_those_of_the_loop(rng, size, batch, banks):
    queue = init_queue(size, 2)
    expected = {name: np.array(leaf) for name, leaf in vars(queue).items()}
    push_batch = jax.jit(functools.partial(push, banks=banks))
    for step in range(3):
        image_id = rng.integers(0, 50, batch).astype(np.int32)
        for _ in range(2):
            keys = rng.normal(size=(batch, 2)).astype(np.float32)
            queue = push_batch(queue, keys, image_id=image_id, step=step)
            oracle.push(expected, keys, image_id, step, banks=banks)
            jax.tree.map(np.testing.assert_array_equal, vars(queue), expected)


@pytest.mark.parametrize("banks", [1, 2])
def test_no_row_is_written_twice_by_one_push(banks):
    """On a CPU the last of two writes stays; on a GPU it may be either."""
    queue = init_queue(4, 2)
    program = jax.make_jaxpr(
        lambda keys: push(
            queue, keys, image_id=jnp.arange(12), step=0, banks=banks, first_row=2
        )
    )(jnp.ones((12, 2)))
    known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    known[program.jaxpr.invars[0]] = jnp.ones((12, 2))
    written = []
    for equation in program.eqns:
        inputs = [getattr(each, "val", None) for each in equation.invars]
        inputs = [
            known[variable] if value is None else value
            for variable, value in zip(equation.invars, inputs, strict=True)
        ]
        if equation.primitive.name == "scatter":
            rows = np.ravel(inputs[1])
            written.append(rows[rows < len(inputs[0])])
        outputs = equation.primitive.bind(*inputs, **equation.params)
        several = equation.primitive.multiple_results
        known |= zip(equation.outvars, outputs if several else [outputs], strict=True)
    assert len(written) == 3  # keys, ids and ages
    assert all(len(set(rows)) == len(rows) > 0 for rows in written)


def test_banks_are_separate_rings():
    queue = push_numbers(init_queue(8, 4), [0, 1, 10, 11], step=0, banks=2)
    queue = push_numbers(queue, [2, 3, 12, 13], step=1, banks=2)
    queue = push_numbers(queue, [4, 5, 14, 15], step=2, banks=2)
    assert queue.image_id.tolist() == [4, 5, 2, 3, 14, 15, 12, 13]


def test_a_share_of_the_ring_takes_only_its_own_rows():
    whole = push_numbers(init_queue(8, 4), range(6), step=0)
    empty = init_queue(8, 4)
    for first_row in (0, 4):
        rows = slice(first_row, first_row + 4)
        share = empty.replace(keys=empty.keys[rows])
        got = push_numbers(share, range(6), step=0, first_row=first_row)
        assert got.keys.tolist() == whole.keys[rows].tolist()
        assert got.image_id.tolist() == whole.image_id.tolist()


@pytest.mark.parametrize("banks", [1, 2])
def test_neighbors_are_those_of_the_loop(rng, banks):
    keys = oracle.unit(rng.normal(size=(20, 8))).astype(np.float32)
    queries = oracle.unit(rng.normal(size=(6, 8))).astype(np.float32)
    keys_id = rng.integers(0, 5, 16).astype(np.int32)
    queries_id = rng.integers(0, 5, 6).astype(np.int32)
    queue = push(init_queue(20, 8), keys[:16], image_id=keys_id, step=3, banks=banks)
    found = find_neighbors(queue, queries, 5, image_id=queries_id, banks=banks)
    # Image i of the 6 and row r of the 20, of which the last of each bank are empty.
    filled = range(16) if banks == 1 else [*range(8), *range(10, 18)]
    expected = oracle.find_rows(
        queue.keys,
        queries,
        5,
        eligible=lambda i, r: (
            r in filled
            and i * banks // 6 == r * banks // 20
            and queries_id[i] != queue.image_id[r]
        ),
    )
    assert found.row.tolist() == expected
    assert found.valid.all() and (found.pushed_at == 3).all()
    np.testing.assert_array_equal(found.image_id, queue.image_id[found.row])
    np.testing.assert_array_equal(found.keys, queue.keys[found.row])


def test_unfilled_rows_are_never_neighbors(rng):
    keys = oracle.unit(rng.normal(size=(3, 8))).astype(np.float32)
    queue = push(init_queue(10, 8), keys, image_id=jnp.arange(3), step=0)
    found = find_neighbors(queue, -keys, 5)
    assert found.valid.sum(axis=1).tolist() == [3, 3, 3]
    assert (found.similarity[~found.valid] == -np.inf).all()
    assert (found.image_id[~found.valid] == -1).all()
    assert (found.pushed_at[~found.valid] == -1).all()


def test_an_unknown_image_excludes_nothing(rng):
    keys = oracle.unit(rng.normal(size=(4, 8))).astype(np.float32)
    queue = push(init_queue(4, 8), keys, image_id=jnp.full(4, -1), step=0)
    assert find_neighbors(queue, keys, 4, image_id=jnp.full(4, -1)).valid.all()


def test_ties_and_duplicates_go_to_the_lowest_row():
    key = jnp.array([[1.0, 0.0]])
    queue = push(
        init_queue(6, 2), jnp.repeat(key, 6, 0), image_id=jnp.arange(6), step=0
    )
    assert find_neighbors(queue, key, 3).row.tolist() == [[0, 1, 2]]


def test_bad_sizes_are_named():
    queue = init_queue(6, 2)
    with pytest.raises(ValueError, match="k=7"):
        find_neighbors(queue, jnp.ones((1, 2)), 7)
    with pytest.raises(ValueError, match="dim 2"):
        find_neighbors(queue, jnp.ones((1, 3)), 1)
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        push(queue, jnp.ones((4, 3)), image_id=jnp.arange(4), step=0)
    with pytest.raises(ValueError, match="image_id"):
        push(queue, jnp.ones((4, 2)), image_id=jnp.arange(3), step=0)
    with pytest.raises(ValueError, match="6 is not a multiple .*banks 4; use 8"):
        push(queue, jnp.ones((4, 2)), image_id=jnp.arange(4), step=0, banks=4)
    with pytest.raises(ValueError, match="objective.queue.size -1"):
        init_queue(-1, 2)
