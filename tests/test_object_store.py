"""A workdir on gs://: files go through epath, arrays through TensorStore."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from snclr_jax.metrics import MetricWriter, read_metrics
from snclr_jax.read_checkpoint import located
from snclr_jax.workdir import claim_workdir, read_config

HERE = Path(__file__).parent


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
    claim_workdir(tiny.config(), bucket)
    assert read_config(bucket)["queue"]["size"] == 32
    with pytest.raises(ValueError, match="queue.size is 64, the run has 32"):
        claim_workdir(tiny.config(queue__size=64), bucket)
    writer = MetricWriter(bucket, first_step=0)
    writer.write(1, {"loss": 2.0})
    writer.flush()
    assert read_metrics(bucket) == [{"step": 1, "loss": 2.0}]
    writer.write(2, {"loss": 1.0})
    writer.close()
    again = MetricWriter(bucket, first_step=1)
    again.write(2, {"loss": 1.5})
    again.close()
    assert [line["loss"] for line in read_metrics(bucket)] == [2.0, 1.5]
    assert list((epath.Path(bucket) / "tensorboard").iterdir())


@pytest.fixture
def google_store(tmp_path):
    """The address of a server that speaks Cloud Storage and holds a bucket "bucket"."""
    pytest.importorskip("gcsfs")
    program = shutil.which("fake-gcs-server")
    if program is None:
        pytest.skip("fake-gcs-server is not on the PATH (github.com/fsouza)")
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "memory"}
    flags |= {"data": tmp_path / "store", "external-url": url}
    server = subprocess.Popen(
        [program, *(f"-{name}={value}" for name, value in flags.items())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield url
    server.kill()
    server.wait()


@pytest.mark.slow
def test_a_killed_run_on_an_object_store_ends_like_one_on_a_disk(
    google_store, tmp_path
):
    environment = os.environ | {
        "STORAGE_EMULATOR_HOST": google_store,
        "TENSORSTORE_GCS_HTTP_URL": google_store,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "FSSPEC_GCS_TOKEN": "anon",
        "NO_GCE_CHECK": "true",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, HERE / "object_store.py", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    killed = run("gs://bucket/run", "50")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    continued = run("gs://bucket/run")
    assert "steps 48 to 93" in continued.stdout, continued.stderr
    whole = run(str(tmp_path / "run"))
    assert continued.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
