"""The loop with all its side effects: resuming, progress, evaluation, saving, stopping, results."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lit_jax import config as options
from lit_jax.base import console, guard, plots
from lit_jax.base.console import say
from lit_jax.base.files import alone_in, write_json
from lit_jax.base.hosts import ensure_same, on_first_host
from lit_jax.base.stopping import Stopping, listening
from lit_jax.base.watchdog import Watchdog, watching
from lit_jax.embedding.photo_embeddings import ASIDE
from lit_jax.errors import Stopped, UserError
from lit_jax.evaluation import gzsl, tables, zeroshot
from lit_jax.models.locking import Params
from lit_jax.training import checkpoint, margin, metrics_log, train_step
from lit_jax.training.experiment import Experiment, chosen_on

PATIENCE = 100  # float16 steps in a row without a finite gradient before a run is given up
STUCK_AFTER = 100.0
"""Seconds of a step on several hosts after which one that waits for the others ends itself."""


def run(experiment: Experiment, *, stuck_after: float = STUCK_AFTER) -> dict[str, Any]:
    """Trains to the end, from the latest checkpoint in the run's folder if there is one.

    Args:
        experiment: from `lit_jax.training.experiment.build`.
        stuck_after: seconds of a step that one of several hosts waits for the others; 0 for ever.

    Returns:
        What is written to ``results.json``: a summary for each evaluation of the last step, facts about the run, and
        under ``best`` the best checkpoint's ``step`` and ``results``, which are what is printed.

    Raises:
        UserError: anything that a person can mend.
        Stopped: when asked to, and the state has been saved.
    """
    config, workdir, first = experiment.config, experiment.workdir, jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        # Two runs would delete what the other is writing.
        on_first_host(
            lambda: stack.enter_context(
                alone_in(
                    workdir, "run", file=".lock", name=f"--workdir {workdir}",
                    remedy="wait for it, use another folder, or give --distributed if both are hosts of one run",
                )
            ),
            "--workdir",
        )  # fmt: skip
        # Before the manager, so that what fails while that is closed is in one line too.
        stack.enter_context(checkpoint.failures_in_one_line(workdir))
        stopping = stack.enter_context(listening("after this step"))
        watchdog = stack.enter_context(watching(stuck_after, guard.stacks()))
        manager = stack.enter_context(checkpoint.writing(workdir / "checkpoints", keep=config.checkpoint.keep))
        state = _resumed(experiment, manager)
        if first:
            write_json(workdir / "config.json", options.flattened(config.given))
        results = _drive(experiment, state, manager, stopping, watchdog)
        if first:
            write_json(workdir / "results.json", results)
            say(_printed(results))
            say(f"results: {workdir / 'results.json'}, curves: {workdir / 'curves.png'}")
    return results


def marks(every_epochs: float, steps_per_epoch: float, total_steps: int) -> set[int]:
    """The steps at which an evaluation or a save is due: at or after each multiple of epochs, and the last step.

    Example:
        >>> sorted(marks(1.0, 2.5, 6))
        [3, 5, 6]
        >>> sorted(marks(0.0, 2.5, 6))
        [6]
    """
    due = {total_steps}
    if every_epochs > 0:
        count = math.floor(total_steps / (every_epochs * steps_per_epoch))
        due |= {min(math.ceil(i * every_epochs * steps_per_epoch - 1e-9), total_steps) for i in range(1, count + 1)}
    return due - {0}


def _resumed(experiment: Experiment, manager: Any) -> train_step.State:
    """The state to start from: of the latest checkpoint, if there is one, which must fit."""
    latest = manager.latest_step()
    ensure_same({f"checkpoint {manager.directory}": "none" if latest is None else f"step {latest}"})
    if latest is None:
        state, notes = experiment.start()
        experiment.notes[:0] = notes
        return state
    saved = checkpoint.read_about(manager, latest)
    changed = options.difference(saved.config, experiment.about.config)
    checkpoint.check_fits(saved, experiment.about, changed, where=str(experiment.workdir))
    progress = {name: getattr(saved, name) for name in ("position", "results", "evaluated", "margin")}
    experiment.about = dataclasses.replace(experiment.about, **progress)
    return checkpoint.restore(manager, latest, experiment.abstract_state)


def _drive(
    experiment: Experiment, state: train_step.State, manager: Any, stopping: Stopping, watchdog: Watchdog
) -> dict[str, Any]:
    """Trains from `state` to the end, or until it is asked to stop."""
    config, start = experiment.config, int(state.step)
    evaluate_at = marks(config.evaluation.every_epochs, experiment.length.steps_per_epoch, experiment.length.steps)
    save_at = marks(config.checkpoint.every_epochs, experiment.length.steps_per_epoch, experiment.length.steps)
    if config.checkpoint.every_epochs > 0:
        save_at |= evaluate_at  # any of them may be the best
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(_log(experiment, start))
        bar = console.Progress(experiment.length.steps, start=start, quiet=jax.process_index() != 0)
        progress = stack.enter_context(bar)
        progress.line(_opening(experiment, state, start))
        interrupted = _interrupted(stopping, watchdog)
        _fit_margin(experiment, progress, interrupted)
        watch = _Watch(experiment, state, log, progress, manager)

        def evaluated(params: Params, step: int) -> bool:
            return _evaluate(experiment, params, step, interrupted, log, progress)

        is_kept = experiment.length.steps == 0 and manager.latest_step() is None  # a start that is the whole run
        if is_kept or (start in evaluate_at and experiment.about.evaluated != start):
            # A run that was stopped before or in an evaluation owes it, and its checkpoint the score.
            _owed(experiment, state, manager, evaluated, is_kept=is_kept)
        for current, metrics in _steps(experiment, state, start, watchdog):
            step = watch.step(metrics)
            evaluates, stops = step in evaluate_at, stopping.at_step()
            if evaluates or stops or step in save_at:
                watch.settle()
                if evaluates and not stops:
                    stops = not evaluated(current.params, step)
                watchdog.slow()
                if stops or step in save_at:
                    _save(experiment, manager, current)
                watch.resume_clock()
            if stops:
                manager.wait_until_finished()
                raise Stopped(_stopped(step))
        watchdog.slow()
        if log is not None:
            title = f"{experiment.workdir.name}: {config.train.epochs:g} epochs, batch {config.train.batch_size}"
            with plots.one_less("curves.png"):
                metrics_log.curves(experiment.workdir / "curves.png", log.records, title=title)
        manager.wait_until_finished()
        best = checkpoint.choose(manager, "best")
        of_best = experiment.about if best == experiment.about.evaluated else checkpoint.read_about(manager, best)
        return _results(experiment, log, best, of_best.results)


def _owed(
    experiment: Experiment,
    state: train_step.State,
    manager: Any,
    evaluated: Callable[[Params, int], bool],
    *,
    is_kept: bool,
) -> None:
    """Evaluates the state that the run starts from; saves it if it `is_kept`, else adds the score to its checkpoint."""
    start = int(state.step)
    if not evaluated(state.params, start):
        raise Stopped(_stopped(start))
    if is_kept:
        _save(experiment, manager, state)
    else:
        checkpoint.complete(manager, experiment.about, score=_score(experiment.about.results))


def _steps(
    experiment: Experiment, state: train_step.State, start: int, watchdog: Watchdog
) -> Iterator[tuple[train_step.State, train_step.Metrics]]:
    """The rest of the run, from batch `start` on. `state` is donated to the first step."""
    if start < experiment.length.steps:
        stream = itertools.islice(experiment.feed(start), experiment.length.steps - start)
        yield from train_step.run(state, experiment.locked, _watched(stream, watchdog), experiment.step)


def _watched(batches: Iterator[train_step.Batch], watchdog: Watchdog) -> Iterator[train_step.Batch]:
    """The same batches; the watchdog knows of each, and of those whose shapes are new to this process."""
    seen = set()
    for batch in batches:
        shapes = tuple((name, value.shape) for name, value in batch.items())
        watchdog.step(compiles=shapes not in seen)
        seen.add(shapes)
        yield batch


def _interrupted(stopping: Stopping, watchdog: Watchdog) -> Callable[[], bool]:
    """What an evaluation, or the fit of the margin, asks after each batch."""

    def interrupted() -> bool:
        watchdog.slow()
        return stopping.at_step()

    return interrupted


class _Watch:
    """Reads metrics one step late, so that the device never waits, and stops a run that has gone wrong."""

    def __init__(
        self,
        experiment: Experiment,
        state: train_step.State,
        log: metrics_log.MetricsLog | None,
        progress: console.Progress,
        manager: Any,
    ):
        self._experiment, self._log, self._progress, self._manager = experiment, log, progress, manager
        self._waiting: deque[tuple[int, train_step.Metrics]] = deque()
        self._step = int(state.step)
        self._updates = int(state.updates)
        self._skipped_in_a_row = 0
        # All at once and beforehand: a computation between two steps would queue behind the one that is on its way.
        updates = experiment.length.steps // experiment.config.optimizer.accumulate
        self._rates = np.asarray(jax.vmap(experiment.schedule)(np.arange(updates + 1)))
        self._since, self._steps_since = time.monotonic(), 0

    def step(self, metrics: train_step.Metrics) -> int:
        """Takes the metrics of one more step; returns the number of steps done."""
        self._step += 1
        self._steps_since += 1
        self._waiting.append((self._step, metrics))
        if len(self._waiting) > 1:
            self._read(*self._waiting.popleft())
        return self._step

    def settle(self) -> None:
        """Waits for all steps so far."""
        while self._waiting:
            self._read(*self._waiting.popleft())

    def resume_clock(self) -> None:
        """Counts pairs per second from now on: evaluations and saves do not count."""
        self._since, self._steps_since = time.monotonic(), 0

    def _read(self, step: int, metrics: train_step.Metrics) -> None:
        here = jax.device_get({name: value.addressable_data(0) for name, value in metrics.items()})
        values = {name: float(value) for name, value in here.items()}
        config = self._experiment.config
        rate = float(self._rates[self._updates // config.optimizer.accumulate])
        skipped = bool(values.pop("skipped"))
        self._updates += not skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        self._check(step, rate, values, skipped)
        if step % config.log.every_steps and step != self._experiment.length.steps:
            return
        now = time.monotonic()
        steps_per_s = self._steps_since / max(now - self._since, 1e-9)
        self._since, self._steps_since = now, 0
        record = {
            "step": step,
            "epoch": step / self._experiment.length.steps_per_epoch,
            **values,
            "learning_rate": rate,
            "skipped_steps": step - self._updates,
            "steps_per_s": steps_per_s,
            "pairs_per_s": steps_per_s * config.train.batch_size,
        }
        if self._log is not None:
            self._log.add(record)
        self._progress.update(record)

    def _check(self, step: int, rate: float, values: Mapping[str, float], skipped: bool) -> None:
        """Stops if the loss or a gradient that was applied is not finite, or if float16 finds no scale."""
        names = ("loss",) if skipped else ("loss", "gradient_norm")
        bad = [name for name in names if not math.isfinite(values[name])]
        if not bad and self._skipped_in_a_row < PATIENCE:
            return
        found = f"{bad[0]}: found {values[bad[0]]}" if bad else f"gradient: found {PATIENCE} overflows in a row"
        last = self._manager.latest_step()
        good = f"step {last} in {self._manager.directory}" if last is not None else "none was saved yet"
        raise UserError(
            f"{found} at step {step}, learning rate {rate:.3g}, expected a finite number; lower optimizer.lr or "
            f"lengthen the warm-up. Last good checkpoint: {good}"
        )


def _evaluate(
    experiment: Experiment,
    moving: Params,
    step: int,
    interrupted: Callable[[], bool],
    log: metrics_log.MetricsLog | None,
    progress: console.Progress,
) -> bool:
    """Evaluates and notes the results; False if it was asked to stop in between and there are none."""
    try:
        hits, rivals = experiment.evaluator({**moving, **experiment.locked}, interrupted=interrupted)
    except zeroshot.Interrupted:
        return False
    candidates = {task.name: len(task.class_ids) for task in experiment.evaluator.tasks}
    results = {task: {**found.summary(), "candidates": candidates[task]} for task, found in hits.items()}
    if rivals is not None:
        results["gzsl"] = gzsl.summary(rivals, experiment.about.margin.get("margin"))
    experiment.about = dataclasses.replace(experiment.about, results=results, evaluated=step)
    epoch = step / experiment.length.steps_per_epoch
    logged = ("top1", "top5", "candidates")
    flat = {f"{task}/{name}": results[task][name] for task in hits for name in logged}
    if rivals is not None:
        flat |= {f"gzsl/{name}": results["gzsl"][name] for name in ("seen", "unseen", "harmonic", "ausuc")}
    if log is not None:
        log.add({"step": step, "epoch": epoch, **flat})
    shown = ", ".join(f"{task} top-1 {100 * results[task]['top1']:.2f} %" for task in hits)
    progress.line(f"epoch {epoch:.2f}: {shown or 'no split to evaluate'}")
    return True


def _save(experiment: Experiment, manager: Any, state: train_step.State) -> None:
    """Saves, with the score of this step's evaluation if there was one."""
    position = int(state.step.addressable_data(0))
    experiment.about = dataclasses.replace(experiment.about, position=position)
    if manager.latest_step() != position:
        score = _score(experiment.about.results) if experiment.about.evaluated == position else None
        checkpoint.save(manager, state, experiment.about, score=score)


