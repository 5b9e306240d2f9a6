"""Figures show what they are given, and can be read in both themes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from snclr_jax import visualize
from snclr_jax.visualize.labels import spread
from snclr_jax.visualize.style import THEMES, class_name

LINES = [
    {"step": 0, "knn_untrained": 30.0, "knn_raw_pixels": 29.0},
    {"step": 10, "loss": 3.0, "feature_std": 0.9, "positiveness_mean": 0.3},
    {"step": 20, "loss": 2.0, "feature_std": 0.8, "positiveness_mean": 0.4},
    {"step": 20, "knn": 55.0},
]
NARROW = 4.6  # inches that a phone shows
# How readers without the cones of long, middle or short waves see linear RGB (Machado
# et al., 2009, severity 1), and the space OKLab (Ottosson, 2020), even in differences.
VISIONS = {
    "all cones": np.eye(3),
    "no long": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
OKLAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def linear(color):
    values = np.array(to_rgb(color))
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )


def contrast(first, second):
    """The ratio of WCAG 2, from relative luminance."""

    luminances = (
        0.05 + np.dot(linear(color), (0.2126, 0.7152, 0.0722))
        for color in (first, second)
    )
    low, high = sorted(luminances)
    return high / low


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_letters_and_lines_stand_out(theme):
    assert contrast(theme.text, theme.background) >= 4.5
    assert contrast(theme.muted, theme.background) >= 3
    assert contrast(theme.series[0], theme.background) >= 3
    assert contrast(theme.series[1], theme.background) >= 3


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_ten_classes_are_told_apart(theme, vision):
    assert len(theme.series) == 10
    seen = [np.clip(VISIONS[vision] @ linear(color), 0, 1) for color in theme.series]
    places = [OKLAB @ np.cbrt(CONES @ color) for color in seen]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2))
    # The nearest two of Okabe and Ito's palette are 0.156 and 0.076 apart.
    assert nearest > (0.15 if vision == "all cones" else 0.075)
    for color in theme.series:
        assert contrast(color, theme.background) > 2.2


def texts_of(figure):
    """Every text that is drawn: ticks outside of their axis are not."""
    figure.canvas.draw()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=True)
            shown = {t.label1 for t, place in ticks if low <= place <= high}
            hidden |= set(axis.get_ticklabels()) - (shown if axes.axison else set())
    return [
        text
        for text in figure.findobj(mpl.text.Text)
        if text.get_text().strip() and text.get_visible() and text not in hidden
    ]


def words(figure):
    return [text.get_text() for text in texts_of(figure)]


def assert_no_overlap(texts, room=-1.5):
    boxes = [(text, text.get_window_extent().padded(room)) for text in texts]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        # What belongs to one panel may touch.
        if room < 0 or one.axes is not other.axes:
            assert not a.overlaps(b), f"{one} lies over {other}"


def inside(figure, texts):
    width, height = figure.canvas.get_width_height()
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -3 and box.y0 >= -3, text
        assert box.x1 <= width + 3 and box.y1 <= height + 3, text


@pytest.mark.parametrize("theme", THEMES)
def test_curves_are_the_metrics_with_their_baselines(theme):
    figure = visualize.curves(LINES, theme=theme)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == [
        "loss (nats)",
        "accuracy (%)",
        "spread of projections (0 to 1)",
    ]
    loss = panels["loss (nats)"].lines[0].get_xydata()
    assert loss.tolist() == [[10, 3], [20, 2]]
    accuracy = panels["accuracy (%)"]
    heights = [line.get_ydata()[0] for line in accuracy.lines]
    assert heights == [55, 30, 29]
    assert {"kNN", "untrained", "raw pixels"} <= set(words(figure))
    assert_no_overlap(texts_of(figure))
    inside(figure, texts_of(figure))
    low, high = panels["spread of projections (0 to 1)"].get_ylim()
    assert low == 0 and high > 0.9
    assert to_rgb(figure.get_facecolor()) == to_rgb(THEMES[theme].background)


@pytest.mark.parametrize("width", [10.6, NARROW])
def test_panels_keep_away_from_each_other(width):
    lines = [
        {"step": step, "a": 0.1 * step, "b": 0.2, "c": 0.3, "loss": 5.1}
        for step in (1, 2)
    ]
    panels = [("t", {"a": "largest", "b": "mean"}, True)] * 3 + [("l", {"c": ""}, True)]
    figure = visualize.curves(lines, panels=panels, width=width)
    assert_no_overlap(texts_of(figure), room=6)
    inside(figure, texts_of(figure))
    assert figure.get_figwidth() == width
    lefts = {round(axes.get_position().x0, 2) for axes in figure.axes}
    assert len(lefts) == (3 if width > NARROW else 1)
    # There is no half of a step.
    assert all(np.all(axes.get_xticks() % 1 == 0) for axes in figure.axes)


def test_one_panel_takes_no_more_room_than_it_needs():
    figure = visualize.curves(LINES, panels=[("loss", {"loss": ""}, False)])
    assert figure.get_figwidth() < 3.6


def test_metrics_that_are_not_there_have_no_panel():
    panels = (
        ("positiveness w", {"positiveness_mean": "mean"}, True),
        ("age", {"neighbor_age": ""}, True),
    )
    figure = visualize.curves(LINES, panels=panels)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["positiveness w"]
    with pytest.raises(ValueError, match="no line has any of the metrics"):
        visualize.curves(LINES[:1], panels=panels)
    with pytest.raises(ValueError, match="theme 'blue' is unknown"):
        visualize.curves(LINES, theme="blue")


def found(shape, labels=True):
    n, k = shape
    values = np.arange(n * k).reshape(shape)
    return SimpleNamespace(
        similarity=0.9 - 0.01 * values,
        weight=0.5 - 0.02 * values,
        age=3 + values,
        valid=np.ones(shape, bool),
        query_label=np.arange(n) % 3 if labels else None,
        neighbor_label=values % 3 if labels else None,
        query_name=np.array([f"holidays/photo_{i}.jpg" for i in range(n)]),
        neighbor_name=np.array([[f"{i}.png" for i in row] for row in values]),
    )


def test_a_gallery_has_the_pictures_and_what_is_known_of_them(rng):
    queries = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    neighbors = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    known = found((2, 3))
    known.valid[1, 2] = False
    names = ("ant", "bee", "a name of many letters")
    figure = visualize.gallery(queries, neighbors, known, class_names=names)
    shown = [image.get_array() for image in figure.axes[0].images]
    expected = [queries[0], *neighbors[0], queries[1], *neighbors[1, :2]]
    assert len(shown) == len(expected)
    for image, picture in zip(shown, expected, strict=True):
        assert np.array_equal(image, picture)
    said = words(figure)
    assert "cos 0.90  w 0.50" in said and "ant   age 3" in said
    assert "a name of many …" in said and "cos 0.85  w 0.40" not in said
    assert_no_overlap(texts_of(figure))
    inside(figure, texts_of(figure))
    # Solid and blue around the own class, dashed and orange around another.
    borders = [p for p in figure.axes[0].patches if not p.get_fill()]
    assert [p.get_linestyle() for p in borders].count("solid") == 2
    assert len(borders) == 5
    # Bars of all queries are of one scale.
    bars = [p.get_width() for p in figure.axes[0].patches if p.get_fill()]
    expected = np.ravel(known.weight)[:5] / 0.5
    np.testing.assert_allclose(bars, max(bars) * expected)


def test_a_class_may_be_called_like_a_formula(rng):
    pictures = rng.integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    names = ("$x^{_}$", "$", "a$b$c")
    figures = [
        visualize.gallery(
            pictures[:, 0], pictures[:, 1:], found((2, 3)), class_names=names
        ),
        visualize.confusion(np.arange(3), np.arange(3), class_names=names),
    ]
    for figure in figures:
        figure.canvas.draw()  # where a formula would be read
        assert any(r"\$x^{_}\$" in text for text in words(figure))


@pytest.mark.parametrize("side, n, k", [(1, 8, 1), (1, 1, 1), (8, 8, 5), (224, 3, 40)])
def test_galleries_of_any_shape_fit_a_laptop(rng, side, n, k):
    pictures = rng.integers(0, 256, (n, k + 1, side, side, 3), dtype=np.uint8)
    figure = visualize.gallery(pictures[:, 0], pictures[:, 1:], found((n, k)))
    assert_no_overlap(texts_of(figure))
    inside(figure, texts_of(figure))
    known = found((n, k), labels=False)
    figure = visualize.gallery(pictures[:, 0], pictures[:, 1:], known, theme="dark")
    assert len(figure.axes[0].images) == n * (1 + min(k, 8))
    assert figure.get_figwidth() <= 10.7
    assert_no_overlap(texts_of(figure))
    inside(figure, texts_of(figure))
    assert not {"of another class", "of the image's class"} & set(words(figure))
    with pytest.raises(ValueError, match=rf"{n} queries.*\({n}, {k}, .*\({n}, 39\)"):
        visualize.gallery(pictures[:, 0], pictures[:, 1:], found((n, 39)))


@pytest.mark.parametrize("width, least, neighbors", [(10.6, 9, 5), (NARROW, 4, 3)])
def test_a_gallery_without_classes_is_wide_and_names_files(
    rng, width, least, neighbors
):
    pictures = rng.integers(0, 256, (8, 6, 8, 8, 3), dtype=np.uint8)
    known = found((8, 5), labels=False)
    figure = visualize.gallery(pictures[:, 0], pictures[:, 1:], known, width=width)
    assert least < figure.get_figwidth() <= width
    assert len(figure.axes[0].images) == 8 * (1 + neighbors)
    said = words(figure)
    assert "…ays/photo_0.jpg" in said and "1.png   age 4" in said
    assert_no_overlap(texts_of(figure))
    inside(figure, texts_of(figure))


@pytest.mark.parametrize("width", [10.6, NARROW])
@pytest.mark.parametrize("classes", [3, 10, 100, 1000])
def test_names_of_a_map_have_room_and_the_legend_has_all(rng, classes, width):
    labels = np.arange(600) % classes
    labels[:25] = -1
    # All classes on one another, the hardest case.
    points = rng.normal(size=(600, 2))
    names = tuple(f"class {i}" for i in range(classes))
    figure = visualize.embedding(
        {"PCA": (points, ("x", "y"))}, labels, class_names=names, width=width
    )
    (legend,) = figure.legends
    listed = [text.get_text() for text in legend.get_texts()]
    gray = {100: "80 other classes or no label", 1000: "555 other classes or no label"}
    assert len(listed) == min(classes, 20) + 1
    assert listed[-1] == gray.get(classes, "no label")
    looks = {(h.get_color(), h.get_marker()) for h in legend.legend_handles}
    assert len(looks) == len(listed)
    texts = figure.axes[0].texts
    assert 1 <= len(texts) <= min(classes, 20)
    assert {text.get_text() for text in texts} <= set(listed)
    boxes = [text.get_window_extent().padded(4) for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert_no_overlap(texts_of(figure))
    inside(figure, texts_of(figure))
    drawn = np.concatenate([each.get_offsets() for each in figure.axes[0].collections])
    assert sorted(drawn[:, 0]) == sorted(points[:, 0])


def test_classes_look_as_in_the_legend(rng):
    labels = np.arange(60) % 20
    figure = visualize.embedding({"a": (rng.normal(size=(60, 2)), ("", ""))}, labels)
    looks = {}
    for handle in figure.legends[0].legend_handles:
        looks[handle.get_label()] = handle.get_marker(), to_rgb(handle.get_color())
    points = figure.axes[0].collections[1:]  # the first are gray
    for marker, drawn in zip("o^", points, strict=True):
        assert {look[1] for look in looks.values() if look[0] == marker} == {
            tuple(color[:3]) for color in drawn.get_facecolors()
        }


def test_maps_without_room_go_below(rng):
    points = rng.normal(size=(30, 2)), ("", "")
    maps = dict.fromkeys(("PCA", "t-SNE", "UMAP"), points)
    assert visualize.embedding(maps).get_size_inches().tolist() == [10.6, 10.6]
    narrow = visualize.embedding(maps, width=NARROW)
    assert narrow.get_size_inches().tolist() == [NARROW, 3 * NARROW]
    assert len(narrow.axes) == 3 and not narrow.legends


def test_a_class_is_named_where_most_of_it_is(rng):
    left, right = rng.normal(size=(60, 2)) * 0.1 - 5, rng.normal(size=(40, 2)) + 5
    points = np.concatenate([left, right])
    figure = visualize.embedding({"a": (points, ("", ""))}, np.zeros(100, int))
    (text,) = figure.axes[0].texts
    assert text.get_text() == "0"
    assert np.all(np.abs(np.array(text.get_position()) + 5) < 0.5)


def test_maps_are_principal_components_or_keep_neighbors(rng):
    features = np.concatenate(
        [rng.normal(size=(30, 8)) * 0.1 + row for row in np.eye(8)]
    )
    points, axes = visualize.project(features, "PCA", seed=0)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    rows = rows - rows.mean(axis=0)
    _, sigma, directions = np.linalg.svd(rows, full_matrices=False)
    for i in range(2):
        assert abs(np.corrcoef(points[:, i], rows @ directions[i])[0, 1]) > 0.999
    share = sigma[0] ** 2 / np.sum(sigma**2)
    assert axes[0] == f"component 1 ({share:.0%} of the variance)"
    points, axes = visualize.project(features, "t-SNE", seed=0)
    assert axes == ("t-SNE 1", "t-SNE 2")
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert np.mean(apart.argmin(axis=1) // 30 == np.arange(240) // 30) > 0.99
    for method in ("PCA", "t-SNE"):
        points, axes = visualize.project(np.ones((5, 1)), method, seed=0)
        assert not points.any() and points.shape == (5, 2)
        assert axes[1] == "all features are one point"
    with pytest.raises(ValueError, match="map of 2 images"):
        visualize.project(features[:2], "PCA", seed=0)
    with pytest.raises(ValueError, match="'LDA' is unknown"):
        visualize.project(features, "LDA", seed=0)


def test_a_small_confusion_is_a_table_of_shares():
    true = np.array([0, 0, 0, 0, 4, 4])
    figure = visualize.confusion(true, [0, 0, 0, 4, 4, 4], class_names=tuple("abcde"))
    image = figure.axes[0].images[0].get_array()
    assert image.tolist() == [[75, 25], [0, 100]]
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks == ["a", "e"]
    assert {"75", "25", "100"} <= set(words(figure))
    with pytest.raises(ValueError, match=r"shape \(6,\) do not fit .*\(2,\)"):
        visualize.confusion(true, [0, 0])


@pytest.mark.parametrize("width", [10.6, NARROW])
@pytest.mark.parametrize("classes", [10, 30, 100, 1000])
def test_a_confusion_of_many_classes_can_be_read(rng, classes, width):
    true = np.arange(4 * classes) % classes
    found = np.where(rng.random(4 * classes) < 0.2, (true + 1) % classes, true)
    found[true == 2] = 1
    names = tuple(f"the class {i}" for i in range(classes))
    figure = visualize.confusion(true, found, class_names=names, width=width)
    texts = texts_of(figure)
    assert_no_overlap(texts)
    inside(figure, texts)
    assert figure.get_figwidth() <= width and figure.get_figheight() < 10.7
    if classes > (30 if width > NARROW else 12):
        assert "the class 2 → the class 1" in words(figure)
        longest = max(bar.get_width() for bar in figure.axes[1].patches)
        assert longest == 4


def test_many_classes_without_any_confusion():
    figure = visualize.confusion(np.arange(50), np.arange(50))
    assert not figure.axes[1].patches


def test_the_use_of_a_queue_is_sorted_and_counted():
    figure = visualize.queue_coverage(np.array([0, 5, 1, 0]))
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == 5
    # The most used of the four rows has the first quarter.
    assert {(0, 5), (25, 5)} <= set(map(tuple, corners.tolist()))
    assert "times a row was chosen (50% of them ever)" in words(figure)
    figure = visualize.queue_age(np.array([0, 0, 1, 3]), np.array([0, 1, 2, 3]))
    chosen, rows = (patch.get_data().values for patch in figure.axes[0].patches)
    assert chosen.tolist() == [50, 25, 0, 25] and rows.tolist() == [25] * 4
    # 100 ages go into 25 bars of four whole steps each.
    even = visualize.queue_age(np.arange(100), np.arange(100))
    assert even.axes[0].patches[0].get_data().values.tolist() == [4] * 25
    for empty in (
        lambda: visualize.queue_coverage(np.zeros(3, int)),
        lambda: visualize.queue_age(np.array([]), np.arange(3)),
    ):
        with pytest.raises(ValueError, match="no row of the queue was chosen"):
            empty()


def test_ages_are_whole_steps():
    figure = visualize.queue_age(np.arange(2), np.arange(2))
    assert np.all(figure.axes[0].get_xticks() % 1 == 0)


def test_right_neighbors_are_drawn_by_rank():
    shares, right = np.array([0.75, 0.5, 0.0]), np.array([0.6, 0.3, np.nan])
    figure = visualize.neighbor_ranks(shares, right, np.array([0.2, 0.1, 0.1]))
    bars, weights = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [75, 50, 0]
    of_class, others = (line.get_xydata() for line in weights.lines)
    np.testing.assert_array_equal(of_class, [(1, 0.6), (2, 0.3), (3, np.nan)])
    np.testing.assert_array_equal(others, [(1, 0.2), (2, 0.1), (3, 0.1)])
    shown = [text.get_text() for text in weights.get_legend().get_texts()]
    assert shown == ["of its class", "of another"]


def test_crowded_labels_are_spread_and_others_stay():
    assert spread([0.1, 0.9], 0.2) == pytest.approx([0.1, 0.9])
    crowded = spread([0.5, 0.52, 0.48, 0.9], 0.1)
    assert np.diff(np.sort(crowded)).min() > 0.0999
    assert crowded[[2, 0, 1]].tolist() == sorted(crowded[:3])
    assert crowded[:3].mean() == pytest.approx(0.5)
    assert class_name(-1, ("a",)) == "" and class_name(3, None) == "3"


def test_figures_become_files_and_pixels(tmp_path):
    figure = visualize.curves(LINES, theme="dark")
    (path,) = visualize.save_all({"curves": figure}, tmp_path / "new")
    assert path == tmp_path / "new" / "curves.png"
    image = np.asarray(Image.open(path).convert("RGB"))
    background = np.round(255 * np.array(to_rgb(THEMES["dark"].background)))
    assert image[0, 0].tolist() == background.tolist()
    assert image.std() > 10
    array = visualize.pixels(figure)
    assert array.dtype == np.uint8 and array.shape[2] == 3
    assert figure._repr_png_().startswith(b"\x89PNG")
