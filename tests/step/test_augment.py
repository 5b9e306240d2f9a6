"""Views against Pillow, colorsys and SciPy, and what randomness promises."""

import colorsys
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from snclr_jax.step import augment

SIZE = 16
OPERATIONS = ("brightness", "contrast", "saturation", "hue")
LUMA = np.array([0.299, 0.587, 0.114])


def settings(**changed):
    """Every transform off, but for what a test turns on."""
    off = dict(
        crop_scale=(1.0, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.0,
        jitter=0.0,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        grayscale=0.0,
        blur=0.0,
        blur_sigma=(0.1, 2.0),
        solarize=0.0,
    )
    return SimpleNamespace(**{**off, **changed})


FULL = settings(
    crop_scale=(0.2, 1.0),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
    blur=0.5,
    solarize=0.2,
)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, SIZE, SIZE, 3), np.uint8)
    noise[0] = 77  # gray has no hue
    return noise


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def views(images, chosen, seed=0, size=SIZE):
    """The views, computed in one compiled batch."""
    draw = jax.jit(lambda k, x: augment.augment_batch(k, x, size=size, settings=chosen))
    return np.asarray(draw(keys(len(images), seed), images))


def levels(image):
    return np.asarray(image, np.float64) / 255


def draws(count):
    """The random numbers of the first views, by transform."""
    return [np.asarray(d) for d in jax.vmap(augment._draws)(keys(count))]


def planar(image):
    return jnp.moveaxis(jnp.asarray(image, jnp.float32) / 255, -1, 0)


def resize_with_pillow(image, top, left, height, width, size):
    """Crop, then resize: in float per channel, so that nothing is rounded."""
    box = np.asarray(image, np.float32)[top : top + height, left : left + width]
    channels = [
        Image.fromarray(np.ascontiguousarray(box[..., c])).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        for c in range(3)
    ]
    return levels(np.stack([np.asarray(channel) for channel in channels], -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_everything_off_gives_the_image(images, dtype):
    given = images if dtype == np.uint8 else levels(images).astype(dtype)
    out = views(given, settings())
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, levels(images), atol=1e-7)


interpolation = jax.jit(augment._interpolation, static_argnums=(2, 3))


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 28), (3, 5, 7, 9), (2, 1, 18, 4), (19, 27, 1, 1)]
)
def test_crop_and_resize_equal_pillows(box):
    image = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    top, left, height, width = box
    rows = interpolation(top, height, 20, SIZE)
    columns = interpolation(left, width, 28, SIZE)
    out = augment._separable(rows, planar(image), columns)
    expected = resize_with_pillow(image, *box, SIZE)
    np.testing.assert_allclose(np.moveaxis(out, 0, -1), expected, atol=1e-6)


def test_a_view_is_the_crop_that_was_drawn(images):
    chosen = settings(crop_scale=(0.2, 0.6), flip=1.0)
    out = views(images[:4], chosen)
    drawn = boxes(SIZE, SIZE, chosen, count=4).T
    for box, image, view in zip(drawn, images[:4], out, strict=True):
        expected = resize_with_pillow(image, *box, SIZE)[:, ::-1]
        np.testing.assert_allclose(view, expected, atol=1e-6)


def boxes(height, width, chosen, count=2000):
    def box(draw):
        return jnp.stack(augment._crop_box(draw, height, width, chosen))

    return np.asarray(jax.jit(jax.vmap(box))(draws(count)[0]), int).T


def test_crops_keep_to_area_and_ratio_and_reach_every_border():
    height, width = 200, 300
    top, left, box_height, box_width = boxes(
        height, width, settings(crop_scale=(0.1, 0.5))
    )
    assert top.min() == 0 and (top + box_height).max() == height
    assert left.min() == 0 and (left + box_width).max() == width
    area = box_height * box_width / (height * width)
    # Rounding to whole pixels moves a side of 50 or more by at most 1%.
    assert 0.099 < area.min() < 0.11 and 0.49 < area.max() < 0.505
    ratio = box_width / box_height
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    # Uniform: the mean of 2000 draws has a standard error of 0.0026 and 0.0037.
    assert abs(area.mean() - 0.3) < 0.01
    assert abs(np.log(ratio).mean()) < 0.015


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((30, 300), (0, 130, 30, 40)), ((300, 30), (130, 0, 40, 30))],
)
def test_where_no_crop_fits_the_middle_is_taken(shape, expected):
    drawn = boxes(*shape, settings(crop_scale=(1.0, 1.0)), count=3)
    np.testing.assert_array_equal(drawn.T, [expected] * 3)