def _score(results: Mapping[str, Any]) -> float | None:
    """The score of a checkpoint: top-1 on photos set aside, else on seen species, else on the first task."""
    chosen = next((name for name in ("set_aside", "seen", *results) if name in results), None)
    return None if chosen is None else float(results[chosen]["top1"])


@contextlib.contextmanager
def _log(experiment: Experiment, start: int) -> Iterator[metrics_log.MetricsLog | None]:
    """The log of the first host; the others keep none."""
    if jax.process_index() != 0:
        yield None
        return
    log = metrics_log.MetricsLog(experiment.workdir, step=start, tensorboard=experiment.config.log.tensorboard)
    try:
        yield log
    finally:
        log.close()


def _stopped(step: int) -> str:
    return f"stopped as asked after step {step}; run the same command to go on from there"


def _opening(experiment: Experiment, state: train_step.State, start: int) -> str:
    """The first lines of a run: what it trains, on how many photos, for how many steps, and its notes."""

    def count(tree: Any) -> str:
        return f"{sum(leaf.size for leaf in jax.tree.leaves(tree)):,}"

    records = ", ".join(f"{name} {experiment.data.examples(name):,}" for name in experiment.data.splits)
    begin = f"resuming after step {start}" if start else "starting"
    steps = f"{experiment.length.steps} step{'s' if experiment.length.steps > 1 else ''}"
    devices = f"{experiment.mesh.size} device{'s' if experiment.mesh.size > 1 else ''}"
    locked = f"{count(experiment.locked)} locked"
    if experiment.config.input == "store":
        locked += ", the image tower's work done"
    lines = [
        f"{begin}: {count(state.params)} parameters to train, {locked}; "
        f"photos: {records}; {steps} of {experiment.config.train.batch_size} pairs on {devices}",
        *(f"note: {note}" for note in experiment.notes),
    ]
    return "\n".join(lines)


