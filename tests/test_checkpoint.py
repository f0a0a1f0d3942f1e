import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lit_jax import checkpoint, optimizer, precision, train
from lit_jax.checkpoint import About
from lit_jax.errors import UserError

ABOUT = About(
    config={"seed": 0, "data.crop_scale": (0.9, 1.0)}, position=0, locked={"image": "abc"}, fingerprint="f" * 64, templates=["a {name}"],
    drop_repeats=False, class_table="id,name\r\n0,Malus ×domestica\r\n", train_classes=[0], prompt_templates=[], hosts=1, tokenizer=b"\x00\xff model",
)  # fmt: skip


def state_at(step, width=4096):
    params = {"text": {"kernel": jnp.arange(width, dtype=jnp.float32) + step}, "logit_scale": jnp.float32(step)}
    adamw = optimizer.adamw(optax.constant_schedule(0.1), weight_decay=0.1, b1=0.9, b2=0.98, eps=1e-6)
    state = train.initial_state(params, adamw, precision.initial_loss_scale("float16"))
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


def test_a_state_that_is_overwritten_while_it_is_saved_is_saved_as_it_was(tmp_path):
    manager = checkpoint.open_manager(tmp_path / "c")
    state = state_at(3, width=2_000_000)
    checkpoint.save(manager, state, ABOUT)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    jax.block_until_ready(overwrite(state))
    manager.wait_until_finished()
    got = checkpoint.restore_params(manager, 3, state_at(0, width=2_000_000).params)
    assert same(got, state_at(3, width=2_000_000).params)


def test_the_latest_and_the_best_are_kept(tmp_path):
    manager = saved(tmp_path / "c", [1, 2, 3, 4, 5], scores={1: 0.2, 2: 0.9, 3: 0.3, 4: 0.4, 5: 0.5})
    assert sorted(manager.all_steps()) == [2, 4, 5]
    assert checkpoint.choose(manager, "latest") == 5 and checkpoint.choose(manager, "4") == 4
    manager.close()
    reader = checkpoint.open_manager(tmp_path / "c", read_only=True)
    assert checkpoint.choose(reader, "best") == 2
    with pytest.raises(UserError, match="--step: found '3', expected latest, best or one of 2, 4, 5"):
        checkpoint.choose(reader, "3")


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
        ({"tokenizer": b"other"}, "found another tokenizer"),
        ({"hosts": 2}, "found a run of 1 hosts, expected 2"),
        ({"prompt_templates": ["a {}"]}, "found other prompt templates"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(change, message):
    with pytest.raises(UserError, match=f"{message}.*use another --workdir"):
        checkpoint.check_fits(ABOUT, dataclasses.replace(ABOUT, **change), [], where="runs/x")


def test_other_options_are_named():
    with pytest.raises(UserError, match=r"found other options \(seed: 0 -> 1\), expected the same"):
        checkpoint.check_fits(ABOUT, ABOUT, ["seed: 0 -> 1"], where="runs/x")
    checkpoint.check_fits(ABOUT, ABOUT, [], where="runs/x")
