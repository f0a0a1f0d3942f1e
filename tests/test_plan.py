"""What a run will cost: arithmetic against hand counts, memory against the step that really runs, refusals."""

import inspect
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lit_jax import config, models, plan
from lit_jax.base.sharding import make_mesh, per_device
from lit_jax.data import record_batches
from lit_jax.data.unique_captions import rounded_up
from lit_jax.embed import embed
from lit_jax.embedding.to_store import Making
from lit_jax.errors import UserError
from lit_jax.models import building, locking
from lit_jax.models.layers import Block
from lit_jax.planning import abstract_run, costs, device_table
from lit_jax.planning.arithmetic import count, forward_and_backward
from lit_jax.settling import settle, settle_plan
from tests.conftest import built_of

RECORDED = {
    "image.size": 384, "image.patch": 16, "image.width": 1024, "image.depth": 24, "image.heads": 16,
    "text.context": 77, "text.width": 512, "text.depth": 12, "text.heads": 8, "text.causal": True,
    "model.embed_dim": 512, "train.batch_size": 4096, "train.precision": "float16", "train.epochs": 18.0,
}  # fmt: skip


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def load(path, **overrides):
    return config.load(path, {name.replace("__", "."): str(value) for name, value in overrides.items()})[0]


def from_values(**more):
    values = {**RECORDED, **{name.replace("__", "."): value for name, value in more.items()}}
    return config.from_flat(values, source="test")


def known(chosen, **numbers):
    """A settled config and the sizes of its data."""
    settled, found = settle_plan(chosen)
    return settled, abstract_run.known_data(settled, found, **numbers)


def recorded_run(devices=1, **more):
    numbers = {"examples": 2686843, "vocab_size": 49408, "captions": 10000}
    return abstract_run.prepare(*known(from_values(**more), **numbers), devices)


def tiny_run(path, devices=0, **overrides):
    loaded = load(path, **overrides)
    return abstract_run.prepare(*known(loaded), devices)


def refusal(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# -- arithmetic, counted by hand


def test_products_are_counted_whatever_their_axes():
    assert count(lambda a, b: a @ b, floats(2, 3), floats(3, 4)) == 2 * 2 * 3 * 4
    assert count(lambda a, b: jnp.einsum("bthd,bshd->bhts", a, b), floats(5, 7, 2, 3), floats(5, 11, 2, 3)) == 4620
    assert count(lambda a: jnp.exp(a) + a.sum(), floats(100, 100)) == 0


def test_the_gradient_of_a_product_is_two_more():
    both = forward_and_backward(lambda ab: ab[0] @ ab[1], (floats(2, 3), floats(3, 4)))
    assert both == 3 * 48 and forward_and_backward(lambda a, b: a @ b, floats(2, 3), floats(3, 4)) == 2 * 48
    assert count(jax.jit(jax.value_and_grad(lambda a, b: (a @ b).sum())), floats(2, 3), floats(3, 4)) == 2 * 48


def test_loops_branches_and_what_is_computed_again():
    square = floats(4, 4)  # 128 a product
    assert count(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=5)[0], square) == 5 * 128
    assert (
        count(lambda x: jax.lax.fori_loop(0, 3, lambda i, c: jax.lax.map(lambda y: y @ y, c), x), floats(2, 4, 4))
        == 768
    )
    assert count(lambda x: jax.lax.cond(x[0, 0] > 0, lambda c: c @ c @ c, lambda c: c @ c, x), square) == 2 * 128

    def two(x, y):
        return jnp.tanh(jnp.tanh(x @ y) @ y)

    assert forward_and_backward(lambda xy: two(*xy), (square, square)) == 6 * 128
    assert forward_and_backward(lambda xy: jax.checkpoint(two)(*xy), (square, square)) == 8 * 128
    with pytest.raises(ValueError, match="found products in a loop of unknown length"):
        count(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 3, lambda c: c @ c, x), square)
    assert count(lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 3, lambda c: c + 1, x), square) == 0


