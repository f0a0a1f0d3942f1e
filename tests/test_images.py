import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lit_jax.data import images


def natural(rng, width, height):
    """A photo-like picture: noise of several scales, so that every frequency is there, within 0 to 255."""
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (max(2, height // s), max(2, width // s), 3), np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            np.float32,
        )
        for s in (2, 8, 32)
    ]
    picture = Image.fromarray(np.uint8(0.2 * layers[0] + 0.4 * layers[1] + 0.4 * layers[2]))
    return picture.filter(ImageFilter.GaussianBlur(0.7))


def jpeg(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def pil_centre_crop(data, size):
    """torchvision's Resize(size, bicubic) and CenterCrop(size), with PIL alone."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    picture = picture.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def assert_close(got, want):
    """The tolerance stated in `lit_jax.data.images`."""
    difference = np.abs(got.astype(int) - want.astype(int))
    assert difference.max() <= 11
    assert (difference > 1).mean() <= 1e-3


@pytest.mark.parametrize(
    ("width", "height", "size"), [(500, 375, 224), (375, 500, 224), (333, 334, 64), (97, 61, 96), (640, 200, 33)]
)
def test_centre_crop_agrees_with_pil(rng, width, height, size):
    data = jpeg(natural(rng, width, height))
    assert_close(images.centre_crop(data, size=size).numpy(), pil_centre_crop(data, size))


def test_centre_crop_of_real_photos_agrees_with_pil(shared_data):
    photos = sorted((shared_data / "cub100" / "images").rglob("*.jpg"))[::400]
    assert len(photos) > 10
    for path in photos:
        data = path.read_bytes()
        assert_close(images.centre_crop(data, size=128).numpy(), pil_centre_crop(data, 128))


def test_random_crop_is_a_pil_resize_of_the_box_it_draws(rng):
    tf = images.tensorflow()
    data = jpeg(natural(rng, 400, 300), subsampling=0)
    for number in range(5):
        seed = tf.constant([7, number], tf.int64)
        draws = tf.random.stateless_uniform([images.TRIES + 1, 4], seed)
        y, x, h, w = images._crop_box(tf, draws[: images.TRIES], 300, 400, (0.3, 1.0)).numpy()
        picture = Image.open(io.BytesIO(data)).crop((x, y, x + w, y + h)).resize((96, 96), Image.Resampling.BICUBIC)
        got = images.random_crop(data, seed, size=96, scale=(0.3, 1.0), flip=False).numpy()
        assert_close(got, np.asarray(picture))


def boxes(width, height, scale, count=300):
    tf = images.tensorflow()
    draws = [tf.random.stateless_uniform([images.TRIES, 4], [1, number]) for number in range(count)]
    return np.stack([images._crop_box(tf, draw, height, width, scale).numpy() for draw in draws])


def test_boxes_have_the_areas_and_ratios_asked_for():
    y, x, h, w = boxes(400, 300, (0.2, 0.9)).T
    area, ratio = h * w / (400 * 300), w / h
    assert (x >= 0).all() and (y >= 0).all() and (x + w <= 400).all() and (y + h <= 300).all()
    assert 0.19 < area.min() < 0.25 and 0.8 < area.max() < 0.91
    assert 0.74 < ratio.min() < 0.8 and 1.28 < ratio.max() < 1.34
    assert len({(a, b) for a, b in zip(x, y, strict=True)}) > 200


@pytest.mark.parametrize(("width", "height", "box"), [(1000, 100, (0, 433, 100, 133)), (100, 1000, (433, 0, 133, 100))])
def test_a_very_long_photo_falls_back_on_its_middle(width, height, box):
    got = boxes(width, height, (0.9, 1.0), count=3)
    assert (np.abs(got - np.array(box)) <= 1).all()


def test_flip_mirrors_about_half_and_nothing_else(rng):
    data = jpeg(natural(rng, 80, 80))
    plain, flipped = (
        np.stack([images.random_crop(data, [3, i], size=16, scale=(0.9, 1.0), flip=flip).numpy() for i in range(40)])
        for flip in (False, True)
    )
    same = (plain == flipped).all((1, 2, 3))
    mirrored = (plain[:, :, ::-1] == flipped).all((1, 2, 3))
    assert (same ^ mirrored).all() and 10 < mirrored.sum() < 30


def test_grey_photos_become_three_equal_channels(rng):
    data = jpeg(natural(rng, 50, 40).convert("L"))
    for got in (
        images.centre_crop(data, size=20),
        images.random_crop(data, [0, 0], size=20, scale=(0.5, 1), flip=False),
    ):
        got = got.numpy()
        assert got.shape == (20, 20, 3) and (got == got[..., :1]).all()
