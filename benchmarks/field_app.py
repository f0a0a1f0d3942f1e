r"""What the field app weighs, and how long a photo takes in Chromium: the demo's model, and one of 10,000 species.

    python -m benchmarks.field_app --checkpoint runs/demo --photos data/demo_photos --classes inat2021-categories.csv

The larger app has the names and ranks of a class table; its tower, an EfficientNet-Lite0 at 224 pixels, and its class
vectors of width 512 are drawn at random, since neither size nor time depends on them. Photos of the demo's size, and of
12 million pixels, are given to the page as a person gives them, and the time until all are answered is divided by their
number. One thread, no GPU.
"""

import argparse
import contextlib
import functools
import http.server
import pathlib
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks import machine
from lit_jax import site
from lit_jax.app import folder, runtime
from lit_jax.app.contents import Contents, Told, files_of
from lit_jax.data.images import Pictures
from lit_jax.errors import user_errors_in_one_line
from lit_jax.graphs.from_jax import to_onnx
from lit_jax.models.efficientnet import PRESETS
from lit_jax.models.two_tower import unit
from lit_jax.prediction.answers import Confidence
from lit_jax.prediction.choices import Choices
from lit_jax.text.classes import read_class_table
from tests.chromium import Browser, Page

WIDTH, SIDE, PHOTOS, LARGE = 512, 224, 40, 6
READY = "document.documentElement.classList.contains('ready')"
KEPT = "document.documentElement.classList.contains('offline-ready')"


def made_up(classes: str, weights: str) -> Contents:
    """An app of the species of a class table, with an EfficientNet-Lite0 and vectors drawn at random."""
    table, draw = read_class_table(classes), np.random.default_rng(0)
    preset = PRESETS["tf_efficientnet_lite0"]
    tower = preset.build(as_convolutions=True)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
    params = jax.tree.map(lambda x: np.abs(0.1 * draw.standard_normal(x.shape)).astype(np.float32), shapes)
    head = draw.standard_normal((1280, WIDTH)).astype(np.float32)

    def photos(pixels: jax.Array) -> jax.Array:
        features: Any = tower.apply({"params": params}, pixels.astype(jnp.float32) / 127.5 - 1)
        return unit(features @ head)

    image = to_onnx(photos, (SIDE, SIDE, 3), np.uint8, names=("photos", "embeddings"), weights=weights)
    vectors = draw.standard_normal((len(table), WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    seen = np.arange(len(table)) % 2 == 0
    confidence = Confidence(20.0, {"seen": 20.0, "unseen": 10.0}, "made up")
    choices = Choices(table, vectors, seen, 0.1 * seen)
    return Contents(Told("Made up", "made up", 0), Pictures(SIDE), choices, confidence, image.SerializeToString())


def weighed(written: Mapping[str, bytes]) -> dict[str, float]:
    """Megabytes of an app's folder, and of its parts."""
    parts = {name: len(data) / 1e6 for name, data in written.items()}
    large = {name: size for name, size in parts.items() if size > 0.05}
    return {"all": sum(parts.values()), **large}


@contextlib.contextmanager
def opened(directory: pathlib.Path) -> Iterator[tuple[Page, dict[str, float]]]:
    """The app in a Chromium that never saw it, and seconds until it was ready, at first and once more."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(directory))
    with tempfile.TemporaryDirectory() as profile, http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = Browser(profile)
        try:
            with machine.Clock() as first:
                page = browser.open(f"http://127.0.0.1:{server.server_port}/")
                page.wait(READY)
            page.wait(KEPT)
            with machine.Clock() as again:
                page.go(f"http://127.0.0.1:{server.server_port}/?again")
                page.wait(f"location.search && {READY}")
            yield page, {"first_s": first.wall, "again_s": again.wall}
        finally:
            browser.close()
            server.shutdown()


def seconds(page: Page, photos: Sequence[pathlib.Path]) -> float:
    """Seconds a photo, after one that warms up."""
    for lot in (photos[:1], photos):
        have = int(page.run("document.querySelectorAll('.card').length"))
        with machine.Clock() as clock:
            page.give("#choose-files", lot)
            page.wait(
                f"document.querySelectorAll('.card').length == {have + len(lot)} && !document.querySelector('.busy')"
            )
    return clock.wall / len(photos)


def measured(
    written: Mapping[str, bytes], small: Sequence[pathlib.Path], large: Sequence[pathlib.Path]
) -> dict[str, Any]:
    """What an app weighs, starts in and takes for a photo."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, data in written.items():
            (pathlib.Path(temporary) / name).write_bytes(data)
        with opened(pathlib.Path(temporary)) as (page, starts):
            times = {"photo_ms": 1000 * seconds(page, small), "photo_12_mp_ms": 1000 * seconds(page, large)}
    return {"megabytes": weighed(written), **starts, **times}


def _large(photo: pathlib.Path, where: pathlib.Path) -> list[pathlib.Path]:
    """Photos of 12 million pixels, enlarged from one."""
    with Image.open(photo) as picture:
        big = picture.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    paths = [where / f"large{number}.jpg" for number in range(LARGE)]
    for path in paths:
        big.save(path, quality=90)
    return paths


def main(argv: Sequence[str] | None = None) -> None:
    """The command: the table and the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.field_app", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", default="runs/demo")
    parser.add_argument("--photos", default="data/demo_photos")
    parser.add_argument("--classes", required=True, help="class table of the larger app")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    run, found = runtime.runtime(), {}
    small = sorted(pathlib.Path(parsed.photos).rglob("*.jpg"))[:PHOTOS]
    with user_errors_in_one_line(), tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(temporary)
        large = _large(small[0], here)
        for weights in ("fp16", "int8"):
            out = here / weights
            site.main(["--checkpoint", parsed.checkpoint, "--out", str(out), "--weights", weights])
            written = {path.name: path.read_bytes() for path in out.iterdir()}
            found[f"demo, {weights}"] = measured(written, small, large)
            contents = made_up(parsed.classes, weights)
            files = files_of(contents, run, weights)
            name = f"{len(contents.choices):,} species, {weights}"
            found[name] = measured(folder.folder_files(files, run, "Made up"), small, large)
            found[name]["one_file_megabytes"] = len(folder.one_file(files, run, "Made up")) / 1e6
    rows = [
        [name, f"{row['megabytes']['all']:.1f}", f"{row['first_s']:.1f}", f"{row['again_s']:.1f}",
         f"{row['photo_ms']:.0f}", f"{row['photo_12_mp_ms']:.0f}"]
        for name, row in found.items()
    ]  # fmt: skip
    print(machine.table(["app", "MB", "first start s", "again s", "ms a photo", "ms a photo of 12 MP"], rows))
    machine.write("field_app", {"apps": found}, parsed.out)


if __name__ == "__main__":
    main()
