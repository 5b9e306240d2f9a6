"""`snclr evaluate`: scores the newest checkpoint of a run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import jax
import ml_collections

from snclr_jax.checkpoint import Checkpoints, read_config
from snclr_jax.data import open_data
from snclr_jax.evaluate.features import labelled_features, make_encode
from snclr_jax.evaluate.knn import knn_accuracy
from snclr_jax.evaluate.linear import linear_probe
from snclr_jax.evaluate.online import encoder_of, with_labels
from snclr_jax.models import build_model
from snclr_jax.optim import learning_rate, make_optimizer
from snclr_jax.partition import make_mesh
from snclr_jax.train_state import init_train_state

EVALUATION_FILE = "evaluation.json"


def evaluate(workdir: str) -> dict[str, float]:
    """Returns kNN and linear-probe accuracy, in percent, of a run's encoder.

    Features come from the network that `evaluate.network` names, images are cropped at
    the center. Prints the result and writes `evaluation.json` with its settings.

    Args:
      workdir: folder of a run.

    Raises:
      ValueError: where the workdir has no run or no checkpoint, or its data has no
        labels or no test split.
    """
    config = ml_collections.ConfigDict(read_config(workdir))
    data = open_data(config.data)
    train, test = with_labels(data.train), with_labels(data.test)
    if train is None or test is None:
        raise ValueError(
            f"the data of {workdir} has no labelled test split to evaluate on; for a "
            "folder, add test/<class>/* beside train/<class>/*, or hold training "
            "images back with config.data.holdback"
        )
    mesh = make_mesh()
    model = build_model(config.model, attention=config.attention.kind)
    optimizer = make_optimizer(
        config, learning_rate(config, data.train.size // config.batch_size)
    )
    state = init_train_state(model, optimizer, config, mesh)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        state = checkpoints.restore_state(state)
    params, batch_stats = encoder_of(state, config.evaluate.network)
    settings = config.evaluate
    features = labelled_features(
        make_encode(model, config, mesh),
        params,
        batch_stats,
        train,
        test,
        batch_size=settings.batch_size,
        mesh=mesh,
    )
    accuracy = knn_accuracy(*features, k=settings.k, temperature=settings.temperature)
    linear = linear_probe(*features)
    result = {
        "step": int(state.step),
        "network": settings.network,
        "knn": accuracy,
        "knn_k": settings.k,
        "knn_temperature": settings.temperature,
        "linear": linear.accuracy,
        "linear_l2": linear.l2,
    }
    if jax.process_index() == 0:
        path = Path(workdir) / EVALUATION_FILE
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(
            f"step {result['step']}, {settings.network} encoder\n"
            f"kNN (k {settings.k}): {accuracy:.2f}%\n"
            f"linear probe: {linear.accuracy:.2f}%"
        )
    return result
