import io
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lit_jax.data import images, resizing
from lit_jax.data.images import Augmentation, Pictures, View
from lit_jax.data.resizing import square


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


def assert_same(got, want, share=1 / 500):
    """The bound that `lit_jax.data.images` and `lit_jax.data.device_resizing` state."""
    wrong = np.abs(got.astype(int) - want.astype(int))
    assert wrong.max() <= 1 and (wrong > 0).mean() < share


def in_float64(photo, place, size, interpolation):
    """A place of a photo by the definition: every pixel is a mean of all by the kernel's weights, summed in float64."""
    y, x, height, width, full_height, full_width, top, left, mirrored = map(int, place)

    def matrix(old, new, first):
        at = (np.arange(first, first + size) + 0.5) * old / new - 0.5
        wide = max(old / new, 1.0)
        t = np.abs((np.arange(old)[None] - at[:, None]) / wide)
        if interpolation == "bilinear":
            weights = np.maximum(0.0, 1.0 - t)
        else:
            weights = (t <= 1) * (1.5 * t**3 - 2.5 * t**2 + 1)
            weights += ((t > 1) & (t < 2)) * (-0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)
        return weights / weights.sum(1, keepdims=True)

    part = photo[y : y + height, x : x + width].astype(np.float64)
    pixels = np.einsum(
        "sh,tw,hwc->stc", matrix(height, full_height, top), matrix(width, full_width, left), part, optimize=True
    )
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return pixels[:, ::-1] if mirrored else pixels


SIDES = [(500, 375), (97, 61), (901, 703), (640, 33), (40, 60), (7, 2), (3, 500), (1, 300), (300, 1), (1, 1)]


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
@pytest.mark.parametrize(("width", "height"), SIDES)
def test_squares_are_those_of_the_definition_in_float64(rng, width, height, interpolation):
    """Parts of photos larger and smaller than the square, and of one pixel, mirrored or not; by both of the hosts."""
    photo, size = np.asarray(natural(rng, width, height)), 61
    # Of a photo of few pixels, a value is there many times, and many are a half that may be rounded either way.
    share = 1 / 500 if min(width, height) >= size else 1 / 60
    whole, small = [0, 0, height, width], [height // 3, width // 3, max(height // 2, 1), max(width // 2, 1)]
    for part, full, offset in (
        (whole, (size, size), (0, 0)),
        (small, (size, size), (0, 0)),
        (whole, (size + 9, 3 * size), (4, 2 * size)),
        (small, (4 * size, size + 1), (3 * size, 1)),
    ):
        for mirrored in (0, 1):
            place = np.array([*part, *full, *offset, mirrored], np.int32)
            got = images.placed(photo, place, Pictures(size, View(interpolation))).numpy()
            assert_same(got, in_float64(photo, place, size, interpolation), share)
    for resize, crop in (("square", 1.0), ("square", 0.8)):
        pictures = Pictures(size, View(interpolation, resize, crop))
        place = pictures.plain_place([height, width]).numpy()
        assert_same(square(photo, pictures), in_float64(photo, place, size, interpolation), share)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (227, 227), (97, 61), (1200, 900)])
def test_figures_of_before_hold(rng, width, height, interpolation):
    """TensorFlow's own operation, by which stores were made before, gives the same but for one value of 10,000."""
    tf, size = images.tensorflow(), 96
    photo = np.asarray(natural(rng, width, height))
    short = min(width, height)
    full = size * height // short, size * width // short
    theirs = tf.raw_ops.ScaleAndTranslate(
        images=photo[None],
        size=[size, size],
        scale=[np.float32(full[0]) / np.float32(height), np.float32(full[1]) / np.float32(width)],
        translation=[-np.round((full[0] - size) / 2), -np.round((full[1] - size) / 2)],
        kernel_type={"bicubic": "keyscubic", "bilinear": "triangle"}[interpolation],
        antialias=True,
    )[0]
    want = np.clip(np.rint(theirs), 0, 255).astype(np.uint8)
    pictures = Pictures(size, View(interpolation))
    got = images.placed(photo, pictures.plain_place([height, width]), pictures).numpy()
    assert_same(got, want, 1e-4)
    assert_same(square(photo, pictures), want, 1e-4)


