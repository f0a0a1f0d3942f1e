import asyncio
import dataclasses
import json
import logging
import os
import pathlib
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint._src.serialization import serialization

from lit_jax.base import files, precision
from lit_jax.config import Optimizer
from lit_jax.embedding.about import About
from lit_jax.errors import UserError
from lit_jax.training import checkpoint, optimizer, train_step
from tests import forked

ROOT = pathlib.Path(__file__).resolve().parents[1]
ABOUT = About(
    config={"seed": 0, "data.crop_scale": (0.9, 1.0)}, position=0, locked={"image": "abc"}, fingerprint="f" * 64, templates=["a {name}"],
    drop_repeats=False, class_table="id,name\r\n0,Malus ×domestica\r\n", train_classes=[0], prompt_templates=[], hosts=1, tokenizer=b"\x00\xff model",
)  # fmt: skip


def state_at(step, width=4096):
    params = {"text": {"kernel": jnp.arange(width, dtype=jnp.float32) + step}, "logit_scale": jnp.float32(step)}
    adamw = optimizer.adamw(Optimizer(weight_decay=0.1, b1=0.9, b2=0.98, eps=1e-6), optax.constant_schedule(0.1), "Lu")
    state = train_step.initial_state(params, adamw, precision.initial_loss_scale("float16"))
    return state._replace(step=jnp.int32(step), updates=jnp.int32(step))


def saved(folder, steps, *, keep=2, scores=None):
    manager = checkpoint.open_manager(folder, keep=keep)
    for step in steps:
        about = dataclasses.replace(ABOUT, position=step)
        checkpoint.save(manager, state_at(step), about, score=(scores or {}).get(step))
    manager.wait_until_finished()
    return manager


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y) and x.dtype == y.dtype, a, b))


def test_all_of_the_state_comes_back_bit_for_bit(tmp_path):
    saved(tmp_path / "c", [7]).close()
    manager = checkpoint.open_manager(tmp_path / "c")
    got = checkpoint.restore(manager, 7, state_at(0))
    assert same(got, state_at(7)) and not same(got, state_at(0))
    about = checkpoint.read_about(manager, 7)
    assert about == dataclasses.replace(ABOUT, position=7)
    assert same(checkpoint.restore_params(manager, 7, state_at(0).params), state_at(7).params)


def test_a_state_that_is_donated_before_it_is_written_is_saved_as_it_was(tmp_path, monkeypatch):
    """The writer is held until the next step has the state's memory, if it can get it."""
    wait = threading.Event()
    write = serialization.async_serialize_from_host

    async def held(*args, **options):
        while not wait.is_set():
            await asyncio.sleep(0.001)
        return await write(*args, **options)

    monkeypatch.setattr(serialization, "async_serialize_from_host", held)
    manager = checkpoint.open_manager(tmp_path / "c")
    try:
        state = state_at(3)
        step = jax.jit(lambda s: jax.tree.map(lambda x: x - 1, s), donate_argnums=0)
        free = state_at(3)
        jax.block_until_ready(step(free))
        assert free.params["text"]["kernel"].is_deleted()  # memory that nobody holds is the next state's
        checkpoint.save(manager, state, ABOUT)
        jax.block_until_ready(step(state))
    finally:
        wait.set()
    manager.wait_until_finished()
    assert same(checkpoint.restore_params(manager, 3, state_at(0).params), state_at(3).params)


def record(message):
    return logging.LogRecord("asyncio", logging.ERROR, "a file", 1, message, (), None)


@pytest.fixture
def heard_again(monkeypatch):
    """What a failure on a full disk has silenced to the end of the process is heard after the test."""
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    for name in ("absl", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])


