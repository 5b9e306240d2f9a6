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
from snclr_jax.queue.memory_bank import BankSettings
from snclr_jax.queue.ring import init_queue, push
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.settings.objective import objective_class
from snclr_jax.step.objective import Now, Seen

B, D, Q, K = 64, 6, 32, 3
# The images of the batch are 0 to 63, those of the rows 0 to 31.
# The mean of two views alone searches the bank, too.
BANK = BankSettings(size=Q, k=K, rank=K + 1, momentum=0.0)
QUEUE = QueueSettings(size=Q, k=K)
MEMORIES = {"SNCLR": QUEUE, "SoftDCL": QUEUE, "MemoryDCL": BANK}
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
    return directions[0].neighbors, rows, targets


@pytest.mark.parametrize("name", MEMORIES)
def test_an_oracle_finds_the_nearest_rows_of_the_own_class(
    tmp_path, mesh_of, rng, name
):
    np.save(tmp_path / "labels.npy", LABELS)
    objective = getattr(neighbor_choices, f"{name}OfSameClass")(
        queue=MEMORIES[name], labels=str(tmp_path / "labels.npy")
    )
    found, rows, views = step_of(objective, mesh_of(2), rng)
    targets = views[0] if name == "SNCLR" else views.sum(axis=0)
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


@pytest.mark.parametrize("name", MEMORIES)
def test_chance_chooses_every_row_alike_but_the_own_one(mesh_of, rng, name):
    cls = getattr(neighbor_choices, f"{name}OfAnyRow")
    found, rows, views = step_of(cls(queue=MEMORIES[name]), mesh_of(2), rng)
    targets = views[0] if name == "SNCLR" else views.sum(axis=0)
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
    with pytest.raises(
        ValueError, match="neighbor_choices:SNCLROfSameClass' cannot be"
    ):
        objective_class("neighbor_choices:SNCLROfSameClass")


@pytest.fixture
def bounds(monkeypatch, tmp_path):
    monkeypatch.setattr(workdirs, "RUNS", tmp_path)
    monkeypatch.setattr(workdirs, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(neighbors, "SEEDS", 2)
    return neighbors.Bounds("digits", debug=False)


def test_runs_of_a_seed_differ_in_their_neighbors_alone(bounds, monkeypatch):
    monkeypatch.setattr(neighbors.Bounds, "labels", "labels.npy")
    configs = {
        run: bounds.config(run).to_dict() for runs in bounds.stages() for run in runs
    }
    assert len(configs) == bounds.left().total() == 56
    recipe, warmup = bounds.set.config().objective.to_dict(), "neighbor_warmup_epochs"
    objectives = {run: config.pop("objective") for run, config in configs.items()}
    for run, objective in objectives.items():
        own = objectives[run._replace(choice=neighbors.FOUND)]
        changed = {name for name in objective if objective[name] != own.get(name)}
        assert changed <= {"name", "labels", "queue"}
        changed = objective["queue"].items() - own["queue"].items()
        expected = {("k", 0)} if run.choice == neighbors.NONE else set()
        if run[:2] == (neighbors.ORACLE, "memory_dcl"):
            expected = {("rank", own["queue"]["k"] + 1)}
        assert changed == expected
        assert run.loss in ("memory_dcl", "soft_dcl", f"snclr, {objective.get('form')}")
        share = run.epochs / bounds.set.config().epochs
        assert objective[warmup] == pytest.approx(share * recipe[warmup])
        if run.loss.startswith("snclr") and run.choice == neighbors.FOUND:
            own = recipe | {"form": objective["form"], warmup: objective[warmup]}
            assert objective == own
        assert configs[run].pop("seed") == run.seed
        assert configs[run].pop("epochs") == run.epochs
        assert configs[run]["optim"].pop("warmup_epochs") == pytest.approx(share)
    first, *others = configs.values()
    assert all(config == first for config in others)


def test_what_says_most_comes_first(bounds):
    first, *_ = bounds.stages()
    none, *found = [run[:2] for run in first]
    assert none == (neighbors.NONE, "soft_dcl")
    assert found == [("found", "memory_dcl"), ("found", "soft_dcl")]
    assert {run[2:] for run in first} == {(bounds.set.epochs, 0)}
    runs = [run for runs in bounds.stages() for run in runs]
    found = [run.choice in neighbors.OTHERS for run in runs]
    assert found == sorted(found)


def test_what_is_gained_is_gained_within_a_seed(bounds, monkeypatch):
    knn = {
        ("soft_dcl", neighbors.NONE): [70.0, 71.0],
        ("soft_dcl", "found"): [75.0, 75.5],
        ("snclr, paper", neighbors.NONE): [80.0, 90.0],
        ("snclr, soft_cross_entropy", "found"): [81.0, 92.0],
    }

    def figures(run):
        values = knn.get((run.loss, run.choice))
        if values is None or run.epochs != 15:
            return {}
        return {"knn": values[run.seed], "linear": 2 * values[run.seed]}

    monkeypatch.setattr(bounds, "figures", figures)
    heading, _, table = neighbors.section(bounds)
    assert heading == "Neighbors and their bounds: digits"
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    cells = {tuple(row[:2]): row[2:] for row in rows[2:]}
    assert len(cells) == len(rows) - 2 == 4
    assert {each.pop(0) for each in cells.values()} == {"15"}
    # Means, and t(1) = 12.706 times half the difference of two seeds.
    assert cells["soft_dcl", neighbors.NONE][:2] == ["70.50 ± 6.35", "-"]
    assert cells["soft_dcl", "found"][:2] == ["75.25 ± 3.18", "+4.75 ± 3.18"]
    assert cells["snclr, soft_cross_entropy", "found"][:2] == [
        "86.50 ± 69.88",
        "+1.50 ± 6.35",
    ]
