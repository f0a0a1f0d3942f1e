"""Corruptions of photos: each against its formula, another library, or a property that only the right one has."""

import colorsys
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lit_jax.evaluation import corruptions
from lit_jax.evaluation.corruptions import KINDS, SEVERITIES, corrupt, generator

NOISES = {"gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38), "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27)}
RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog",
          "elastic_transform")  # fmt: skip


@pytest.fixture(scope="module")
def photo():
    """Smooth shapes and fine texture, in colours, 224 pixels."""
    y, x = np.mgrid[:224, :224] / 223
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y * x), np.sin(60 * x) * np.cos(50 * y)], -1)
    return (127.5 + 110 * waves).astype(np.uint8)


def flat(value, size=224):
    return np.full((size, size, 3), value, np.uint8)


def made(photo, kind, severity, *, seed=0, number=0):
    return corrupt(photo, kind, severity, generator(seed, "split", number, kind, severity))


def test_all_fifteen_of_the_paper_are_there():
    by_group = {}
    for name, kind in KINDS.items():
        by_group.setdefault(kind.group, []).append(name)
        assert len(kind.parameters) == 5
    assert {group: len(names) for group, names in by_group.items()} == {
        "noise": 3, "blur": 4, "weather": 4, "digital": 4,
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_bytes_and_others_do_not(kind, photo):
    small = photo[:64, :64]
    before = small.copy()
    for severity in (1, 5):
        found = made(small, kind, severity)
        assert found.dtype == np.uint8 and found.shape == small.shape and (small == before).all()
        np.random.seed(severity)  # no state of others plays a part
        assert made(small, kind, severity).tobytes() == found.tobytes()
        others = [made(small, kind, severity, seed=1), made(small, kind, severity, number=1)]
        assert all((found != other).any() for other in others) == (kind in RANDOM)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"elastic_transform", "fog", "frost", "motion_blur", "snow"}))
def test_a_higher_severity_takes_more(kind, photo):
    """But for those whose severities differ in kind, or whose pattern or direction is drawn anew."""
    change = [np.abs(made(photo, kind, s).astype(float) - photo).mean() for s in SEVERITIES]
    # Glass takes the second severity with fewer rounds, and so does the paper's table.
    steps = np.diff(change) > 0
    assert steps.all() if kind != "glass_blur" else change[0] < change[2] < change[4]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_its_deviation(severity):
    found = made(flat(128), "gaussian_noise", severity).astype(float)
    deviation = 255 * NOISES["gaussian_noise"][severity - 1]
    inside = np.abs(np.random.default_rng(0).normal(128, deviation, 10**6).clip(0, 255) - 128)
    assert np.abs(found - 128).mean() == pytest.approx(inside.mean(), rel=0.02)
    assert abs(found.mean() - 128) < 1


@pytest.mark.parametrize("severity, photons", [*zip(SEVERITIES, (60, 25, 12, 5, 3), strict=True)])
def test_shot_noise_counts_photons(severity, photons):
    found = made(flat(51), "shot_noise", severity) / 255  # a fifth of white
    assert found.mean() == pytest.approx(0.2, rel=0.03)
    assert found.var() == pytest.approx(0.2 / photons, rel=0.05)
    assert np.abs(found * photons - np.rint(found * photons)).max() <= photons / 510 + 1e-9


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_hits_its_share_black_and_white(severity):
    found = made(flat(100), "impulse_noise", severity)
    share = NOISES["impulse_noise"][severity - 1]
    assert set(np.unique(found)) == {0, 100, 255}
    assert (found == 0).mean() == pytest.approx(share / 2, rel=0.05) == pytest.approx((found == 255).mean(), rel=0.1)
    assert (found[..., 0] != found[..., 1]).any()  # each channel by itself


