"""What a run costs on several hosts: bytes against the compiled step and a ring that really turns, times by hand."""

import json
import math
import re

import jax
import numpy as np
import pytest

from lit_jax import config, plan
from lit_jax.base.sharding import over_batch, replicated, with_sharding
from lit_jax.errors import UserError
from lit_jax.planning import abstract_run, cluster, costs, device_table
from lit_jax.settling import settle_plan

BATCH, TEXTS, DIM = 64, 40, 24
SMALL = {
    "image.size": 16, "image.patch": 8, "image.width": 16, "image.depth": 1, "image.heads": 2,
    "text.width": 32, "text.depth": 1, "text.heads": 2, "text.context": 16,
    "model.embed_dim": DIM, "train.batch_size": BATCH, "train.precision": "float16", "input": "store",
}  # fmt: skip


def small_run(devices=16, hosts=2, **more):
    values = {**SMALL, **{name.replace("__", "."): value for name, value in more.items()}}
    settled, found = settle_plan(config.from_flat(values, source="test"))
    data = abstract_run.known_data(settled, found, examples=1000, vocab_size=300, captions=40, longest=9)
    return abstract_run.prepare(settled, data, devices, hosts=hosts)


def ring_all_reduce(arrays):
    """A ring that turns: the sums on each device, and the bytes that each sent. Chunk c starts its round at c."""
    number = len(arrays)
    chunks = [np.array_split(array.copy(), number) for array in arrays]
    sent = [0] * number
    for turn in range(2 * (number - 1)):
        messages = []
        for device in range(number):
            chunk = (device - turn) % number
            messages.append((chunk, chunks[device][chunk].copy()))
            sent[device] += messages[-1][1].nbytes
        for device in range(number):
            chunk, message = messages[device - 1]
            if turn < number - 1:
                chunks[device][chunk] += message
            else:
                chunks[device][chunk] = message
    return [np.concatenate(parts) for parts in chunks], sent


@pytest.mark.parametrize("devices", [2, 5, 16])
def test_bytes_of_a_ring_are_those_of_one_that_turns(devices, rng):
    arrays = [rng.integers(100, size=devices * 30) for _ in range(devices)]
    sums, sent = ring_all_reduce(arrays)
    assert all(np.array_equal(found, sum(arrays)) for found in sums)
    size = arrays[0].nbytes
    found = cluster.sent(cluster.Moved(size, size, 0, 0), devices)
    assert sent == [found["gradients"]] * devices
    # Gathering is the second half of it.
    assert found["texts"] == sent[0] / 2


BYTES = {"f32": 4, "f16": 2}


def compiled_collectives(run):
    """``{collective: [bytes of each array]}`` in the program that XLA makes of the step for the devices here."""
    step, state, locked = abstract_run.step_and_shapes(run, "store")
    shapes = abstract_run.batch_shapes(run, BATCH, "store", devices=run.mesh.size)
    placed = with_sharding((state, locked), replicated(run.mesh))
    program = step.lower(*placed, with_sharding(shapes, over_batch(run.mesh))).compile().as_text()
    found = {}
    for line in program.splitlines():
        match = re.search(r"= (.+?) (all-reduce|all-gather|reduce-scatter)\(", line)
        if match:
            arrays = re.findall(r"(f32|f16)\[([\d,]*)\]", match[1])
            sizes = [BYTES[kind] * math.prod(map(int, filter(None, shape.split(",")))) for kind, shape in arrays]
            found.setdefault(match[2], []).extend(sizes)
    return found