def _fit_margin(experiment: Experiment, progress: console.Progress, interrupted: Callable[[], bool]) -> None:
    """Fits the margin for seen species, where one is asked for and none was stored yet."""
    if not experiment.config.evaluation.margin_folds or experiment.about.margin:
        return
    tick = console.pace(progress, "steps of trials for the margin")
    found = margin.fit(experiment, tell=progress.line, tick=tick, interrupted=interrupted)
    experiment.about = dataclasses.replace(experiment.about, margin=found)
    progress.line(_about_margin(found))


def _about_margin(found: Mapping[str, Any]) -> str:
    """What the fit of the margin found."""
    return (
        f"margin {found['margin']:.3f} for seen species: with it, inside the training split, "
        f"{100 * found['seen']:.1f} % of photos of seen and {100 * found['unseen']:.1f} % of unseen species were named "
        "rightly among all, "
        f"harmonic mean {found['harmonic']:.3f}"
    )


def _printed(results: Mapping[str, Any]) -> str:
    """The figures of the best checkpoint, which others take, and those of the last step where it is another."""
    best, last = results["best"], results["step"]
    if best["step"] == last:
        return f"{tables.results_table(results)}\n{_about_best(results)}"
    shown = ", ".join(
        f"{name.replace('_', ' ')} {100 * row['top1']:.2f} %"
        for name, row in results.items()
        if isinstance(row, Mapping) and "top1" in row
    )
    return "\n".join(
        [
            f"step {best['step']}, the best checkpoint, which evaluate, predict and all others take:",
            tables.results_table(best["results"]),
            _about_best(results),
            f"the last step, {last}, which --step=latest takes: top-1 {shown}",
        ]
    )