@pytest.mark.parametrize("kind", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate"])
def test_blurs_leave_what_is_flat(kind):
    for severity in (1, 5):
        assert np.abs(made(flat(77), kind, severity).astype(int) - 77).max() <= 1


def point(size=225, value=255):
    found = flat(0, size)
    found[size // 2, size // 2] = value
    return found / 255


@pytest.mark.parametrize("severity, radius", [(2, 4), (5, 10)])
def test_a_point_out_of_focus_is_a_disk(severity, radius):
    values = KINDS["defocus_blur"].parameters[severity - 1]
    found = KINDS["defocus_blur"].function(point(224 + 1), values, None)[..., 0]
    assert found.sum() == pytest.approx(1)
    y, x = np.nonzero(found > found.max() / 2)
    distances = np.hypot(y - 112, x - 112)
    assert distances.max() <= radius + 1 and found[112, 112 + radius + 3] == pytest.approx(0, abs=1e-12)
    assert len(y) == pytest.approx(np.pi * radius**2, rel=0.15)


def test_motion_is_half_a_gaussian_along_a_line():
    found = corruptions._streaked(point(), 10, 3, 0.0)[..., 0]
    taps = np.exp(-(np.arange(21) ** 2) / 18)
    row = np.zeros(225)
    row[112 - 20 : 113] = (taps / taps.sum())[::-1]
    assert found[112] == pytest.approx(row) and np.delete(found, 112, 0).max() == 0
    # Along 45 degrees each step goes as far down as right.
    slanted = corruptions._streaked(point(), 10, 3, 45.0)[..., 0]
    y, x = np.nonzero(slanted)
    assert (y - 112 == x - 112).all() and slanted.sum() == pytest.approx(1)


def test_glass_moves_pixels_no_further_than_it_may(photo, monkeypatch):
    monkeypatch.setattr(corruptions, "_blurred", lambda x, sigma: x)
    places = np.arange(224 * 224).reshape(224, 224)
    numbered = np.stack([places // 224, places % 224, places * 0], -1).astype(float)
    found = corruptions._glass_blur(numbered, (0.9, 2, 1), generator(0))
    flat_places = (found[..., 0] * 224 + found[..., 1]).astype(int).reshape(-1)
    assert sorted(flat_places) == list(range(224 * 224))  # changed places, none lost
    moved = np.abs(found[..., :2] - numbered[..., :2]).max(-1)
    assert (moved > 0)[5:-5, 5:-5].mean() > 0.5 and np.median(moved) <= 2
    assert (moved[0] == 0).all()  # the rim is left


def test_glass_begins_and_ends_with_a_gaussian(photo):
    still = (0.7, 1, 0)
    once = ndimage.gaussian_filter(photo / 255, (0.7, 0.7, 0), mode="nearest", truncate=4)
    twice = ndimage.gaussian_filter(once, (0.7, 0.7, 0), mode="nearest", truncate=4)
    assert corruptions._glass_blur(photo / 255, still, generator(0)) == pytest.approx(twice)


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.31, 3.0])
def test_enlarging_is_scipys_zoom_of_the_middle(factor, photo):
    x = photo / 255
    part = int(np.ceil(224 / factor))
    top = (224 - part) // 2
    whole = ndimage.zoom(x[top : top + part, top : top + part], (factor, factor, 1), order=1)
    trim = (len(whole) - 224) // 2
    assert corruptions._enlarged(x, factor) == pytest.approx(whole[trim : trim + 224, trim : trim + 224])


def test_zoom_blur_is_the_mean_over_its_factors(photo):
    x, factors = photo / 255, np.arange(1, 1.21, 0.02)
    wanted = (x + sum(corruptions._enlarged(x, f) for f in factors)) / (len(factors) + 1)
    assert np.abs(made(photo, "zoom_blur", 3) - wanted * 255).max() < 0.51


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_is_added_and_scaled_back(severity):
    """On black there is only fog, on one value `v` it is ``(v + c p) v / (v + c)`` with p from 0 to 1."""
    thickness = (1.5, 2, 2.5, 2.5, 3)[severity - 1]
    value = 153 / 255
    found = made(flat(153), "fog", severity) / 255
    assert found.min() == pytest.approx(value**2 / (value + thickness), abs=0.02)
    assert found.max() <= value + 0.01 and found.std() > 0.02


def test_a_plasma_is_rough_at_all_scales_and_rougher_with_less_decay():
    smooth, rough = (corruptions._plasma(decay, generator(1)) for decay in (3.0, 1.4))
    for one in (smooth, rough):
        assert one.shape == (224, 224) and 0 <= one.min() < 0.2 and 0.8 < one.max() <= 1
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(smooth)).mean()


def test_snow_whitens_and_falls_in_streaks(photo, monkeypatch):
    dark = flat(60)
    found = made(dark, "snow", 1).astype(float) / 255
    share, value = 0.8, 60 / 255
    ground = share * value + (1 - share) * (value * 1.5 + 0.5)
    assert found.min() == pytest.approx(ground, abs=0.01) and found.max() > ground + 0.2
    # The flakes lie there once more, turned by half a circle.
    assert found[..., 0] == pytest.approx(found[::-1, ::-1, 0], abs=0.01)


@pytest.mark.parametrize("severity, values", [*zip(SEVERITIES, KINDS["frost"].parameters, strict=True)])
def test_frost_is_laid_over_in_its_shares(severity, values, photo):
    frosts = [np.full((300, 400, 3), 90, np.uint8)]
    found = corrupt(photo, "frost", severity, generator(0), frosts)
    assert np.abs(found - np.clip(values[0] * photo.astype(float) + values[1] * 90, 0, 255)).max() < 0.5001
    drawn = corruptions._drawn_frost(100, generator(3))
    assert drawn.shape == (100, 100, 3) and drawn.min() >= 0 and drawn.max() <= 1 and drawn.std() > 0.03


@pytest.mark.parametrize("severity, more", [*zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)])
def test_brightness_adds_value_in_hsv(severity, more, photo):
    small = photo[::16, ::16][:14, :14].copy()
    small[0, 0] = 0
    found = made(small, "brightness", severity)
    for old, new in zip(small.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(old / 255))
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1))
        assert new / 255 == pytest.approx(wanted, abs=0.003)