def test_a_full_disk_is_one_line_with_the_step_to_go_on_from(tmp_path, heard_again):
    (tmp_path / "checkpoints" / "step_12").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_7").mkdir()
    (tmp_path / "checkpoints" / "step_20.orbax-checkpoint-tmp").mkdir()
    from_tensorstore = ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes [os_error_code='28'] here\nand there")
    with pytest.raises(UserError) as error, checkpoint.failures_in_one_line(tmp_path):
        try:
            raise from_tensorstore
        except ValueError as cause:
            raise RuntimeError("saving failed") from cause
    assert not logging.getLogger("asyncio").filter(record("os_error_code='28' of a coroutine that is collected"))
    assert logging.getLogger("asyncio").filter(record("something else"))
    assert str(error.value) == (
        f"{tmp_path}: found No space left on device, expected to write the run there; make room, then run the same "
        "command to go on from step 12, the last good checkpoint"
    )
    with pytest.raises(KeyError), checkpoint.failures_in_one_line(tmp_path):
        raise KeyError("our own fault")


def test_an_exception_of_a_thread_is_heard_in_a_run_unless_the_disk_is_full(tmp_path, monkeypatch, caplog):
    def fails(error):
        def run():
            raise error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    heard = []
    hook = lambda given: heard.append(str(given.exc_value))  # noqa: E731
    monkeypatch.setattr(threading, "excepthook", hook)
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    with checkpoint.failures_in_one_line(tmp_path):
        fails(OSError(28, "No space left on device"))
        logging.getLogger("absl").error("cannot write: os_error_code='28' of the array")
        fails(ZeroDivisionError("in a thread"))
        logging.getLogger("absl").error("something else")
    assert heard == ["in a thread"] and [record.getMessage() for record in caplog.records] == ["something else"]
    assert threading.excepthook is hook and not logging.getLogger("absl").filters


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(tiny_config, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    more = [
        f"--config.{option}" for option in ("text.width=64", "checkpoint.keep=5", "train.devices=1", "train.epochs=4")
    ]
    command = [sys.executable, "-m", "lit_jax.main", f"--config={tiny_config}", f"--workdir={disk / 'run'}", *more]
    try:
        full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert full.returncode == 2
        assert len(full.stderr.splitlines()) == 1 and full.stderr.startswith(f"error: {disk / 'run'}: found No space")
        last = checkpoint.saved_steps(disk / "run")[-1]
        assert f"from step {last}, the last good" in full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert again.returncode == 0 and f"resuming after step {last}" in again.stdout, again.stderr
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_latest_and_the_best_are_kept(tmp_path):
    manager = saved(tmp_path / "c", [1, 2, 3, 4, 5], scores={1: 0.2, 2: 0.9, 3: 0.3, 4: 0.4, 5: 0.5})
    assert sorted(manager.all_steps()) == [2, 4, 5]
    assert checkpoint.choose(manager, "latest") == 5 and checkpoint.choose(manager, "4") == 4
    manager.close()
    reader = checkpoint.open_manager(tmp_path / "c", read_only=True)
    assert checkpoint.choose(reader, "best") == 2
    with pytest.raises(UserError, match="--step: found '3', expected latest, best or one of 2, 4, 5"):
        checkpoint.choose(reader, "3")


def test_of_checkpoints_that_are_equally_good_the_latest_is_the_best_and_is_kept(tmp_path):
    manager = saved(tmp_path / "c", [1, 2, 3, 4], keep=1, scores={1: 0.5, 2: 0.9, 3: 0.9, 4: 0.3})
    assert sorted(manager.all_steps()) == [3, 4] and checkpoint.choose(manager, "best") == 3
    manager.close()
    manager = saved(tmp_path / "d", [1, 2, 3, 4], keep=4, scores={1: 0.5, 2: 0.9, 3: 0.9, 4: 0.3})
    assert sorted(manager.all_steps()) == [1, 2, 3, 4] and checkpoint.choose(manager, "best") == 3
    manager.close()


def test_a_save_asks_the_preemption_service_nothing(tmp_path, monkeypatch):
    """Its question would take the place of the loop's, and a signal that came then would be lost."""
    from jax.experimental import multihost_utils

    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: bool(asked.append(step)))
    manager = checkpoint.open_manager(tmp_path)
    checkpoint.save(manager, state_at(1), ABOUT)
    manager.close()
    assert not asked and (tmp_path / "step_1").is_dir()


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="found no checkpoint in it"):
        checkpoint.choose(checkpoint.open_manager(tmp_path / "c"), "latest")