def _about_best(results: Mapping[str, Any]) -> str:
    """Which checkpoint is the best, and whether its figures say so of photos that it was not chosen by."""
    best = results["best"]
    if not best["chosen_on"]:
        return f"checkpoint: step {best['step']}, the last one: there is no other, or no split to choose by"
    said = f"best checkpoint: step {best['step']}, by top-1 on {best['chosen_on']}"
    if best["chosen_on"] == ASIDE:
        return f"{said} photos of the training split"
    return (
        f"{said}, whose figures are a little too good for that: data.select_fraction would set training photos aside "
        "to choose by"
    )


def _results(
    experiment: Experiment, log: metrics_log.MetricsLog | None, best: int, of_best: Mapping[str, Any]
) -> dict[str, Any]:
    """What is written: at the top the figures of the last step, under ``best`` those of the best checkpoint."""
    losses = [record for record in (log.records if log else ()) if "loss" in record]
    steps, per_epoch = experiment.length.steps, experiment.length.steps_per_epoch
    return {
        **experiment.about.results,
        "margin": experiment.about.margin,
        "best": {"step": best, "chosen_on": chosen_on(experiment.config), "results": dict(of_best)},
        "step": steps,
        "epochs": steps / per_epoch,
        "loss": losses[-1]["loss"] if losses else None,
        "seed": experiment.config.seed,
        "locks": experiment.config.train.locks,
        "config": options.digest(experiment.about.config),
        "records": experiment.about.fingerprint,
        "locked": experiment.about.locked,
    }
