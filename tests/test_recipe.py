"""The configs of the paper against its recorded facts, and against torch."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lit_jax import config as options
from lit_jax import models
from lit_jax.embed import embed
from lit_jax.errors import UserError
from lit_jax.evaluation.ranks import ceiling
from lit_jax.models import TwoTower, locking
from lit_jax.settling import settle
from lit_jax.text.captions import TEMPLATE, caption, class_captions
from lit_jax.text.classes import read_class_table
from lit_jax.text.prompts import duplicates, named_by, prompts, read_templates
from lit_jax.training import optimizer
from lit_jax.training.length import run_length
from tests.conftest import built_of

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "arrays" / "recipe.torch.npz")
CONFIGS = ("inat_vitl", "inat_vitl_recorded")
PHOTOS = 2_686_843


def loaded(name, **overrides):
    return options.load(ROOT / "configs" / f"{name}.py", {k.replace("__", "."): v for k, v in overrides.items()})[0]


def length(config):
    return run_length(config.train, photos=PHOTOS, accumulate=config.optimizer.accumulate)


@pytest.fixture(scope="module")
def table(shared_data):
    return read_class_table(shared_data / "inat2021-categories.csv")


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_are_those_of_the_recorded_run(name):
    config = loaded(name)
    assert length(config) == (636, 18 * 636) == (636, 11_448)
    free = loaded(name, train__epoch_steps="0")
    assert length(free).steps_per_epoch == pytest.approx(655.97, abs=0.005)
    assert loaded(name, input="store").input == "store"  # embed once is this one key


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("row", range(3))
def test_rates_are_those_of_the_recorded_schedule(name, row):
    config = loaded(name, optimizer__warmup_steps=str(GOLDEN["warmups"][row]))
    schedule = optimizer.schedule_of(config.optimizer, length(config))
    got = [float(schedule(step)) for step in GOLDEN["steps"].tolist()]
    np.testing.assert_allclose(got, GOLDEN["rates"][row], rtol=2e-5, atol=1e-10 * 5e-4)


def test_three_groups_of_parameters_and_their_decay_are_open_clips():
    config = settle(loaded("inat_vitl_recorded"))  # so that no hub is asked
    text = models.TEXT_PRESETS["clip_text"].build(vocab_size=49_408, context=77, end_id=49_407, embed_dim=512)
    model = TwoTower(None, text, config.model.embed_dim, width=1024)
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0), image_size=384, context=77))
    moving, _ = locking.split_locked({**shapes, "image": {}}, config.train.locks)
    found = []
    for leaf, decays in zip(jax.tree.leaves(moving), jax.tree.leaves(optimizer.decayed(moving)), strict=True):
        # Blocks are stacked along a first axis of 12, open_clip's each have their own.
        stacked = leaf.ndim > 1 and leaf.shape[0] == 12
        found += [[leaf.size // 12, decays]] * 12 if stacked else [[leaf.size, decays]]
    theirs = []
    for size, decays in json.loads(str(GOLDEN["groups"])):
        # torch keeps queries, keys and values in one array.
        fused = size in (3 * 512, 3 * 512 * 512)
        theirs += [[size // 3, decays]] * 3 if fused else [[size, decays]]
    assert sorted(found) == sorted(theirs)
    assert sum(size for size, _ in found) == 63_428_096 + 524_800 + 1


def test_adamw_moves_as_torchs_at_the_rates_of_the_recipe():
    config = loaded("inat_vitl_recorded")
    rates = jnp.asarray(GOLDEN["rates"][1], jnp.float32)
    adamw = optimizer.adamw(config.optimizer, lambda count: rates[count], config.train.locks)
    params = {name: jnp.float32(GOLDEN[f"start/{name}"]) for name in ("kernel", "bias")}
    state = adamw.init(params)
    for i in range(len(rates)):
        gradients = {name: jnp.float32(GOLDEN[f"gradient/{name}"][i]) for name in params}
        updates, state = adamw.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in params.items():
            np.testing.assert_allclose(value, GOLDEN[f"after/{name}"][i], rtol=1e-6, atol=1e-6)


def test_the_recorded_values_one_by_one():
    recorded = options.flattened(loaded("inat_vitl_recorded"))
    facts = {
        "seed": 0, "optimizer.lr": 5e-4, "optimizer.weight_decay": 0.1, "optimizer.b1": 0.9, "optimizer.b2": 0.98,
        "optimizer.eps": 1e-6, "optimizer.clip_norm": 0.0, "optimizer.accumulate": 1, "optimizer.warmup_steps": 1000,
        "train.batch_size": 4096, "train.precision": "float16", "train.locks": "Lu", "data.crop": "random",
        "data.crop_scale": (0.9, 1.0), "data.flip": False, "model.loss": "softmax", "model.same_caption": "plain",
        "model.scale_max": 100.0, "model.embed_dim": 512, "model.projection": True, "image.tower": "vit_l16_384",
    }  # fmt: skip
    assert {name: recorded[name] for name in facts} == facts
    assert np.log(recorded["model.scale_init"]) == pytest.approx(np.log(1 / 0.07))
    written = options.flattened(loaded("inat_vitl"))
    differ = {name for name in recorded if recorded[name] != written[name]}
    assert differ == {
        "data.records", "data.tokenizer", "image.mean", "image.std", "image.interpolation", "image.resize",
        "image.crop_fraction", "text.tower", "evaluation.templates", "evaluation.protocol",
        "text.width", "text.depth", "text.heads",  # of a preset, and of one's own
    }  # fmt: skip


def test_figure_1(table):
    published = (
        "A photo of the Buff-tailed Coronet Birds Boissonneaua flavescens",
        "A photo of the Common Blue Crab Callinectes sapidus",
        "A photo of the Imperial Moth Insects Eacles imperialis",
        "A photo of the Oakmoss Fungi Evernia prunastri",
        "A photo of the Pacific Purple Sea Urchin Strongylocentrotus purpuratus",
        "A photo of the Pine White Insects Neophasia menapia",
    )
    captions = [text for (text,) in class_captions(table, (TEMPLATE,))]
    assert set(published) < set(captions) and len(set(captions)) == 10_000


def test_the_recorded_names_and_their_ceiling(table):
    names = prompts(table.rows(), ("{}",), **named_by("recorded"))
    assert [name for (name,) in names] == list(table.columns["label"])
    same = duplicates(names)
    assert sum(map(len, same)) == 51 and len(same) == 25
    assert ceiling(np.full(10_000, 10), same) == pytest.approx(0.9974)


def test_the_shipped_templates_are_many_and_distinct(table):
    templates = read_templates(ROOT / "configs" / "species_templates.txt")
    assert len(set(templates)) == len(templates) >= 30 and all(text.count("{}") == 1 for text in templates)
    one = prompts([table.row(0)], templates)[0]
    assert len(set(one)) == len(templates) and caption(table.row(0), "{name}") in one[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_data_are_asked_for_before_weights_are_fetched(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, text in (("records", "expected a record set; make it with python -m data_prep.convert"), ("store", "expected an embedding store")):  # fmt: skip
        with pytest.raises(UserError, match=text):
            built_of(loaded(name, input=path), tmp_path / "run")
    with pytest.raises(UserError, match="expected a record set"):
        embed(loaded(name), tmp_path / "store")