def test_a_truncated_file_is_one_line(tmp_path):
    saved(tmp_path / "c", [1]).close()
    files = [path for path in (tmp_path / "c" / "step_1" / "params").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    manager = checkpoint.open_manager(tmp_path / "c")
    with pytest.raises(UserError, match=r"step_1: found .*, expected a whole checkpoint of this config"):
        checkpoint.restore(manager, 1, state_at(0))


def test_another_shape_is_one_line(tmp_path):
    manager = saved(tmp_path / "c", [1])
    with pytest.raises(UserError, match="expected a whole checkpoint of this config"):
        checkpoint.restore(manager, 1, state_at(0, width=8))


def test_a_half_written_checkpoint_is_not_one(tmp_path):
    saved(tmp_path / "c", [1]).close()
    half = tmp_path / "c" / "step_2.orbax-checkpoint-tmp-123"
    half.mkdir()
    (half / "params").mkdir()
    assert checkpoint.choose(checkpoint.open_manager(tmp_path / "c"), "latest") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"locked": {"image": "xyz"}}, r"found image tower abc, expected the xyz of the config's weights"),
        ({"fingerprint": "g" * 64}, "found records ffffffffffff, expected the gggggggggggg"),
        ({"store": "s" * 64}, "found store , expected the ssssssssssss of data.store"),
        ({"tokenizer": b"other"}, "found another tokenizer"),
        ({"hosts": 2}, "found a run on 1 hosts by an earlier version"),
        ({"prompt_templates": ["a {}"]}, "found other prompt templates"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=f"{message}.*use another --workdir"):
        checkpoint.check_fits(ABOUT, dataclasses.replace(ABOUT, **change), [], where="runs/x")


def test_a_run_on_a_store_goes_on_with_any_number_of_hosts_and_with_no_other_store():
    saved = dataclasses.replace(ABOUT, store="s" * 64)
    checkpoint.check_fits(saved, dataclasses.replace(saved, hosts=2), [], where="runs/x")
    for other in ("", "t" * 64):
        with pytest.raises(UserError, match=f"found store ssssssssssss, expected the {other[:12]} of data.store"):
            checkpoint.check_fits(saved, dataclasses.replace(saved, store=other), [], where="runs/x")


def test_other_options_are_named():
    with pytest.raises(UserError, match=r"found other options \(seed: 0 -> 1\), expected the same"):
        checkpoint.check_fits(ABOUT, ABOUT, ["seed: 0 -> 1"], where="runs/x")
    checkpoint.check_fits(ABOUT, ABOUT, [], where="runs/x")


FLIPS = """
import pathlib, sys
import jax.numpy as jnp
import numpy as np
from lit_jax.errors import UserError
from lit_jax.training import checkpoint
from tests.test_checkpoint import ABOUT, same, state_at

folder, rng = pathlib.Path(sys.argv[1]), np.random.default_rng(0)
manager = checkpoint.open_manager(folder)
saved = state_at(1, width=64)
noise = jnp.asarray(rng.normal(size=4096), jnp.float32)  # which cannot be pressed together
saved = saved._replace(params={**saved.params, "text": {"kernel": noise}})
checkpoint.save(manager, saved, ABOUT, score=0.5)
manager.wait_until_finished()
manager.close()
for path in sorted(path for path in folder.rglob("*") if path.is_file() and "commit" not in path.name):
    whole = path.read_bytes()
    for place in rng.integers(0, 8 * len(whole), 40 if path.parent.name in ("d", "about") else 6):
        turned = bytearray(whole)
        turned[place // 8] ^= 1 << (place % 8)
        path.write_bytes(turned)
        try:
            reader = checkpoint.open_manager(folder, read_only=True)
            step = checkpoint.choose(reader, "best")
            state, about = checkpoint.restore(reader, step, saved), checkpoint.read_about(reader, step)
            assert same(state.params, saved.params) and same(state.optimizer, saved.optimizer), path
            assert about == ABOUT and checkpoint._score(reader, step) in (0.5, None), path
        except UserError as error:
            assert "/step_1" in str(error) and "found" in str(error) and len(str(error)) < 600, error
            print("noticed")
    path.write_bytes(whole)
reader = checkpoint.open_manager(folder, read_only=True)
assert same(checkpoint.restore(reader, 1, saved).params, saved.params)
"""