@pytest.mark.parametrize(
    "more, scatters",
    [({}, 2), ({"train__precision": "float32"}, 2), ({"model__loss": "sigmoid"}, 2), ({"train__locks": "LL"}, 0)],
    ids=["float16", "float32", "sigmoid", "LL"],
)
def test_what_moves_is_what_the_compiled_step_moves(more, scatters):
    run = small_run(8, 1, **more)
    assert run.mesh.size == 8
    found, program = cluster.moved(run, "store", on_device=True), compiled_collectives(run)
    assert program["all-gather"] == [found.gathered] == [TEXTS * DIM * 4]
    # The program tells a device's part of what it scatters.
    assert sum(program.get("reduce-scatter", [])) * 8 == found.scattered == scatters * TEXTS * DIM * 4
    # Beside gradients, sums of the loss over the texts: vectors of U numbers; and norms, in float32.
    trainable = sum(part["trainable"] for part in costs.parameter_counts(run).values())
    assert found.gradients == trainable * (4 if run.config.train.precision == "float32" else 2)
    summed = sum(program["all-reduce"])
    assert found.gradients - 64 <= summed <= found.gradients + 9 * TEXTS * 4 + 4 * 64 * 4


def test_what_comes_from_the_host_is_the_batch():
    run = small_run()
    texts = TEXTS + -TEXTS % 16
    tokens = texts * 16 * 4 + BATCH * 4  # of a context of 16; 9 tokens in steps of 16; and the row of each photo's text
    assert cluster.moved(run, "store", on_device=True).input == tokens // 16
    assert cluster.moved(run, "store", on_device=False).input == (tokens + BATCH * 16 * 2) // 16
    records = cluster.moved(run, "records", on_device=True)
    assert records.input == (tokens + BATCH * 16 * 16 * 3) // 16 and records.gathered == texts * DIM * 4


def test_times_are_those_of_arithmetic_by_hand():
    """64 million parameters in float16 on 2 hosts of 8 V100, 100 Gbit/s each; each figure once by hand."""
    run = small_run()
    found = cluster.Moved(gradients=128_000_000, gathered=8_000_000, scattered=16_000_000, input=400_000_000)
    links = device_table.LINKS["v100-16"]
    parts, step = cluster.step_times(run, found, int(16 * 5e13), 5e13, links, 12.5e9)
    assert parts["arithmetic"]["device"] == pytest.approx(1.0)
    assert parts["gradients"] == pytest.approx({"device": 0.24 / 120, "network": 0.24 / 10})
    assert parts["texts"] == pytest.approx({"device": 0.0225 / 120, "network": 0.0225 / 10})
    assert parts["input"]["host"] == pytest.approx(0.4 / 12.8) and step == pytest.approx(1 + 0.024 + 0.00225)
    # Without arithmetic to hide behind, the input is waited for.
    assert cluster.step_times(run, found, 0, 5e13, links, 12.5e9)[1] == pytest.approx(0.4 / 12.8)
    # On one host no network counts, and on one device a host only the network.
    assert "network" not in cluster.step_times(small_run(8, 1), found, 0, 5e13, links, 12.5e9)[0]["gradients"]
    assert "device" not in cluster.step_times(small_run(2, 2), found, 0, 5e13, links, 12.5e9)[0]["gradients"]


def test_efficiency_and_bottlenecks_follow_from_the_times():
    run = small_run()
    device = device_table.Device("v100-16", (1 << 34, ""), (125e12, ""))
    arithmetic = costs.flops_of_run(run, run.length.steps)
    links = device_table.LINKS["v100-16"]
    facts = cluster.cluster_facts(run, device, links, arithmetic, utilisation=0.4, network=100, on_device=True)
    store = facts["inputs"]["store"]
    computing = arithmetic["step"]["store"]["step"] / 16 / 5e13
    moving = sum(max(store["seconds"][name].values()) for name in ("gradients", "texts"))
    assert store["step_s"] == pytest.approx(computing + moving)
    assert store["efficiency"] == pytest.approx(computing / (computing + moving))
    assert store["hours"] == pytest.approx(run.length.steps * (computing + moving) / 3600)
    assert store["bottleneck"] == "gradients" and store["next"] in ("texts", "arithmetic")
    assert store["equal_devices"] == round(16 * computing / moving)
    assert store["photos_per_s_host"] == pytest.approx(32 / (computing + moving))
    # Photos pass PCIe meanwhile, and one device has to wait for all of them.
    records = facts["inputs"]["records"]
    alone = arithmetic["step"]["records"]["step"] / 5e13, 16 * records["seconds"]["input"]["host"]
    assert records["alone_s"] == pytest.approx(max(alone)) and records["efficiency"] <= 1


