"""Saves and restores a run with Orbax: asynchronous, atomic, and without a copy of the locked tower.

A checkpoint holds three items: ``params`` (the moving parameters), ``rest`` (step counters, optimizer, loss scale)
and ``about``, a JSON with all that is needed to use or to resume it: config, data position, tokenizer, class
table, and the digest of each locked tower instead of its weights. It also holds a checksum of both trees of arrays, the
score of the checkpoint, and a digest of itself, which are compared when it is read: a bit that turned is noticed.
"""

import base64
import contextlib
import dataclasses
import gc
import json
import logging
import os
import pathlib
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lit_jax import config as options
from lit_jax.base import foreign
from lit_jax.base.files import incomplete, sealed, unsealed, write_json, write_sealed
from lit_jax.base.hosts import wait_for_all_hosts
from lit_jax.embedding.about import About, config_from_json, other_types
from lit_jax.errors import DAMAGED, Stopped, UserError, chained, disk_trouble, first_line
from lit_jax.training.train_step import State

ITEMS = ("params", "rest", "about")
_DAMAGED = "it is damaged: move it away to use the one before"
BEST = "best"  # name of the metric by which the best checkpoint is kept; higher is better


def open_manager(directory: str | os.PathLike[str], *, keep: int = 1, read_only: bool = False) -> ocp.CheckpointManager:
    """Opens a folder of checkpoints.

    Args:
        directory: the folder; made if missing, unless `read_only`.
        keep: how many of the latest to keep, besides the best.
        read_only: for evaluation.

    Returns:
        Orbax's manager. Close it, or call `wait_until_finished`, before the program ends.

    Raises:
        UserError: a damaged file of a checkpoint.
    """
    policy = preservation_policy.AnyPreservationPolicy(
        [
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(
                get_metric_fn=lambda metrics: metrics[BEST], n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=None if read_only else policy,
        best_fn=None if read_only else (lambda metrics: metrics[BEST]),
        step_prefix="step",
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        create=not read_only,
    )
    try:
        return _Manager(pathlib.Path(directory).absolute(), options=options, item_names=ITEMS)
    except DAMAGED as error:
        where = next(
            (path for path in pathlib.Path(directory).glob("step_*/metrics/metrics") if _is_torn(path)), directory
        )
        raise UserError(
            f"checkpoint {where}: found {first_line(error)}, expected a whole checkpoint; {_DAMAGED}"
        ) from None


def _is_torn(path: pathlib.Path) -> bool:
    try:
        return not isinstance(foreign.loaded(path), dict)
    except (OSError, ValueError):
        return True


class _Manager(ocp.CheckpointManager):
    """Orbax's, which does not ask JAX's preemption service, since `lit_jax.base.stopping` does.

    The service agrees on a number of questions asked: Orbax asks with the step in its place, and a signal that arrives
    between its question and the next one would be lost.
    """

    def reached_preemption(self, step: int) -> bool:
        """Never."""
        return False


@contextlib.contextmanager
def writing(directory: pathlib.Path, *, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The manager of a run's folder for the body, closed at its end.

    It is left open where the body fails on one of several hosts: it would wait for the others, who wait for this one.
    """
    manager = open_manager(directory, keep=keep)
    try:
        yield manager
    except BaseException as error:
        if isinstance(error, Stopped) or jax.process_count() == 1:
            manager.close()
        raise
    manager.close()


@contextlib.contextmanager
def failures_in_one_line(workdir: pathlib.Path) -> Iterator[None]:
    """To be put around a whole run: turns the errors of a full disk into one line that names the last good checkpoint.

    Where writing fails, Orbax and TensorStore speak of it once for each array, from threads and from coroutines that
    nobody waits for any more; TensorStore calls back into event loops that have ended. What they say of the disk is not
    heard here, since it is in the exception too; any other exception of a thread is.

    Raises:
        UserError: in place of any error that comes from a full disk, or from one that cannot be written to.
    """
    with _unheard(lambda error: bool(disk_trouble(error)) or "Event loop is closed" in str(error)):
        try:
            yield
        except Exception as error:
            trouble = disk_trouble(error)
            if not trouble:
                raise
            steps = saved_steps(workdir)
            good = f"from step {steps[-1]}, the last good checkpoint" if steps else "from the start: none was saved yet"
            raise UserError(
                f"{workdir}: found {trouble}, expected to write the run there; make room, then run the same command "
                f"to go on {good}"
            ) from None


@contextlib.contextmanager
def _unheard(drops: Callable[[BaseException], bool], *, lasting: bool = True) -> Iterator[None]:
    """Silences what threads, coroutines and loggers of libraries say of exceptions that `drops` is true of.

    Where the body fails with one of them and `lasting`, it lasts: coroutines speak when they are collected, at the end
    of the process.
    """
    threads = set(threading.enumerate())
    hooks = sys.unraisablehook, sys.excepthook, threading.excepthook
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]

    def hears(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not drops(error or Exception(record.getMessage()))

    sys.unraisablehook = lambda given: None if drops(_known(given.exc_value)) else hooks[0](given)
    sys.excepthook = lambda kind, error, trace: None if drops(error) else hooks[1](kind, error, trace)
    threading.excepthook = lambda given: None if drops(_known(given.exc_value)) else hooks[2](given)
    for logger in loggers:
        logger.addFilter(hears)
    failed = False
    try:
        yield
    except BaseException as error:
        failed = lasting and isinstance(error, Exception) and drops(error)
        _end_what_is_left(threads, error)
        raise
    finally:
        if not failed:
            sys.unraisablehook, sys.excepthook, threading.excepthook = hooks
            for logger in loggers:
                logger.removeFilter(hears)


def _known(error: BaseException | None) -> BaseException:
    """What an exception hook was given; Python leaves the exception out where it has no memory for it."""
    return error or Exception()


def _end_what_is_left(threads: Collection[threading.Thread], error: BaseException) -> None:
    """Joins threads that are not among `threads`, and ends coroutines, that an error has left running."""
    for thread in threading.enumerate():
        if thread not in threads and not thread.daemon:
            with contextlib.suppress(Exception):  # Orbax's raise what they ended with, which is known
                thread.join(timeout=10)
    for one in chained(error):
        traceback.clear_frames(one.__traceback__)
    gc.collect()


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the whole checkpoints that lie in a run's folder, ascending."""
    names = [path.name for path in (workdir / "checkpoints").glob("step_*")]
    return sorted(int(name[5:]) for name in names if name[5:].isdigit())


def save(manager: ocp.CheckpointManager, state: State, about: About, *, score: float | None = None) -> None:
    """Starts saving; the state may be donated as soon as this returns.

    Orbax has the numbers in host memory by then. On a CPU they are in the very memory of the arrays, on which it keeps
    hold; JAX gives a donated array's memory to nobody while it is held.

    Args:
        manager: of the folder.
        state: the run.
        about: goes with it.
        score: of the last evaluation, by which the best checkpoint is chosen; None if there was none.
    """
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            rest=ocp.args.StandardSave(_rest(state)),
            about=ocp.args.JsonSave(sealed(_to_json(about, score, {"params": state.params, "rest": _rest(state)}))),
        ),
        metrics=None if score is None else {BEST: score},
    )


def complete(manager: ocp.CheckpointManager, about: About, *, score: float | None) -> None:
    """Adds an evaluation to the checkpoint at ``about.position``, which was saved before the evaluation was made.

    Its arrays stay. Both files are written aside and renamed, the one that says that nothing is owed any more last.

    Args:
        manager: of the folder.
        about: with the results.
        score: as for `save`.
    """
    folder = pathlib.Path(manager.directory) / f"step_{about.position}"
    if jax.process_index() == 0:
        if score is not None and not (folder / "metrics").exists():
            aside = incomplete(folder / "metrics")
            aside.mkdir(exist_ok=True)
            write_json(aside / "metrics", {BEST: score})
            aside.rename(folder / "metrics")
        before = json.loads((folder / "about" / "metadata").read_text(encoding="utf-8")).get("checksums", {})
        write_sealed(folder / "about" / "metadata", _to_json(about, score, {}) | {"checksums": before})
    wait_for_all_hosts("the checkpoint has its evaluation")
    manager.reload()


def restore(manager: ocp.CheckpointManager, step: int, like: State) -> State:
    """Reads a whole state.

    Args:
        manager: of the folder.
        step: which checkpoint.
        like: a state of the run that resumes: its shapes, dtypes and shardings.

    Returns:
        The state, on the devices of `like`.

    Raises:
        UserError: a truncated file, or a state of another shape.
    """
    found = _restored(
        manager,
        step,
        params=ocp.args.StandardRestore(_abstract(like.params)),
        rest=ocp.args.StandardRestore(_abstract(_rest(like))),
    )
    rest = found["rest"]
    _check_arrays(manager, step, found)
    return State(rest["step"], rest["updates"], found["params"], rest["optimizer"], rest["loss_scale"])


def restore_params(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    """Reads the moving parameters only, onto one device, however many they were trained on.

    `like` gives shapes and dtypes. Raises as `restore`.
    """
    # Without a sharding of ours, Orbax would ask for the devices of the run.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
    found = _restored(manager, step, params=ocp.args.StandardRestore(placed))
    _check_arrays(manager, step, found)
    return found["params"]


def read_about(manager: ocp.CheckpointManager, step: int) -> About:
    """Reads what a checkpoint says of itself.

    Raises:
        UserError: if it is not a whole checkpoint of this package.
    """
    found = {name: value for name, value in _read_json(manager, step).items() if name not in _OF_CHECKPOINT}
    try:
        config = config_from_json(found["config"])
        if mistyped := options.mistyped(config):
            raise TypeError(f"{mistyped} of another type")
        about = About(**{**found, "config": config, "tokenizer": base64.b64decode(found["tokenizer"])})
        if wrong := other_types(about):
            raise TypeError(f"{wrong} of another type")
        return about
    except DAMAGED as error:
        raise UserError(f"{_name(manager, step)}: found {error}, expected a checkpoint of this version") from None


_OF_CHECKPOINT = ("checksums", "score")  # what else is in the JSON; checkpoints of before have none of them


def _read_json(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself, as it was written.

    Raises:
        UserError: if it is not.
    """
    found = _restored(manager, step, about=ocp.args.JsonRestore())["about"]
    with contextlib.suppress(ValueError):
        content = unsealed(found)
        if ("checksums" in content) == (found.get("digest") is not None):  # earlier versions wrote neither
            return content
    raise UserError(f"{_name(manager, step)}: found other content of about, expected it as written; {_DAMAGED}")


def _check_arrays(manager: ocp.CheckpointManager, step: int, found: Mapping[str, Any]) -> None:
    """Compares trees of arrays with their checksums.

    Raises:
        UserError: a bit that turned.
    """
    checksums = _read_json(manager, step).get("checksums", {})
    for item, tree in found.items():
        if checksums.get(item, "") not in ("", _checksum(tree)):
            raise UserError(f"{_name(manager, step)}: found other {item}, expected them as written; {_DAMAGED}")


def _checksum(tree: Any) -> str:
    """CRC-32 over names, shapes, dtypes and bytes of arrays, hexadecimal; empty where a host has parts of them."""
    found = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not getattr(leaf, "is_fully_replicated", True):
            return ""
        value = np.asarray(leaf)
        found = zlib.crc32(f"{jax.tree_util.keystr(path)} {value.shape} {value.dtype}".encode(), found)
        found = zlib.crc32(np.ascontiguousarray(value).reshape(-1).view(np.uint8), found)
    return f"{found:08x}"


def choose(manager: ocp.CheckpointManager, which: str) -> int:
    """The step named by ``latest``, ``best`` or a number.

    Raises:
        UserError: if there is none; the steps that there are are listed.
    """
    steps = sorted(manager.all_steps())
    if not steps:
        raise UserError(f"checkpoint {manager.directory}: found no checkpoint in it, expected a run's folder")
    if which == "latest":
        return steps[-1]
    if which == "best":
        scores = {step: _score(manager, step) for step in steps} if len(steps) > 1 else {}
        scored = {step: score for step, score in scores.items() if score is not None}
        return max(scored, key=lambda step: (scored[step], step)) if scored else steps[-1]
    if which.isdigit() and int(which) in steps:
        return int(which)
    raise UserError(f"--step: found {which!r}, expected latest, best or one of {', '.join(map(str, steps))}")


def _score(manager: ocp.CheckpointManager, step: int) -> float | None:
    """The score of a checkpoint, if it has one.

    Raises:
        UserError: another one than when it was saved.
    """
    try:
        found = (manager.metrics(step) or {}).get(BEST)
    except DAMAGED as error:
        raise UserError(f"{_name(manager, step)}: found {first_line(error)} for its score; {_DAMAGED}") from None
    about = _read_json(manager, step)
    if "score" in about and about["score"] != found:
        raise UserError(f"{_name(manager, step)}: found score {found}, expected {about['score']}; {_DAMAGED}")
    return None if found is None else float(found)


def check_fits(saved: About, now: About, changed: list[str], *, where: str) -> None:
    """Refuses to resume a run with another config, tower, data set or tokenizer.

    Args:
        saved: of the checkpoint.
        now: of the run that would resume.
        changed: options that differ, as `lit_jax.config.difference` gives them.
        where: the run's folder, for the message.

    Raises:
        UserError: naming the first thing that differs.
    """
    remedy = "; use another --workdir for a new run"
    if changed:
        raise UserError(
            f"checkpoint {where}: found other options ({', '.join(changed[:3])}), expected the same{remedy}"
        )
    for tower, own in now.locked.items():
        if saved.locked.get(tower) != own:
            raise UserError(
                f"checkpoint {where}: found {tower} tower {str(saved.locked.get(tower))[:12]}, expected the "
                f"{own[:12]} of the config's weights{remedy}"
            )
    if saved.fingerprint != now.fingerprint:
        raise UserError(
            f"checkpoint {where}: found records {saved.fingerprint[:12]}, expected the {now.fingerprint[:12]} of "
            f"data.records{remedy}"
        )
    if saved.store != now.store:
        raise UserError(
            f"checkpoint {where}: found store {saved.store[:12]}, expected the {now.store[:12]} of data.store{remedy}"
        )
    if saved.hosts != now.hosts and not saved.store:
        # Each host read a part of its own: the same position would mean other records.
        raise UserError(
            f"checkpoint {where}: found a run on {saved.hosts} hosts by an earlier version, whose order of the records "
            f"depends on that number; finish it with that version{remedy}"
        )
    if saved.prompt_templates != now.prompt_templates:
        raise UserError(f"checkpoint {where}: found other prompt templates, expected the same{remedy}")
    if saved.tokenizer != now.tokenizer:
        raise UserError(f"checkpoint {where}: found another tokenizer, expected the one it was trained with{remedy}")


def _rest(state: State) -> dict[str, Any]:
    return {
        "step": state.step,
        "updates": state.updates,
        "optimizer": state.optimizer,
        "loss_scale": state.loss_scale,
    }


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _restored(manager: ocp.CheckpointManager, step: int, **items: Any) -> Mapping[str, Any]:
    # Orbax and TensorStore raise a dozen kinds of errors for what is, to a person, one: this does not fit.
    try:
        with _unheard(lambda _: True, lasting=False):  # the reason is in the exception
            return manager.restore(step, args=ocp.args.Composite(**items))
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        reason = first_line(error)[:200]
        raise UserError(
            f"{_name(manager, step)}: found {reason}, expected a whole checkpoint of this config; if it is damaged, "
            "move it away to use the one before"
        ) from error


def _name(manager: ocp.CheckpointManager, step: int) -> str:
    return f"checkpoint {manager.directory}/step_{step}"


def _to_json(about: About, score: float | None, trees: Mapping[str, Any]) -> dict[str, Any]:
    checksums = {item: _checksum(tree) for item, tree in trees.items()}
    content = {**dataclasses.asdict(about), "tokenizer": base64.b64encode(about.tokenizer).decode()}
    return {**content, "score": score, "checksums": checksums}
