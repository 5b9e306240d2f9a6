"""Mistakes in the order of the data, and its splits."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/data/order.py",
        "tests/data/test_order.py",
        (
            "the shuffle ignores the epoch",
            "RandomState([seed, epoch])",
            "RandomState([seed, 0])",
        ),
        (
            "the shuffle ignores the seed",
            "RandomState([seed, epoch])",
            "RandomState([0, epoch])",
        ),
        (
            "a block lies in the set's own order",
            "position = random.permutation(-(-len(images) // block))",
            "position = np.arange(-(-len(images) // block))",
        ),
        (
            "lanes follow one another in the set",
            ".swapaxes(0, 1)",
            ".swapaxes(0, 0)",
        ),
        (
            "a mount is any folder of the same beginning",
            "os.path.commonpath([real, folder]) == folder",
            "real.startswith(folder)",
        ),
        (
            "the first mount of a folder counts",
            "kinds[folder] = kind",
            "kinds.setdefault(folder, kind)",
        ),
    ),
    *of(
        "snclr_jax/data/blocks.py",
        "tests/data/test_order.py",
        (
            "an image is looked up in the wrong place of its block",
            "np.divmod(rows, self._size)",
            "np.divmod(rows + 1, self._size)",
        ),
        ("nothing is kept", "if len(self._kept) > self._most", "if self._kept"),
        ("everything is kept", "if len(self._kept) > self._most", "if False"),
    ),
    *of(
        "snclr_jax/data/pipeline.py",
        "tests/data/test_pipeline.py",
        (
            "every process reads the first rows",
            "rows=range(process_index * per_process, (process_index + 1) "
            "* per_process)",
            "rows=range(per_process)",
        ),
        (
            "processes read every other row",
            "order[first + rows.start : first + rows.stop]",
            "order[first : first + self.batch_size][rows.start // "
            "max(len(rows), 1) :: self.batch_size // len(self.rows)][: "
            "len(rows)]",
        ),
        (
            "an epoch rounds up",
            "divmod(step, self.split.size // self.batch_size)",
            "divmod(step, -(-self.split.size // self.batch_size))",
        ),
        (
            "an epoch has a batch too few",
            "divmod(step, self.split.size // self.batch_size)",
            "divmod(step, max(1, self.split.size // self.batch_size - 1))",
        ),
        (
            "the last image of an order is skipped",
            "order[first + rows.start : first + rows.stop]",
            "order[:-1][first + rows.start : first + rows.stop]",
        ),
        (
            "a batch is repeated after resume",
            'self._step = int(state["step"])',
            'self._step = max(0, int(state["step"]) - 1)',
        ),
        (
            "a batch is skipped after resume",
            'self._step = int(state["step"])',
            'self._step = int(state["step"]) + 1',
        ),
        (
            "workers start at the first chunk",
            "first = self._step * self._part.chunks",
            "first = self._step",
        ),
        (
            "crops ignore the step",
            "draw_uniforms(self.seed, step, view, rows)",
            "draw_uniforms(self.seed, 0, view, rows)",
        ),
        (
            "crops are those of the first rows",
            "draw_uniforms(self.seed, step, view, rows)",
            "draw_uniforms(self.seed, step, view, range(len(rows)))",
        ),
        (
            "both views are cropped alike",
            "draw_uniforms(self.seed, step, view, rows)",
            "draw_uniforms(self.seed, step, 0, rows)",
        ),
    ),
    *of(
        "snclr_jax/data/bad_images.py",
        "tests/data/test_bad_files.py",
        (
            "what all processes know is told again",
            "            if index not in self._told\n",
            "",
        ),
    ),
    *of(
        "snclr_jax/data/shared.py",
        "tests/step/test_one_definition.py",
        (
            "labels of bad images differ between processes",
            "split.replaced(row, other)",
            "(row, other)",
        ),
        (
            "a process that cannot read goes on with other images",
            "in_agreement(partial(_end_with, failed), lambda _: {})",
            "in_agreement(partial(_end_with, None), lambda _: {})",
        ),
    ),
    *of(
        "snclr_jax/devices/shares.py",
        "tests/step/test_one_definition.py",
        (
            "every process reads all labels",
            "read(own_share(size)), lambda",
            "[read(range(size))[row] for row in own_share(size)], lambda",
        ),
        (
            "images on the devices lie where the shares were padded",
            "process * height + np.arange(len(share))",
            "process * len(every[0]) + np.arange(len(share))",
        ),
    ),
    *of(
        "snclr_jax/devices/shares.py",
        "tests/data/test_shared.py",
        (
            "every process reads the first share",
            "return shares(size)[jax.process_index()]",
            "return shares(size)[0]",
        ),
    ),
    *of(
        "snclr_jax/data/feed.py",
        "tests/data/test_feed.py",
        (
            "the feed ignores the seed",
            "            seed=config.seed,\n",
            "            seed=0,\n",
        ),
        (
            "every process feeds the rows of the first",
            "process_index=jax.process_index(),",
            "process_index=0,",
        ),
        (
            "what was read ahead is lost on resume",
            "        return self._state\n",
            "        return self._source.get_state()\n",
        ),
    ),
    *of(
        "snclr_jax/data/split.py",
        "tests/data/test_data.py",
        (
            "held-back images are trained on",
            "return split.subset(np.flatnonzero(~held)), split",
            "return split, split",
        ),
        (
            "labels of a subset are those of the set",
            "self._opened.labels[self._of[self.shown(np.arange(self.size))]]",
            "self._opened.labels[: self.size]",
        ),
    ),
    *of(
        "snclr_jax/data/layout.py",
        "tests/data/test_layout.py",
        (
            "images among thumbnails are trained on",
            "folders.remove(name)",
            "pass",
        ),
        (
            "a class of trains hides all others",
            "if near and (tests or not others) else",
            "if near else",
        ),
        (
            "a test folder in capital letters is trained on",
            "if f.lower() == name]",
            "if f == name]",
        ),
    ),
    *of(
        "snclr_jax/data/layout.py",
        "tests/data/test_folder.py",
        (
            "a test image of an unknown class counts as one of the first",
            "number.get(name, -1)",
            "number.get(name, 0)",
        ),
    ),
    *of(
        "snclr_jax/data/upright.py",
        "tests/data/test_depth.py",
        (
            "the range begins at 0",
            "(values.astype(np.float32) - low)",
            "values.astype(np.float32)",
        ),
    ),
    *of(
        "snclr_jax/data/decode_views.py",
        "tests/data/test_depth.py",
        (
            "crops are decoded with the full range",
            "upright(image, stored.form.levels)",
            "upright(image)",
        ),
    ),
    *of(
        "snclr_jax/data/choose.py",
        "tests/data/test_choose.py",
        (
            "small sets get tiny batches",
            "LARGEST_BATCH), LEAST_BATCH)",
            "LARGEST_BATCH), 2)",
        ),
    ),
]