@pytest.mark.parametrize("at_a_time", [1, 1000, 200_000])
def test_a_large_photo_is_the_same_a_few_columns_at_a_time(rng, monkeypatch, at_a_time):
    photo, pictures = np.asarray(natural(rng, 311, 203)), Pictures(64)

    def both():
        placed = images.placed(photo, pictures.plain_place(photo.shape[:2]), pictures).numpy()
        return np.stack([placed, square(photo, pictures)])

    want = both()
    for module in (images, resizing):
        monkeypatch.setattr(module, "AT_A_TIME", at_a_time)
    np.testing.assert_array_equal(both(), want)


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


@pytest.mark.parametrize(
    ("pictures", "sides", "halvings"),
    [
        (
            Pictures(32, augmentation=Augmentation("centre"), shrink=True),
            [63, 64, 127, 128, 255, 256, 999],
            [*"0112233"],
        ),
        (Pictures(28, View(crop_fraction=0.875), Augmentation("centre"), shrink=True), [63, 64, 128], [*"012"]),
        # Of half the area and 3:4 a part of 105 pixels has 64 on its shorter side.
        (Pictures(32, augmentation=Augmentation("random", (0.5, 1.0)), shrink=True), [104, 105, 209, 210], [*"0112"]),
        (Pictures(32, augmentation=Augmentation("centre")), [64, 999], [*"00"]),
    ],
)
def test_photos_are_halved_as_long_as_enough_is_left(rng, pictures, sides, halvings):
    files = [jpeg(natural(rng, *size)) for side in sides for size in [(side, side + 90), (side + 40, side)]]
    if pictures.augmentation.crop == "random":
        files = [jpeg(natural(rng, side, side)) for side in sides for _ in range(2)]
    assert [int(pictures.halvings(file)) for file in files] == [int(times) for times in halvings for _ in range(2)]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_halved_photos_are_those_that_pillow_halves(rng, times):
    """Pillow's draft is libjpeg's own scaling; squares of it are within the bound of photos that are not halved."""
    data = jpeg(natural(rng, 517, 403), subsampling=0)
    pictures = Pictures(400 >> times, augmentation=Augmentation("centre", (0.3, 1.0)), shrink=True)
    small = Image.open(io.BytesIO(data))
    small.draft("RGB", (517 >> times, 403 >> times))
    assert small.size == tuple(pictures.sides(data).numpy()[::-1]) == (-(-517 // 2**times), -(-403 // 2**times))
    whole = pictures.decoded(data).numpy()
    np.testing.assert_array_equal(whole, np.asarray(small))
    assert_same(pictures.plain(data).numpy(), square(whole, pictures), 1e-4)
    for number in range(3):
        place = pictures.cropped_place(pictures.sides(data), [7, number])
        got = pictures.cropped(data, [7, number]).numpy()
        np.testing.assert_array_equal(got, images.placed(whole, place, pictures).numpy())


PIPELINE = """
import resource, sys
from lit_jax.data.images import tensorflow
tf = tensorflow()
photos = tf.data.Dataset.range(400).map(lambda number: tf.fill([1024, 1024], tf.cast(number, tf.uint8)))
for number, batch in enumerate(photos.batch(40).as_numpy_iterator()):
    if number == 5:
        before, written = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, 0
    elif number > 5:
        written += batch.nbytes
    del batch
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / written)
"""


def test_memory_of_batches_is_kept_for_the_next():
    """Else the system hands out each page of a batch anew, which takes longer than to fill it."""
    env = {name: value for name, value in os.environ.items() if name != images.KEEPS_MEMORY}
    done = subprocess.run([sys.executable, "-c", PIPELINE], capture_output=True, text=True, check=True, env=env)
    assert float(done.stdout) < 0.1


FAULTS = """
import resource, sys, threading
import numpy as np
from lit_jax.base.processes import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def work():
    for number in range(60):
        if number == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        arrays = [np.ones(80_000) for _ in range(8)]
        del arrays
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not told what to keep")
def test_threads_keep_the_memory_of_the_last_photo():
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "as it is")
    ]
    assert 20 * faults[0] < faults[1]