@pytest.mark.parametrize("operation", OPERATIONS[:3])
def test_color_operations_equal_pillows(images, operation):
    enhancer = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }[operation]
    out = views(images[1:9], settings(jitter=1.0, **{operation: 0.9}))
    factors = []
    for image, view in zip(images[1:9], out, strict=True):
        x = levels(image)
        gray = (x @ LUMA)[..., None]
        other = {"brightness": 0 * x, "contrast": gray.mean(), "saturation": gray}
        difference = x - other[operation]
        # The factor is the slope of the pixels that were not clipped.
        free = (view > 0) & (view < 1)
        change = view - other[operation]
        factor = (change * difference)[free].sum() / (difference**2)[free].sum()
        expected = levels(enhancer(Image.fromarray(image)).enhance(factor))
        # Pillow cuts its result to whole levels, and rounds the gray image inside.
        tolerance = (1.01 + 0.5 * abs(1 - factor)) / 255
        np.testing.assert_allclose(view, expected, atol=tolerance)
        factors.append(factor)
    assert 0.1 < min(factors) < 0.7 and 1.3 < max(factors) < 1.9


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.03, 0.4])
def test_hue_equals_colorsys(images, shift):
    image = levels(images[:2])
    image[1, :3] = 0.0
    image[1, 3:6] = 1.0
    image[1, 6:9] = [1.0, 0.0, 0.0]
    for pixels in image:
        out = augment._shift_hue(jnp.moveaxis(jnp.asarray(pixels), -1, 0), shift)
        hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels.reshape(-1, 3)]
        rgb = [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]
        expected = np.reshape(rgb, pixels.shape)
        np.testing.assert_allclose(np.moveaxis(out, 0, -1), expected, atol=2e-6)


def test_hue_shifts_keep_to_their_range():
    red = np.tile(np.array([255, 0, 0], np.uint8), (512, 2, 2, 1))
    out = views(red, settings(jitter=1.0, hue=0.1), size=2)
    hue = np.array([colorsys.rgb_to_hsv(*view[0, 0])[0] for view in out])
    shift = (hue + 0.5) % 1 - 0.5
    assert -0.1001 < shift.min() < -0.095 and 0.095 < shift.max() < 0.1001


def jitter_oracle(x, order, factor, shift):
    for operation in order:
        gray = (x @ LUMA)[..., None]
        if operation == "brightness":
            x = x * factor[0]
        elif operation == "contrast":
            x = factor[1] * x + (1 - factor[1]) * gray.mean()
        elif operation == "saturation":
            x = factor[2] * x + (1 - factor[2]) * gray
        else:
            hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in x.reshape(-1, 3)]
            rgb = [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]
            x = np.reshape(rgb, x.shape)
        x = np.clip(x, 0, 1)
    return x


def test_jitter_takes_every_order_of_its_four_operations():
    count = 480
    batch = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    strong = settings(jitter=1.0, **dict.fromkeys(OPERATIONS[:3], 0.9), hue=0.4)
    out = views(batch, strong, size=2)
    matches = dict.fromkeys(itertools.permutations(OPERATIONS), 0)
    for draw, image, view in zip(draws(count)[2], batch, out, strict=True):
        # The factors and the shift are known; the order is what has to be found.
        factor, shift = 0.1 + 1.8 * draw[4:7], -0.4 + 0.8 * draw[7]
        errors = {
            order: np.abs(jitter_oracle(levels(image), order, factor, shift) - view)
            for order in matches
        }
        found = [order for order in matches if errors[order].max() < 1e-5]
        assert found
        for order in found:
            matches[order] += 1
    # 20 are expected of each, or more, as some orders agree on some images.
    assert min(matches.values()) >= 6