def test_convolutions_and_their_gradients():
    def patches(kernel, images, groups=1):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            images, kernel, (16, 16), "VALID", dimension_numbers=names, feature_group_count=groups
        )

    images, kernel = floats(2, 32, 48, 3), floats(16, 16, 3, 8)
    each = 2 * (2 * 2 * 3) * (16 * 16 * 3) * 8  # two operations, places, a patch, channels
    assert count(patches, kernel, images) == each
    assert forward_and_backward(patches, kernel, images) == 2 * each
    assert forward_and_backward(lambda both: patches(*both), (kernel, images)) == 3 * each
    assert count(lambda k, x: patches(k, x, 3), floats(16, 16, 1, 6), images) == 2 * 12 * 256 * 6


def test_what_devices_do_apart_adds_up():
    mesh = make_mesh(8)
    run = per_device(lambda a, b: a @ b, mesh, inputs=(True, False), outputs=True)
    assert count(jax.jit(run), floats(16, 3), floats(3, 5)) == 2 * 16 * 3 * 5
    whole = per_device(lambda a, b: a @ b, mesh, inputs=(False, False), outputs=False)
    assert count(whole, floats(16, 3), floats(3, 5)) == 8 * 2 * 16 * 3 * 5  # each does all of it


@pytest.mark.parametrize("causal", [False, True])
def test_a_transformer_block_is_its_formula(causal):
    batch, tokens, width, hidden = 3, 7, 16, 40
    block = Block(heads=4, hidden=hidden, causal=causal)
    x, mask = floats(batch, tokens, width), jax.ShapeDtypeStruct((batch, tokens), bool)
    params = jax.eval_shape(block.init, jax.random.key(0), x, mask)
    dense = 2 * batch * tokens * (4 * width**2 + 2 * width * hidden)
    scores = 2 * 2 * batch * tokens**2 * width
    assert count(block.apply, params, x, mask) == dense + scores
    both = forward_and_backward(lambda given, mask: block.apply(*given, mask)[0], (params, x), mask)
    assert both == 3 * (dense + scores)


def test_the_step_is_the_sum_of_its_parts(tiny_config):
    for loss, products in {"softmax": 4, "sigmoid": 3}.items():
        run = tiny_run(tiny_config, model__loss=loss)
        texts, tokens = abstract_run.text_shape(run, 16)
        width, dim, depth = 16, 8, 1
        block = 2 * tokens * (12 * width**2) + 4 * tokens**2 * width
        for source in ("records", "store") if loss == "softmax" else ("store",):
            parts = abstract_run.step_flops(run, source)
            assert parts["text tower"] == 3 * texts * (depth * block + 2 * width * dim)
            # Features get no gradient, so the projection's backward pass is one product.
            assert parts["projection and loss"] == 2 * 2 * 16 * width * dim + products * 2 * 16 * texts * dim
            assert parts["image tower"] == (16 * abstract_run.photo_flops(run) if source == "records" else 0)
            assert parts["step"] == sum(value for name, value in parts.items() if name != "step")
    pixels, positions = 4 * 2 * 192 * 16, 5  # four patches of 8 x 8 x 3, and the class token
    assert abstract_run.photo_flops(run) == pixels + 2 * positions * 12 * 16**2 + 4 * positions**2 * 16


def test_a_tower_that_moves_costs_its_backward_pass(tiny_config, tower_file):
    run = tiny_run(tiny_config, train__locks="Uu")
    parts = abstract_run.step_flops(run, "records")
    assert parts["image tower"] == 3 * 16 * abstract_run.photo_flops(run) - 16 * 4 * 2 * 192 * 16  # none for the pixels
    assert costs.store_facts(run, device_table.Device("x", (1, ""), (1.0, ""))) is None
    assert costs.flops_of_run(run, 2) == {
        "step": {"records": parts},
        "run": {"records": 2 * parts["step"]},
        "saved": None,
    }


# -- sizes