def test_every_device_has_links_and_every_alias_is_one():
    assert device_table.LINKS.keys() == device_table.DEVICES.keys() >= set(device_table.ALIASES.values())
    for name in ("a100-40", "h100", "h200", "v100-32"):
        assert device_table.LINKS[name].kind.startswith("NVLink")
        assert device_table.LINKS[name].device > device_table.LINKS[name].host


@pytest.fixture
def bare_config(tmp_path):
    path = tmp_path / "bare.py"
    lines = [f"    c.{name} = {value!r}" for name, value in SMALL.items()]
    path.write_text("\n".join([
        "from lit_jax.config import defaults", "", "", "def get_config():", "    c = defaults()",
        "    c.data.records = 'nowhere'", *lines, "    return c", "",
    ]))  # fmt: skip
    return [f"--config={path}", "--examples=1000", "--vocab-size=300", "--captions=40"]


def test_the_command_plans_two_hosts(bare_config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(costs, "COMPILES", 1)
    out = tmp_path / "plan.json"
    plan.main([*bare_config, "--devices", "v100:8", "--hosts", "2", "--network", "25", "--json", str(out)])
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["devices"] == 16 and found["device"]["name"] == "v100-16" and found["precision"] == "float16"
    assert (found["cluster"]["hosts"], found["cluster"]["devices_per_host"]) == (2, 8)
    assert found["cluster"]["links"]["network"] == 25e9 / 8
    step = found["cluster"]["inputs"]["store"]
    assert step["seconds"]["gradients"]["network"] == pytest.approx(step["sent"]["gradients"] / (0.8 * 3.125e9))
    assert "memory of each of 16 devices" in printed and "a step on 2 hosts of 8 x v100-16" in printed
    assert "network 25 Gbit/s a host" in printed and "most of a step is gradients by the network" in printed


def test_a_plain_number_is_of_this_machine(bare_config, capsys, monkeypatch):
    monkeypatch.setattr(costs, "COMPILES", 1)
    plan.main([*bare_config, "--devices", "4", "--tflops", "1", "--memory", "1"])
    printed = capsys.readouterr().out
    assert "memory of each of 4 devices" in printed and "a step on" not in printed


@pytest.mark.parametrize(
    "options, told",
    [
        (["--devices=v100:0"], "--devices: found v100:0, expected a whole number above 0, or NAME:COUNT of v100-16"),
        (["--devices=abacus:8"], "--devices: found abacus:8, expected"),
        (["--devices=:8"], "--devices: found :8, expected"),
        (["--devices=v100:8", "--device=h100"], "--device: found it beside --devices v100:8, expected one of them"),
        (["--hosts=0"], "--hosts"),
        (["--network=0"], "--network"),
        (["--devices=v100:8", "--config.train.precision=bfloat16"], "expected float32 or float16"),
        (["--hosts=3", "--devices=h100:8"], "found 64 on 24 devices, expected a multiple of 24"),
    ],
)
def test_mistakes_are_refused_in_one_line(bare_config, options, told, capsys):
    with pytest.raises(SystemExit) as stop:
        plan.main([*bare_config, *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and told in line


def test_devices_that_do_not_divide_by_hosts_are_refused():
    with pytest.raises(UserError, match="train.devices: found 4 on 3 hosts, expected as many on each"):
        small_run(0, 3, train__devices=4)
    assert small_run(0, 2).devices == 2 * len(jax.local_devices())
