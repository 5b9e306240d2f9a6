"""A workdir on gs://: files go through epath, arrays through TensorStore."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import tiny
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from google.api_core.exceptions import ServiceUnavailable
from google.cloud import storage
from google_store import GoogleStore

from snclr_jax.run.metrics import MetricWriter, read_metrics
from snclr_jax.run.workdir import check_workdir, own_workdir, read_config, record_run
from snclr_jax.settings.paths import located

HERE = Path(__file__).parents[1]


class Bucket(MemoryFileSystem):
    """Objects in memory under the name of Google's."""

    protocol = ("gcs", "gs")
    store = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("gs://", "memory://"))


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setitem(_registry, "gcs", Bucket)
    monkeypatch.setattr(Bucket, "store", {})
    # epath remembers the file system of a scheme.
    epath.backend.fsspec_backend._get_filesystem.cache_clear()
    yield "gs://bucket/run"
    epath.backend.fsspec_backend._get_filesystem.cache_clear()


def test_a_workdir_is_never_taken_for_a_folder_beside_the_program(bucket):
    assert str(located(bucket)) == bucket
    assert located("runs/x") == Path.cwd() / "runs" / "x"


def test_config_and_metrics_of_a_run_come_back(bucket):
    record_run(tiny.config(), bucket)
    assert read_config(bucket)["objective"]["queue"]["size"] == 32
    with pytest.raises(ValueError, match="objective.queue.size is 64, the run has 32"):
        check_workdir(tiny.config(objective__queue__size=64), bucket)
    writer = MetricWriter(bucket, first_step=0, to=["tensorboard"])
    writer.write(1, {"loss": 2.0})
    writer.flush()
    assert read_metrics(bucket) == [{"step": 1, "loss": 2.0}]
    writer.write(2, {"loss": 1.0})
    writer.close()
    again = MetricWriter(bucket, first_step=1, to=())
    again.write(2, {"loss": 1.5})
    again.close()
    assert [line["loss"] for line in read_metrics(bucket)] == [2.0, 1.5]
    assert list((epath.Path(bucket) / "tensorboard").iterdir())


@pytest.fixture
def google_store():
    with GoogleStore() as store:
        yield store


def test_a_bucket_that_cannot_be_looked_up_is_named_before_training(
    google_store, monkeypatch
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google_store.url)
    with pytest.raises(ValueError, match="bucket other cannot be looked up: 404"):
        with own_workdir(tiny.config(), "gs://other/run"):
            pass
    assert google_store.objects == {}
    gone = ServiceUnavailable("try again")  # which says nothing of the bucket
    monkeypatch.setattr(storage.Client, "get_bucket", Mock(side_effect=gone))
    with pytest.raises(OSError, match="bucket other cannot be looked up: 503"):
        with own_workdir(tiny.config(), "gs://other/run"):
            pass


def run(store: GoogleStore, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "STORAGE_EMULATOR_HOST": store.url,
        "TENSORSTORE_GCS_HTTP_URL": store.url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "FSSPEC_GCS_TOKEN": "anon",
        "NO_GCE_CHECK": "true",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    return subprocess.run(
        [sys.executable, HERE / "object_store.py", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def on_a_disk(tmp_path_factory):
    """What a whole run says at its end."""
    process = run(SimpleNamespace(url=""), str(tmp_path_factory.mktemp("disk") / "run"))
    return process.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("moment, first", [("saved", "48"), ("saving", "32")])
def test_a_killed_run_on_an_object_store_ends_like_one_on_a_disk(
    google_store, on_a_disk, moment, first
):
    killed = run(google_store, "gs://bucket/run", "48", moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    continued = run(google_store, "gs://bucket/run")
    assert f"steps {first} to 93" in continued.stdout, continued.stderr
    assert continued.stdout.splitlines()[-1] == on_a_disk
    assert google_store.failed > 0


@pytest.mark.slow
def test_a_damaged_checkpoint_on_an_object_store_gives_way_to_the_one_before_it(
    google_store, on_a_disk
):
    whole = run(google_store, "gs://bucket/run")
    assert whole.stdout.splitlines()[-1] == on_a_disk, whole.stderr
    objects = google_store.objects
    part = max(
        (name for name in objects if name.startswith("run/checkpoints/93/state/")),
        key=lambda name: len(objects[name].content),
    )
    content = bytearray(objects[part].content)
    content[len(content) // 2] ^= 1
    objects[part] = objects[part]._replace(content=bytes(content))
    again = run(google_store, "gs://bucket/run")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == on_a_disk
    assert "it was moved to gs://bucket/run/damaged_checkpoints/93-" in again.stdout
    assert any(name.startswith("run/damaged_checkpoints/93-") for name in objects)