def test_jitter_of_a_part_of_the_operations_shuffles_these(images):
    """Without hue, and with brightness left out: two orders of two operations."""
    batch = np.tile(images[1:2, :4, :4], (64, 1, 1, 1))
    chosen = settings(jitter=1.0, contrast=0.9, saturation=0.9)
    out = views(batch, chosen, size=4)
    orders = list(itertools.permutations(["contrast", "saturation"]))
    seen = dict.fromkeys(orders, 0)
    for draw, view in zip(draws(64)[2], out, strict=True):
        for order in orders:
            factor = 0.1 + 1.8 * draw[4:7]
            expected = jitter_oracle(levels(batch[0]), order, factor, 0.0)
            seen[order] += np.abs(expected - view).max() < 1e-5
    assert min(seen.values()) > 16 and sum(seen.values()) >= 64


def test_grayscale_is_the_luma_in_every_channel(images):
    out = views(images[:4], settings(grayscale=1.0))
    gray = (levels(images[:4]) @ LUMA)[..., None]
    np.testing.assert_allclose(out, np.broadcast_to(gray, out.shape), atol=1e-6)


def test_solarize_equals_pillows(images):
    out = views(images[:4], settings(solarize=1.0))
    expected = [
        ImageOps.solarize(Image.fromarray(i), threshold=128) for i in images[:4]
    ]
    np.testing.assert_allclose(out, [levels(e) for e in expected], atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_equals_a_mirrored_gaussian_filter(images, sigma):
    """SciPy's "mirror" repeats the image about the outermost pixel's center."""
    out = views(images[:2], settings(blur=1.0, blur_sigma=(sigma, sigma)))
    for image, view in zip(images[:2], out, strict=True):
        for c in range(3):
            expected = ndimage.gaussian_filter(
                levels(image)[..., c], sigma, mode="mirror", radius=SIZE - 1
            )
            np.testing.assert_allclose(view[..., c], expected, atol=1e-6)


def test_blur_widths_keep_to_their_range():
    dot = np.zeros((256, 17, 17, 3), np.uint8)
    dot[:, 8, 8] = 255
    out = views(dot, settings(blur=1.0, blur_sigma=(0.5, 1.5)), size=17)
    # Beside the middle a Gaussian has fallen to exp(-1 / (2 sigma^2)).
    sigma = np.sqrt(-0.5 / np.log(out[:, 8, 9, 0] / out[:, 8, 8, 0]))
    assert 0.499 < sigma.min() < 0.52 and 1.48 < sigma.max() < 1.501


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("flip", {}),
        ("jitter", {"brightness": 0.5}),
        ("grayscale", {}),
        ("blur", {}),
        ("solarize", {}),
    ],
)
def test_probabilities_are_honored(name, others):
    batch = np.random.default_rng(0).integers(0, 256, (512, 4, 4, 3), np.uint8)
    others = {**others, "blur_sigma": (1.0, 2.0)}
    out = views(batch, settings(**{name: 0.3}, **others), size=4)
    changed = np.abs(out - levels(batch)).max(axis=(1, 2, 3)) > 1e-6
    # Four standard errors of 512 draws.
    assert abs(changed.mean() - 0.3) < 0.081


def test_a_view_does_not_depend_on_its_batch(images):
    draw = jax.jit(lambda k, x: augment.augment_batch(k, x, size=SIZE, settings=FULL))
    all_keys = keys(len(images))
    whole = np.asarray(draw(all_keys, images))
    order = np.random.default_rng(1).permutation(len(images))
    np.testing.assert_array_equal(draw(all_keys[order], images[order]), whole[order])
    assert whole.min() >= 0 and whole.max() <= 1
    single = jax.jit(lambda k, x: augment.random_view(k, x, size=SIZE, settings=FULL))
    for key, image, view in zip(all_keys, images, whole, strict=True):
        np.testing.assert_allclose(single(key, image), view, atol=2e-6)
    other = draw(keys(len(images), seed=1), images)
    assert np.abs(other - whole).max(axis=(1, 2, 3)).min() > 0.01