def test_parameters_are_those_of_the_recorded_run():
    counts = costs.parameter_counts(recorded_run())
    assert counts == {
        "image tower": {"trainable": 0, "frozen": 303_690_752},
        "text tower": {"trainable": 63_428_096, "frozen": 0},
        "projection": {"trainable": 524_800, "frozen": 0},
        "scale and bias": {"trainable": 1, "frozen": 0},
    }
    sigmoid = costs.parameter_counts(recorded_run(model__loss="sigmoid", train__locks="UU"))
    assert sigmoid["scale and bias"]["trainable"] == 2 and sigmoid["image tower"]["frozen"] == 0


CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[1] / "configs").glob("*.py"))


def shipped_run(path, **overrides):
    """A shipped config without its data and weights, which need not be there."""
    loaded = load(path, image__weights="", **overrides)
    return abstract_run.prepare(*known(loaded, examples=20_000, vocab_size=30_522, longest=24), 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_parameter_of_a_shipped_config_is_counted(path):
    run = shipped_run(path, train__locks="LL")
    whole = building.param_shapes(run.config.towers, run.model)
    frozen = {kind: sum(math.prod(x.shape) for x in jax.tree.leaves(whole.get(kind, {}))) for kind in ("image", "text")}
    counts = costs.parameter_counts(run)
    assert {kind: counts.get(f"{kind} tower", {"frozen": 0})["frozen"] for kind in frozen} == frozen
    every = sum(math.prod(x.shape) for x in jax.tree.leaves(whole))
    assert sum(part["trainable"] for part in counts.values()) == every - sum(frozen.values()) > 0


def test_a_text_tower_that_others_trained_is_planned_with_every_letter():
    """BERT's projection stands outside of its tower, and is trained also where the tower is locked."""
    parts = {}
    for locks in ("Lu", "LL", "LU"):
        run = shipped_run(CONFIGS[0].with_name("cub_minilm.py"), train__locks=locks)
        parts[locks] = abstract_run.step_flops(run, "store")
    texts, tokens = abstract_run.text_shape(run, 512)
    block = 2 * tokens * 12 * 384**2 + 4 * tokens**2 * 384
    # A locked text tower reads each caption once, before training from a store, and runs in no step.
    assert parts["LL"]["text tower"] == 0
    assert parts["LU"]["text tower"] == 3 * texts * 6 * block and parts["Lu"] == parts["LU"]
    # The projections' inputs get no gradient where both towers are locked.
    loss = 4 * 2 * 512 * texts * 256
    projections = 2 * 512 * 1280 * 256, 2 * texts * 384 * 256
    assert parts["LL"]["projection and loss"] == 2 * sum(projections) + loss
    assert parts["LU"]["projection and loss"] == 2 * projections[0] + 3 * projections[1] + loss


@pytest.mark.parametrize(
    "locks",
    [locks if locks in ("LL", "UU", "uu") else pytest.param(locks, marks=pytest.mark.slow) for locks in locking.LOCKS],
)
def test_every_pair_of_letters_is_planned(tiny_config, locks):
    run = tiny_run(tiny_config, train__locks=locks)
    parts = abstract_run.step_flops(run, "records")
    forward = {"image tower": 16 * abstract_run.photo_flops(run), "text tower": text_flops(run)}
    for letter, (tower, least) in zip(locks, forward.items(), strict=True):
        pixels = 16 * 4 * 2 * 192 * 16 if tower == "image tower" else 0  # get no gradient
        assert parts[tower] == (least if letter == "L" else 3 * least - pixels), (tower, locks)
    assert parts["step"] == sum(value for name, value in parts.items() if name != "step")
    if locks == "LL":
        memory = abstract_run.step_memory(run, 16)
        assert memory["locked"] == sum(part["frozen"] for part in costs.parameter_counts(run).values()) * 4


def text_flops(run):
    """Of the tiny text tower, forward, for a batch of 16."""
    texts, tokens = abstract_run.text_shape(run, 16)
    return texts * (2 * tokens * (12 * 16**2) + 4 * tokens**2 * 16 + 2 * 16 * 8)


def test_texts_of_a_batch_on_average():
    draw = np.random.default_rng(0)
    found = np.mean([len(set(draw.integers(1000, size=700).tolist())) for _ in range(200)])
    assert abstract_run.expected_distinct(700, 1000) == pytest.approx(found, rel=0.01)
    assert abstract_run.expected_distinct(5, 1) == 1
    run = recorded_run()
    assert abstract_run.text_shape(run, 4096) == (rounded_up(3362, 1), 77)
    assert abstract_run.text_shape(recorded_run(text__distinct=False), 4096) == (4096, 77)
    _, data = known(run.config, examples=9999, vocab_size=300, longest=27)
    assert abstract_run.text_shape(abstract_run.prepare(run.config, data, 1), 4096)[1] == 32
    unbucketed = from_values(text__bucket=0)
    assert abstract_run.text_shape(abstract_run.prepare(settle(unbucketed), data, 1), 4096)[1] == 77


def test_data_at_hand_tell_their_sizes(tiny_config, records):
    _, data = known(load(tiny_config))
    assert data.source == str(records.directory) and data.photos == {"train": 56, "validation": 24, "heldout": 28}
    assert (data.classes, data.captions, data.vocab_size, data.views["train"]) == (8, 16, 400, 1)
    assert 8 < data.longest <= 24
    _, given = known(load(tiny_config), examples=1000, captions=5, vocab_size=999)
    assert (given.examples, given.captions, given.vocab_size, given.longest) == (1000, 5, 999, 0)


@pytest.mark.parametrize("source", ["records", "store"])
def test_memory_is_that_of_the_step_that_runs(tiny_config, tmp_path, source):
    loaded = load(tiny_config, input=source, data__store=tmp_path / "store")
    if source == "store":
        embed(loaded, tmp_path / "store", Making(batch_size=16))
    run = abstract_run.prepare(*known(loaded))
    found = abstract_run.step_memory(run, 16)
    built = built_of(loaded, tmp_path)
    batch = next(built.feed(0))
    wanted = abstract_run.batch_shapes(run, 16, source)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {n: (x.shape, x.dtype) for n, x in wanted.items()}
    real = built.step.lower(built.abstract_state, built.locked, batch).compile().memory_analysis()
    total = real.argument_size_in_bytes + real.temp_size_in_bytes + real.output_size_in_bytes - real.alias_size_in_bytes
    assert found["step"] == pytest.approx(total, rel=0.02)
    inputs = found["parameters"] + found["optimizer"] + found["locked"] + found["batch"]
    assert inputs == pytest.approx(real.argument_size_in_bytes, rel=0.02) and found["temporaries"] > 0
    state, _ = built.start()
    assert found["parameters"] == sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert found["optimizer"] == sum(x.nbytes for x in jax.tree.leaves(state.optimizer))
    assert (found["locked"] == 0) == (source == "store")


def test_devices_that_are_not_here_are_planned_by_their_share(tiny_config):
    run = tiny_run(tiny_config, 16, model__embed_dim=8)
    assert run.mesh.size == 8 and abstract_run.text_shape(run, 16)[0] == 16
    part = abstract_run.batch_shapes(run, 16, "records", devices=8)
    assert part["image"].shape == (8, 16, 16, 3) and part["caption"].shape == (8,) and part["tokens"].shape[0] == 8
    memory = abstract_run.device_memory(run, 16, 100)
    assert memory["gathered"] == 8 * 8 * (4 + 4 + 4) and memory["store"] == 100
    assert memory["waiting"] == 2 * memory["batch"] == 2 * (16 * 16 * 3 + 4 + 4 * part["tokens"].shape[1])
    assert memory["total"] == memory["step"] + 100 + memory["gathered"] + memory["waiting"]
    assert inspect.signature(record_batches.ahead).parameters["depth"].default == abstract_run.AHEAD


# -- the largest batch


@pytest.mark.parametrize("limit", [10_000, 123_456, 1_000_000, 9_999_999, 10**9])
@pytest.mark.parametrize("start", [8, 100, 4096])
def test_the_search_ends_at_the_edge(limit, start):
    asked = []

    def texts(batch):
        return (batch, rounded_up(math.ceil(abstract_run.expected_distinct(batch, 3000)), 1))

    def memory(batch):
        asked.append(batch)
        return 1000 + 30 * batch + 200 * texts(batch)[1]

    found = costs.largest_batch(memory, texts, start=start, unit=8, most=50_000, limit=limit)
    assert found.is_certain and len(asked) == len(set(asked)) <= 6 and set(asked) == set(found.memory)
    fits = [batch for batch in range(8, 50_001, 8) if 1000 + 30 * batch + 200 * texts(batch)[1] <= limit]
    assert found.batch == max(fits)


def test_the_search_knows_what_it_does_not_know():
    def sizes(batch):
        return (batch,)

    assert costs.largest_batch(lambda b: 10**9, sizes, start=64, unit=8, most=640, limit=100).batch == 0
    assert costs.largest_batch(lambda b: 1, sizes, start=64, unit=8, most=645, limit=100) == (
        640,
        {64: 1, 640: 1},
        True,
    )
    assert costs.largest_batch(lambda b: 1, sizes, start=64, unit=8, most=5, limit=100) == (0, {}, True)
    # A jump that nothing announces: what was found fits, and the search says that there may be more.
    found = costs.largest_batch(lambda b: b if b < 3000 else 10**9, sizes, start=8, unit=8, most=10**6, limit=10**5)
    assert not found.is_certain and len(found.memory) == 6 and 0 < found.batch < 3000


@pytest.mark.slow
def test_the_largest_batch_fits_and_the_next_does_not(tiny_config):
    run = tiny_run(tiny_config, 1)
    limit = abstract_run.device_memory(run, 24, 0)["total"] + 1
    found = costs.memory_facts(run, device_table.Device("x", (limit, ""), (1.0, "")), None)
    batch = found["largest_batch"]["batch"]
    assert batch == 24 and found["largest_batch"]["is_certain"] and found["memory"]["fits"]
    asked = found["largest_batch"]["memory"]
    assert asked[24] <= limit < asked[32] and len(asked) <= costs.COMPILES


# -- the command


def test_the_command_prints_what_it_writes(tiny_config, tmp_path, capsys):
    arguments = [f"--config={tiny_config}", "--device", "h100", "--devices", "8", "--json", str(tmp_path / "plan.json")]
    plan.main([*arguments, "--config.input=store", "--utilisation", "0.5"])
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["data"]["steps"] == math.ceil(3 * 56 / 16) and found["data"]["photos"]["heldout"] == 28
    assert found["store"]["bytes"] == {"float16": 108 * 16 * 2, "float32": 108 * 16 * 4}
    assert found["store"]["on_device"] and found["memory"]["store"] == 56 * 16 * 2
    whole = found["flops"]["run"]
    assert whole["embedding"] * 16 == 108 * found["flops"]["step"]["records"]["image tower"]
    assert whole["records"] - whole["store"] == 11 * found["flops"]["step"]["records"]["image tower"]
    assert found["flops"]["saved"] == pytest.approx(1 - (whole["store"] + whole["embedding"]) / whole["records"])
    assert found["hours"]["store"] == pytest.approx(whole["store"] / (8 * 0.5 * 494.7e12) / 3600)
    assert found["largest_batch"]["batch"] == 56 and "all photos at once" in printed
    assert "the image tower is not loaded" in printed and "planned by XLA's compiler for cpu" in printed
    assert "at 50% of the peak, 494.7 TFLOP/s in float32 (its data sheet), on 8 x h100; an estimate" in printed
    assert "memory of each of 8 devices, input store, float32" in printed and "60.00 GiB (75% of 80 GiB" in printed


def test_nothing_needs_to_be_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(costs, "COMPILES", 1)  # whichever batch is the largest
    path = tmp_path / "bare.py"
    path.write_text(
        "from lit_jax.config import defaults\n\n\ndef get_config():\n    c = defaults()\n    c.data.records = 'nowhere'\n"
        "    c.text.width, c.text.depth, c.text.heads, c.text.context = 16, 1, 2, 8\n"
        "    c.image.tower, c.input, c.image.width, c.train.batch_size = 'given', 'store', 32, 64\n    return c\n"
    )
    given = ["--examples", "64", "--vocab-size", "300", "--devices", "1", "--memory", "1", "--tflops", "2"]
    plan.main([f"--config={path}", *given])
    printed = capsys.readouterr().out
    assert "data: numbers on the command line" in printed and "unknown" in printed and "image tower" not in printed
    assert "of 8 tokens" in printed and "(as given)" in printed and "training from records" not in printed
    line = one_line(capsys, [f"--config={path}", "--device", "l4"])
    assert "found neither a store nor records of this config" in line and "give --examples and --vocab-size" in line
    assert "--vocab-size: found none" in one_line(capsys, [f"--config={path}", "--examples", "50"])


def one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        plan.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_this_machine_is_measured():
    run = recorded_run(train__precision="float32")
    device = costs.chosen_device(run, memory_gib=2)
    assert device.memory == (2 << 30, "as given") and device.peak[1] == "measured here" and device.peak[0] > 1e8
    assert costs.chosen_device(run, tflops=3).peak == (3e12, "as given")


def test_embedding_on_this_machine_takes_what_its_tower_takes(tiny_config, monkeypatch):
    """A small tower reaches another share of the peak: 15 seconds were told, and 86 taken, of 1,301 photos."""
    run = tiny_run(tiny_config, 2)
    shaped, clock = [], iter((10.0, 10.5))
    look = models.image_features
    monkeypatch.setattr(models, "image_features", lambda *given: shaped.append(given[2].shape) or look(*given))
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(costs, "EMBEDDED", 8)
    device = device_table.Device("x", (10**9, ""), (1e9, ""))
    photos = costs.measured_photos(run, device)
    assert photos == 2 * shaped[-1][0] == 2 * costs.EMBEDDED and shaped[-1][1:] == (16, 16, 3)
    assert costs.measured_photos(run, device_table.Device("x", (1000, ""), (1e9, ""))) == 0
    arithmetic = costs.flops_of_run(run, 11)
    hours = costs.hours_of_run(run, arithmetic, 11, device._replace(photos=5.0), 0.4)
    assert hours["embedding"] * 3600 == pytest.approx(108 / 10) and hours["photos_per_s"] == 10
    of_rest = arithmetic["run"]["records"] - 11 * arithmetic["step"]["records"]["image tower"]
    assert hours["records"] * 3600 == pytest.approx(11 * 16 / 10 + of_rest / (0.4 * 2e9))
    assert hours["store"] * 3600 == pytest.approx(arithmetic["run"]["store"] / (0.4 * 2e9))
    assert costs.hours_of_run(run, arithmetic, 11, device, 0.4)["embedding"] < 108 / 10 / 3600


def test_mistakes_are_refused_in_one_line(tiny_config):
    bare = recorded_run(train__precision="bfloat16")
    for name in ("v100-16", "t4"):
        assert f"found bfloat16 on {name}, expected float32 or float16" in refusal(costs.chosen_device, bare, name)
    assert costs.chosen_device(bare, "v100-16", tflops=10).peak[0] == 1e13
    assert "found 16 on 3 devices, expected a multiple of 3" in refusal(tiny_run, tiny_config, 3)
    assert "image tower that is trained (Uu), expected a locked one with input" in refusal(
        tiny_run, tiny_config, input="store", train__locks="Uu"
    )
    assert "found given with input" in refusal(recorded_run, image__tower="given")
    _, few = known(bare.config, examples=100, vocab_size=300)
    assert "found 4096, expected at most 100" in refusal(abstract_run.prepare, bare.config, few, 1)


@pytest.mark.parametrize(
    "bad", ["--examples=0", "--utilisation=0", "--utilisation=1.1", "--memory=-1", "--device=abacus"]
)
def test_arguments_out_of_range_are_refused(tiny_config, bad, capsys):
    with pytest.raises(SystemExit) as stop:
        plan.main([f"--config={tiny_config}", bad])
    assert stop.value.code == 2 and bad.split("=")[0] in capsys.readouterr().err
