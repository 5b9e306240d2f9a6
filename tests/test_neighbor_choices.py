"""The bounds of neighbors: what an oracle and what chance choose, and their runs."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import neighbor_choices
import neighbors
import numpy as np
import oracle
import pytest
import workdirs

from snclr_jax.queue import ring, search
from snclr_jax.queue.ring import init_queue, push
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.settings.objective import objective_class
from snclr_jax.step.objective import Now, Seen

B, D, Q, K = 64, 6, 32, 3
# The images of the batch are 0 to 63, those of the rows 0 to 31.
LABELS = np.where(np.arange(B) == 5, -1, np.arange(B) % 2)


def step_of(objective, mesh, rng):
    """Returns what the loss of one step found, rows and targets."""
    rows = oracle.unit(rng.normal(size=(Q, D)))
    targets = oracle.unit(rng.normal(size=(2, B, D)))
    queue = init_queue(Q, D)
    queue = push(queue, jnp.float32(rows), image_id=jnp.arange(Q), step=1)
    shardings = jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), QUEUE_SPEC)
    views = jnp.float32(targets)
    seen = Seen(views, views, views, jnp.arange(B, dtype=jnp.int32))
    loss = jax.jit(lambda queue: objective.loss({}, queue, seen, Now(9, 1, mesh)))
    value, directions = loss(jax.device_put(queue, shardings))
    assert np.isfinite(value)
    # Afterwards every other objective searches as before.
    assert (search.eligible, search.similarities) == (ring.eligible, ring.similarities)
    return directions[0].neighbors, rows, targets[0]


def test_an_oracle_finds_the_nearest_rows_of_the_own_class(tmp_path, mesh_of, rng):
    np.save(tmp_path / "labels.npy", LABELS)
    objective = neighbor_choices.SameClass(
        queue=QueueSettings(size=Q, k=K), labels=str(tmp_path / "labels.npy")
    )
    found, rows, targets = step_of(objective, mesh_of(2), rng)
    nearest = oracle.find_rows(
        rows,
        targets,
        K,
        eligible=lambda i, r: i != r and LABELS[i] == LABELS[r] >= 0,
    )
    assert [len(each) for each in nearest].count(K) == B - 1
    for i, expected in enumerate(nearest):
        assert found.valid[i].tolist() == [rank < len(expected) for rank in range(K)]
        assert found.row[i, : len(expected)].tolist() == expected


def test_chance_chooses_every_row_alike_but_the_own_one(mesh_of, rng):
    objective = neighbor_choices.AnyRow(queue=QueueSettings(size=Q, k=K))
    found, rows, targets = step_of(objective, mesh_of(2), rng)
    row = np.asarray(found.row)
    assert found.valid.all() and not (row == np.arange(B)[:, None]).any()
    assert all(len(set(each)) == K for each in row.tolist())
    # 192 choices of 32 rows: six of each, with a deviation of 2.3.
    uses = np.bincount(row.ravel(), minlength=Q)
    assert uses.min() > 0 and uses.max() < 6 + 4 * 2.3
    # The rank of a chosen row among all, by similarity: 15.5 on average, 0.67 sigma.
    rank = np.argsort(np.argsort(-targets @ rows.T, axis=1), axis=1)
    assert abs(np.take_along_axis(rank, row, axis=1).mean() - 15.5) < 4 * 0.67


def test_outside_of_benchmarks_neither_is_there(monkeypatch):
    monkeypatch.delitem(sys.modules, "neighbor_choices")
    benchmarks = neighbors.__file__.rpartition("/")[0]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != benchmarks])
    with pytest.raises(ValueError, match="neighbor_choices:SameClass' cannot be impor"):
        objective_class("neighbor_choices:SameClass")


@pytest.fixture
def bounds(monkeypatch, tmp_path):
    monkeypatch.setattr(workdirs, "RUNS", tmp_path)
    monkeypatch.setattr(neighbors, "SEEDS", 2)
    return neighbors.Bounds("digits", debug=False)


def test_runs_of_a_seed_differ_in_their_neighbors_alone(bounds, monkeypatch):
    monkeypatch.setattr(neighbors.Bounds, "labels", "labels.npy")
    configs = {
        run: bounds.config(run).to_dict() for runs in bounds.stages() for run in runs
    }
    assert len(configs) == bounds.left().total() == 14
    recipe = bounds.set.config().objective.to_dict()
    for run, config in configs.items():
        objective = config.pop("objective")
        changed = {name for name in objective if objective[name] != recipe.get(name)}
        assert changed <= {"name", "form", "labels", "queue"}
        changed = objective["queue"].items() - recipe["queue"].items()
        assert changed == ({("k", 0)} if run.choice == neighbors.NONE else set())
        assert objective["form"] == run.form and config.pop("seed") == run.seed
    first, *others = configs.values()
    assert all(config == first for config in others)


def test_what_is_gained_is_gained_within_a_seed(bounds, monkeypatch):
    found = ("found", "paper")
    knn = {(neighbors.NONE, 0): 80.0, (neighbors.NONE, 1): 90.0}
    knn |= {("found", 0): 81.0, ("found", 1): 92.0}

    def figures(run):
        value = knn.get((run.choice, run.seed))
        known = value is not None and run.form == "paper"
        return {"knn": value, "linear": 2 * value} if known else {}

    monkeypatch.setattr(bounds, "figures", figures)
    assert [each["knn_gain"] for each in bounds.compared(*found)] == [1.0, 2.0]
    heading, _, table = neighbors.section(bounds)
    assert heading == "Bounds of the neighbors: digits"
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    # Means, and t(1) = 12.706 times half the difference of two seeds.
    assert rows[2] == [neighbors.NONE, "InfoNCE", "85.00 ± 63.53", "-", *rows[2][4:]]
    assert rows[3][:4] == ["found", "paper", "86.50 ± 69.88", "+1.50 ± 6.35"]
    assert rows[4][2:] == ["-"] * 6 + ["0"]