@pytest.mark.parametrize("severity, share", [*zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True)])
def test_contrast_shortens_distances_to_each_channels_mean(severity, share, photo):
    found = made(photo, "contrast", severity)
    for channel in range(3):
        mean = photo[..., channel].mean()
        assert np.abs(found[..., channel] - (mean + share * (photo[..., channel] - mean))).max() < 0.51


@pytest.mark.parametrize("severity, share", [*zip(SEVERITIES, (0.6, 0.5, 0.4, 0.3, 0.25), strict=True)])
def test_pixelate_has_so_few_pixels(severity, share, photo):
    found = made(photo, "pixelate", severity)
    few = int(224 * share)
    assert len(np.unique(found.reshape(-1, 224 * 3), axis=0)) == few
    if severity in (2, 5):  # whole blocks: box means
        block = round(1 / share)
        means = photo.reshape(few, block, few, block, 3).mean((1, 3))
        assert found[::block, ::block] == pytest.approx(means, abs=1)


@pytest.mark.parametrize("severity, quality", [*zip(SEVERITIES, (25, 18, 15, 10, 7), strict=True)])
def test_jpeg_has_the_tables_of_its_quality(severity, quality, photo, monkeypatch):
    files = []
    opened = Image.open
    monkeypatch.setattr(corruptions.Image, "open", lambda file: files.append(file.getvalue()) or opened(file))
    found = made(photo, "jpeg_compression", severity)
    file = opened(io.BytesIO(files[0]))
    # The luminance table of Annex K starts at 16; below a quality of 50 it is scaled by 50 / quality.
    assert file.quantization[0][0] == min((16 * (5000 // quality) + 50) // 100, 255)
    assert (np.asarray(file) == found).all()


def test_elastic_stays_itself_where_nothing_is_drawn(photo):
    assert corruptions._elastic_transform(photo / 255, (0, 0.01, 0), generator(0)) == pytest.approx(photo / 255)


def test_elastic_maps_three_points_and_then_wobbles():
    """A slope along each axis tells where each pixel came from."""
    y, x = np.mgrid[:224, :224] / 223
    slopes = np.stack([y, x, 0 * x], -1)
    # Affine alone: the moved points carry the values of the old ones.
    draw = generator(4).uniform(-244 * 0.02, 244 * 0.02, (3, 2))
    found = corruptions._elastic_transform(slopes, (0, 0.01, 0.02), generator(4))
    old = np.array([[112 + 74, 112 + 74], [112 + 74, 112 - 74], [112 - 74, 112 - 74]])
    for (row, column), moved in zip(old, old + draw, strict=True):
        at = [ndimage.map_coordinates(found[..., c], moved[:, None], order=1)[0] for c in (0, 1)]
        assert at == pytest.approx([row / 223, column / 223], abs=0.002)
    # Displacements alone, of so many pixels as smoothed noise in -1..1 has: by ndimage itself.
    draws = generator(5)
    draws.uniform(-0.0, 0.0, (3, 2))
    sigma, strength = 244 * 0.01, 244 * 0.05
    fields = [ndimage.gaussian_filter(draws.uniform(-1, 1, (224, 224)), sigma, mode="reflect", truncate=3) * strength
              for _ in range(2)]  # fmt: skip
    found = corruptions._elastic_transform(slopes, (0.05, 0.01, 0), generator(5)) * 223
    inner = np.s_[20:-20, 20:-20]
    assert found[inner][..., 0] == pytest.approx((np.mgrid[:224, :224][0] + fields[0])[inner], abs=0.01)
    assert found[inner][..., 1] == pytest.approx((np.mgrid[:224, :224][1] + fields[1])[inner], abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_other_sides_are_corrupted_as_much(kind, photo):
    """A photo of half or twice the side loses about as much, looked at from as far."""
    change = {}
    for side in (160, 224, 320):
        x = np.asarray(Image.fromarray(photo[..., :2].repeat(2, -1)[..., :3]).resize((side, side)))
        y = made(x, kind, 3)
        small = [np.asarray(Image.fromarray(z).resize((56, 56), Image.Resampling.BOX)).astype(float) for z in (x, y)]
        change[side] = np.abs(small[0] - small[1]).mean()
    if not kind.endswith("noise"):
        assert change[160] == pytest.approx(change[224], rel=0.8, abs=2)
        assert change[320] == pytest.approx(change[224], rel=0.8, abs=2)


def test_what_is_no_photo_is_refused(photo):
    for bad in (photo[:100], photo[..., :2], photo / 255, photo[0]):
        with pytest.raises(ValueError, match="expected uint8"):
            corrupt(bad, "fog", 1, generator(0))
    for kind, severity in (("rain", 1), ("fog", 0), ("fog", 6)):
        with pytest.raises(ValueError, match="expected one of gaussian_noise"):
            corrupt(photo, kind, severity, generator(0))
