"""Mistakes in which images, labels and settings an evaluation is given."""

from __future__ import annotations

from mistakes.mistake import of

GIVEN = "tests/evaluate/test_evaluations.py"
WHOLE = "tests/evaluate/test_evaluate.py"
TUNED = "tests/evaluate/tuned/test_supervised.py"
ONLINE = "tests/evaluate/test_online.py"

MISTAKES = [
    *of(
        "snclr_jax/evaluate/evaluations.py",
        GIVEN,
        (
            "classifiers are scored on what they learned from",
            "        train,\n        task.test,\n",
            "        train,\n        train,\n",
        ),
        (
            "the linear probe is scored on training features",
            "task.subject.layers(task.test),\n        task.test.labels,",
            "task.subject.layers(task.train),\n        task.train.labels,",
        ),
        (
            "pictures of one original fit and judge a probe",
            "group=task.train.group",
            "group=None",
        ),
        (
            "a share of the labels is all of them",
            "_train(_to_tune(task, part, settings), task, part)",
            "_train(_to_tune(task, part, settings), task, task.train)",
        ),
        (
            "few labels are learned with the settings of all",
            "in changed.items() if value is not None",
            "in {}.items()",
        ),
        (
            "the published lists of images are swapped",
            '{0.01: "1percent.txt", 0.1: "10percent.txt"}',
            '{0.1: "1percent.txt", 0.01: "10percent.txt"}',
        ),
        (
            "choices are judged by other images",
            "image_id=rows,",
            "image_id=np.arange(len(rows)),",
        ),
    ),
    *of(
        "snclr_jax/evaluate/subject.py",
        WHOLE,
        (
            "the untrained encoder is the trained one",
            "untrained = encoder.untrained(settings.seed)",
            "untrained = encoder",
        ),
    ),
    *of(
        "snclr_jax/evaluate/run.py",
        WHOLE,
        (
            "the untrained encoder has the queue of the run",
            "networks if subject.encoder is encoder else None",
            "networks",
        ),
        (
            "another set keeps the number held back",
            'test_split="test", holdback=0',
            'test_split="test"',
        ),
        (
            "another set keeps the splits of the run's",
            'train_split="train", test_split="test", ',
            "",
        ),
    ),
    *of(
        "snclr_jax/evaluate/segment.py",
        "tests/evaluate/test_segment.py",
        (
            "places of the untrained encoder are those of the trained one",
            'name="untrained", encoder=encoder.untrained(settings.seed)',
            'name="untrained", encoder=encoder',
        ),
    ),
    *of(
        "snclr_jax/evaluate/frozen/segmentation.py",
        "tests/evaluate/frozen/test_segmentation.py",
        (
            "the linear answer takes features that are not standardized",
            "(scaling(rows) @ kernel.T + bias)",
            "(rows @ kernel.T + bias)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/tuned/protocols.py",
        TUNED,
        (
            "layers of a ViT learn at one rate",
            "    if is_vit:\n        optimizer",
            "    if False:\n        optimizer",
        ),
        (
            "fine-tuning drops no path",
            "drop_path if is_vit else 0.0",
            "0.0",
        ),
        (
            "networks that are no ViT drop paths",
            "drop_path if is_vit else 0.0",
            "drop_path",
        ),
        (
            "fine-tuning starts at its full rate",
            "warmup_epochs=warmup_epochs)",
            "warmup_epochs=0.0)",
        ),
    ),
    *of(
        "snclr_jax/evaluate/tuned/supervised.py",
        TUNED,
        (
            "labels are learned unsmoothed",
            "labels, protocol.label_smoothing), batch_stats",
            "labels, 0.0), batch_stats",
        ),
        (
            "a classifier sees the same crops at every step",
            "random_views(batch, state.step,",
            "random_views(batch, 0 * state.step,",
        ),
        (
            "a classifier drops the same paths at every step",
            "image_keys(config.seed, state.step, DROP_PATH,",
            "image_keys(config.seed, 0, DROP_PATH,",
        ),
    ),
    *of(
        "snclr_jax/evaluate/online.py",
        ONLINE,
        (
            "kNN in training is always of the online network",
            'if network == "target":',
            'if network == "":',
        ),
        (
            "the start of a run is called untrained",
            '"knn_untrained": self.of_state(untrained)',
            '"knn_untrained": self.of_state(start)',
        ),
        (
            "an encoder that a run starts from is scored untrained",
            'accuracies["knn_initial"] = self.of_state(start)',
            'accuracies["knn_initial"] = self.of_state(untrained)',
        ),
    ),
]
