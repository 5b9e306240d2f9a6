"""Which rows of a batch a process holds."""

from __future__ import annotations

import resource

import jax
import pytest

from snclr_jax.devices.mesh import make_mesh, own_rows


def test_processes_share_a_batch_in_their_order(mesh_of, monkeypatch):
    assert own_rows(16, mesh_of(8), micro_batches=2) == slice(0, 16)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    assert own_rows(16, mesh_of(8)) == slice(8, 12)


def test_a_batch_that_the_devices_do_not_divide_is_named(mesh_of):
    message = "16, in 4 micro-batches, is not a multiple of 8 devices"
    with pytest.raises(ValueError, match=message):
        own_rows(16, mesh_of(8), micro_batches=4)


def test_too_little_memory_is_said_before_xla_aborts(monkeypatch):
    limits = {resource.RLIMIT_AS: (1300 * 2**20, resource.RLIM_INFINITY)}
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("XLA began"))
    with pytest.raises(ValueError, match=r"reserve 1.3 GiB of memory \(ulimit -v\)"):
        make_mesh()
