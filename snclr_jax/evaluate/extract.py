"""`snclr features`: the features of every image of a set, in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from snclr_jax.data.bad_files import describe_bad
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.devices.shares import read_in_shares
from snclr_jax.evaluate.run import open_both
from snclr_jax.evaluate.subject import make_subjects
from snclr_jax.evaluate.write_features import check_features_path, write_features
from snclr_jax.run.metrics import say
from snclr_jax.run.workdir import as_json
from snclr_jax.settings.paths import absolute_paths


def extract(
    path: str | Path, out: str | Path, settings: ConfigDict, *, network: str | None
) -> None:
    """Writes the features of all images, see `write_features` for the file.

    Args:
      path: a run's workdir, a checkpoint in it, or an exported file.
      out: the file to write, FILE.npz.
      settings: `configs/evaluate.py`; reads `data` and `batch_size`.
      network: whose encoder, see `open_encoder`.

    Raises:
      ValueError: where the file cannot be written, or the encoder or images not read.
    """
    check_features_path(out)
    mesh = make_mesh()
    encoder, config, data = open_both(path, settings, network=network, mesh=mesh)
    (subject,) = make_subjects(
        encoder, layers=False, baselines=False, settings=settings, mesh=mesh
    )
    splits = data.splits
    features = np.concatenate([subject.features(split) for split in splits.values()])
    # Only now is it known which images stand in place of bad ones.
    labels = [
        split.labels if split.labelled else np.full(split.size, -1)
        for split in splits.values()
    ]
    names = [
        name
        for split in splits.values()
        for name in read_in_shares(split.names, split.size)
    ]
    write_features(
        out,
        features,
        np.concatenate(labels),
        names,
        split=np.repeat(list(splits), [split.size for split in splits.values()]),
        metadata={
            "source": encoder.source,
            "network": encoder.network,
            "step": encoder.step,
            "fingerprint": encoder.fingerprint,
            "config": as_json(absolute_paths(config)),
        },
    )
    count = sum(split.size for split in splits.values())
    said = [f"{out}: features of {count} images", describe_bad(data)]
    say("\n".join(filter(None, said)))