def test_transforms_come_in_the_order_of_byol(monkeypatch):
    """Crop, flip, jitter, grayscale, blur, solarize, by values; no two of them alike.

    The uniform numbers of each transform are chosen here: a key is the numbers.
    """

    def split(numbers):
        return jnp.split(numbers, np.cumsum([22, 1, 9, 1, 2]))

    def numbers_of(gray):
        crop = [0.5] * 20 + [0.2, 0.9]
        jitter = [0.1, 0.2, 0.3, 0.4, 0.7, 0.6, 0.8, 0.8, 0.0]
        return [*crop, 0.0, *jitter, gray, 0.0, 0.5, 0.0]

    monkeypatch.setattr(augment, "_draws", split)
    image = np.random.default_rng(3).integers(0, 256, (20, 20, 3), np.uint8)
    chosen = settings(
        crop_scale=(0.25, 0.25),
        crop_ratio=(1.0, 1.0),
        flip=1.0,
        jitter=1.0,
        **dict.fromkeys(OPERATIONS[:3], 0.9),
        hue=0.4,
        grayscale=0.5,
        blur=1.0,
        blur_sigma=(0.6, 0.8),
        solarize=1.0,
    )
    numbers = jnp.asarray([numbers_of(0.6), numbers_of(0.4)])
    draw = jax.jit(lambda k, x: augment.augment_batch(k, x, size=12, settings=chosen))
    found = draw(numbers, np.stack([image, image]))
    for view, gray in zip(found, (False, True), strict=True):
        x = resize_with_pillow(image, 2, 9, 10, 10, 12)[:, ::-1]
        x = jitter_oracle(x, OPERATIONS, (1.36, 1.18, 1.54), 0.24)
        if gray:
            x = np.repeat((x @ LUMA)[..., None], 3, axis=-1)
        x = np.stack(
            [
                ndimage.gaussian_filter(x[..., c], 0.7, mode="mirror", radius=11)
                for c in range(3)
            ],
            axis=-1,
        )
        assert np.abs(x - 0.5).min() > 1e-5
        expected = np.where(x >= 0.5, 1 - x, x)
        np.testing.assert_allclose(view, expected, atol=1e-5)


def test_what_is_off_is_not_compiled(images):
    def program(chosen):
        def view(key, image):
            return augment.random_view(key, image, size=SIZE, settings=chosen)

        return str(jax.make_jaxpr(view)(keys(1)[0], images[0]))

    needs = {
        "dot_general": settings(crop_scale=(0.5, 1.0)),
        "exp": settings(blur=0.1),
        "sort": settings(jitter=0.5, contrast=0.1, hue=0.1),
        "floor": settings(jitter=0.5, hue=0.1),
    }
    nothing = program(settings(brightness=0.4, hue=0.1))
    for primitive, chosen in needs.items():
        assert f" {primitive}" in program(chosen)
        assert f" {primitive}" not in nothing
    assert " floor" not in program(settings(jitter=0.5, contrast=0.1))


def test_center_view_cuts_the_middle_and_scales():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 10, 3), np.uint8)
    out = augment.center_view(images, size=6)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, levels(images[:, 1:7, 2:8]), atol=1e-7)
    with pytest.raises(ValueError, match="9 x 9 pixels out of images of 8 x 10"):
        augment.center_view(images, size=9)


def test_normalize_standardizes_channels():
    image = np.full((1, 2, 2, 3), 0.5, np.float32)
    out = augment.normalize(image, (0.5, 0.25, 0.0), (1.0, 0.5, 0.25))
    np.testing.assert_allclose(out[0, 0, 0], [0.0, 0.5, 2.0])
    assert out.dtype == np.float32
    with pytest.raises(ValueError, match="3 channels do not fit 1 values of data.mean"):
        augment.normalize(image, (0.5,), (1.0, 0.5, 0.25))