def test_a_bit_that_turned_is_noticed_or_changes_nothing(tmp_path):
    # In a process of its own: coroutines of Orbax that a damaged file ends are collected, and heard, at its end.
    process = forked.start_code(FLIPS, [tmp_path])
    assert process.wait(120) == 0, process.stderr
    assert process.stdout.count("noticed") > 20


def test_a_score_that_turned_is_noticed_where_the_best_is_chosen(tmp_path):
    manager = checkpoint.open_manager(tmp_path, keep=2)
    for step, score in ((1, 0.5), (2, 0.25)):
        checkpoint.save(manager, state_at(step, width=8), ABOUT, score=score)
        manager.wait_until_finished()
    manager.close()
    (tmp_path / "step_2" / "metrics" / "metrics").write_text('{"best": 0.75}')
    reader = checkpoint.open_manager(tmp_path, read_only=True)
    with pytest.raises(UserError, match=r"step_2: found score 0\.75, expected 0\.25; it is damaged: move it away"):
        checkpoint.choose(reader, "best")


def test_an_evaluation_that_is_added_later_leaves_the_checksums(tmp_path):
    manager = checkpoint.open_manager(tmp_path)
    saved = state_at(3, width=8)
    about = dataclasses.replace(ABOUT, position=3)
    checkpoint.save(manager, saved, about)
    manager.wait_until_finished()
    checkpoint.complete(manager, dataclasses.replace(about, evaluated=3), score=0.5)
    assert checkpoint.choose(manager, "best") == 3 and checkpoint.read_about(manager, 3).evaluated == 3
    other = saved._replace(params=jax.tree.map(lambda x: x + 1, saved.params))
    assert same(checkpoint.restore(manager, 3, other).params, saved.params)
    said = json.loads((tmp_path / "step_3" / "about" / "metadata").read_text())
    assert said["checksums"]["params"] and said["checksums"]["rest"] and said["score"] == 0.5


def test_a_checkpoint_without_checksums_opens(tmp_path):
    manager = checkpoint.open_manager(tmp_path)
    saved = state_at(1, width=8)
    checkpoint.save(manager, saved, ABOUT)
    manager.wait_until_finished()
    path = tmp_path / "step_1" / "about" / "metadata"
    said = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: value for name, value in said.items() if name not in (*checkpoint._OF_CHECKPOINT, "digest")})
    )
    reader = checkpoint.open_manager(tmp_path, read_only=True)
    assert same(checkpoint.restore(reader, 1, saved).params, saved.params) and checkpoint.read_about(reader, 1) == ABOUT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", ["image.tower"]),
        ("config", {"optimizer.lr": "1e-3"}),
        ("config", {"text.tower": ["units"]}),
        ("position", "7"),
        ("locked", ["image"]),
        ("train_classes", 3),
        ("templates", None),
        ("hosts", True),
        ("tokenizer", 5),
        ("margin", []),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_refused_in_one_line_where_a_type_is_another(tmp_path, field, value):
    saved(tmp_path / "c", [7]).close()
    path = tmp_path / "c" / "step_7" / "about" / "metadata"
    path.write_text(json.dumps(files.sealed(json.loads(path.read_text()) | {field: value})))
    manager = checkpoint.open_manager(tmp_path / "c")
    with pytest.raises(UserError, match=r"found .*, expected a checkpoint of this version") as refusal:
        checkpoint.read_about(manager, 7)
    assert "\n" not in str(refusal.value)