ALL_BUT_COLORS = SimpleNamespace(
    **{**vars(FULL), "saturation": 0.0, "hue": 0.0, "grayscale": 0.0}
)


def test_a_gray_image_changes_as_one_in_color_does(images):
    gray = images[..., :1]
    got = views(gray, ALL_BUT_COLORS, size=12)
    want = views(np.repeat(gray, 3, axis=-1), ALL_BUT_COLORS, size=12)
    assert got.shape[-1] == 1
    # Solarizing at the very threshold, a rounding decides.
    assert np.mean(np.abs(got - want[..., :1]) > 1e-5) < 1e-3


def test_contrast_is_that_around_the_mean_of_all_channels():
    rng = np.random.default_rng(0)
    # In the middle of the range, so that nothing is clipped.
    image = rng.integers(100, 156, (4, SIZE, SIZE, 5), np.uint8)
    got = views(image, settings(jitter=1.0, contrast=0.4))
    mean = levels(image).mean(axis=(1, 2, 3), keepdims=True)
    factor = (got - mean).std(axis=(1, 2, 3)) / levels(image).std(axis=(1, 2, 3))
    assert factor.std() > 0.01
    want = mean + factor[:, None, None, None] * (levels(image) - mean)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("operation", ["saturation", "hue"])
def test_colors_of_other_images_than_rgb_are_refused(operation):
    images = np.zeros((2, 8, 8, 5), np.uint8)
    for chosen in (settings(jitter=0.5, **{operation: 0.1}), settings(grayscale=0.1)):
        with pytest.raises(ValueError, match=r"got \(8, 8, 5\); set saturation, hue"):
            augment.augment_batch(keys(2), images, size=8, settings=chosen)


def test_what_is_gray_is_as_often_solarized_as_what_is_not():
    batch = np.random.default_rng(0).integers(0, 256, (512, 4, 4, 3), np.uint8)
    out = views(batch, settings(grayscale=0.5, solarize=0.5), size=4)
    gray = np.ptp(out, axis=-1).max(axis=(1, 2)) < 1e-6
    x = levels(batch)
    x = np.where(gray[:, None, None, None], (x @ LUMA)[..., None], x)
    solarized = np.abs(out - x).max(axis=(1, 2, 3)) > 1e-6
    # Four standard errors of 512 draws.
    assert abs(np.mean(gray & solarized) - 0.25) < 0.077
    assert abs(np.mean(gray | solarized) - 0.75) < 0.077


def test_views_that_are_blurred_at_times_have_every_width():
    dot = np.zeros((512, 17, 17, 3), np.uint8)
    dot[:, 8, 8] = 255
    out = views(dot, settings(blur=0.3, blur_sigma=(0.5, 1.5)), size=17)
    out = out[out[:, 8, 8, 0] < 0.99]
    sigma = np.sqrt(-0.5 / np.log(out[:, 8, 9, 0] / out[:, 8, 8, 0]))
    assert sigma.min() < 0.55 and sigma.max() > 1.45


def test_views_that_are_jittered_at_times_take_every_order_as_often():
    batch = np.random.default_rng(0).integers(0, 256, (600, 2, 2, 3), np.uint8)
    chosen = settings(jitter=0.5, brightness=0.9, contrast=0.9)
    out = views(batch, chosen, size=2)
    orders = [("brightness", "contrast"), ("contrast", "brightness")]
    seen = dict.fromkeys(orders, 0)
    for draw, image, view in zip(draws(600)[2], batch, out, strict=True):
        factor = 0.1 + 1.8 * draw[4:7]
        found = [
            order
            for order in orders
            if np.abs(jitter_oracle(levels(image), order, factor, 0) - view).max()
            < 1e-5
        ]
        # Where nothing is clipped the order does not matter.
        if len(found) == 1:
            seen[found[0]] += 1
    total = sum(seen.values())
    assert total > 100
    # Four standard errors.
    assert abs(seen[orders[0]] / total - 0.5) < 2 / total**0.5
