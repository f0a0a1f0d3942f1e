"""Turns a config into mesh, data, model, optimizer and evaluations, and drives the loop with its side effects.

The only module that sees the whole config. Everything below takes what it uses.
"""

import contextlib
import dataclasses
import math
import pathlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from lit_jax import batches, checkpoint, models, optimizer, report, train, zeroshot
from lit_jax import config as options
from lit_jax.captions import class_captions
from lit_jax.checkpoint import About
from lit_jax.classes import read_class_table
from lit_jax.errors import UserError
from lit_jax.metrics import TopK
from lit_jax.models import weights
from lit_jax.models.two_tower import Params, TwoTower
from lit_jax.precision import DTYPES, cast, initial_loss_scale
from lit_jax.prompts import prompts, read_templates
from lit_jax.records import RecordSet, open_records
from lit_jax.sharding import check_divides, ensure_same_on_hosts, from_all_hosts, make_mesh, put_batch, put_replicated
from lit_jax.tokens import Tokenizer, load_tokenizer

Config = Any  # ml_collections.FrozenConfigDict, checked by lit_jax.config


@dataclasses.dataclass(frozen=True)
class Task:
    """One zero-shot evaluation: photos of a split against candidate classes.

    Attributes:
        name: in the results.
        split: of the record set.
        class_ids: the candidates.
    """

    name: str
    split: str
    class_ids: tuple[int, ...]


@dataclasses.dataclass
class Evaluator:
    """Zero-shot evaluation during and after training.

    Attributes:
        parts: jitted functions.
        tasks: what to evaluate.
        class_prompts: prompts of each class, by class id.
        tokenise: texts to ids.
        batch_size: photos and prompts at a time.
        photos: opens the photos of a split behind the image tower.
        keep: whether features may be kept from one evaluation to the next: the tower is locked.
    """

    parts: zeroshot.Embedder
    tasks: Sequence[Task]
    class_prompts: Mapping[int, Sequence[str]]
    tokenise: Callable[[Sequence[str]], np.ndarray]
    batch_size: int
    photos: Callable[[str, Params], Iterator[zeroshot.Photos]]
    keep: bool
    kept: dict[str, list[zeroshot.Photos]] = dataclasses.field(default_factory=dict)

    def __call__(self, params: Params) -> dict[str, dict[str, float | int]]:
        """Summaries by task: top1 and top5 as fractions, classes with photos, images, candidates."""
        return {
            task.name: {**self.hits(task, params).summary(), "candidates": len(task.class_ids)} for task in self.tasks
        }

    def hits(self, task: Task, params: Params) -> TopK:
        """Hits of one task, class by class."""
        embed = zeroshot.text_embedder(self.parts, params, self.tokenise, batch_size=self.batch_size)
        class_emb = zeroshot.class_embeddings(embed, [self.class_prompts[i] for i in task.class_ids])
        return zeroshot.classify(self.parts, params, self._features(task.split, params), class_emb, task.class_ids)

    def _features(self, split: str, params: Params) -> Sequence[zeroshot.Photos]:
        if split in self.kept:
            return self.kept[split]
        features = list(self.photos(split, params["image"]))
        if self.keep:
            self.kept[split] = features
        return features


@dataclasses.dataclass
class Experiment:
    """A run, built and ready to go."""

    config: Config
    workdir: pathlib.Path
    mesh: Mesh
    records: RecordSet
    model: TwoTower
    tokenizer: Tokenizer
    schedule: optax.Schedule
    step: Callable[[train.State, Params, train.Batch], tuple[train.State, train.Metrics]]
    state: train.State
    locked: Params
    about: About
    evaluator: Evaluator
    examples: int
    total_steps: int


def run(config: Config, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains to the end, from the latest checkpoint in `workdir` if there is one.

    Args:
        config: checked by `lit_jax.config.load`.
        workdir: folder of checkpoints, metrics and results; made if missing.

    Returns:
        What is written to ``results.json``: a summary for each evaluation, and facts about the run.

    Raises:
        UserError: anything that a person can mend.
        Stopped: after SIGTERM, when the state has been saved.
    """
    experiment = build(config, pathlib.Path(workdir))
    first = jax.process_index() == 0
    manager = checkpoint.open_manager(experiment.workdir / "checkpoints", keep=config.checkpoint.keep)
    try:
        _resume(experiment, manager)
        if first:
            report.write_json(experiment.workdir / "config.json", options.flattened(config))
        results = _drive(experiment, manager)
    finally:
        manager.wait_until_finished()
        manager.close()
    if first:
        report.write_json(experiment.workdir / "results.json", results)
        _print_results(experiment.workdir, results)
    return results


class Stopped(Exception):
    """SIGTERM arrived and the state was saved; the message says where."""


# Building.


def build(config: Config, workdir: pathlib.Path) -> Experiment:
    """Opens the data, makes the model, and puts the parameters on the mesh.

    Raises:
        UserError: a batch that does not divide, missing weights, records or tokenizer.
    """
    mesh = make_mesh(config.train.devices)
    check_divides(config.train.batch_size, mesh.size, name="train.batch_size")
    check_divides(config.evaluation.batch_size, mesh.size, name="evaluation.batch_size")
    records = open_records(_required(config.data.records, "data.records", "folder of a record set"))
    tokenizer = open_tokenizer(config, records)
    model = build_model(config, tokenizer)
    params, digests = initial_params(config, model)
    moving, locked = optimizer.split_locked(params, config.train.locks)
    examples = records.examples(config.data.train_split)
    total_steps = math.ceil(config.train.epochs * examples / config.train.batch_size)
    schedule = build_schedule(config, examples)
    adamw = build_optimizer(config, schedule)
    step = train.make_step(
        model, adamw, max_scale=config.model.scale_max, dynamic_scale=config.train.precision == "float16"
    )
    state = put_replicated(train.initial_state(moving, adamw, initial_loss_scale(config.train.precision)), mesh)
    locked = put_replicated(cast(locked, DTYPES[config.train.precision]), mesh)
    about = About(
        config=options.flattened(config),
        position=0,
        locked={name: digests[name] for name in locked},
        fingerprint=records.fingerprint,
        templates=list(records.templates),
        drop_repeats=records.drop_repeats,
        class_table=records.class_table.read_text(encoding="utf-8"),
        train_classes=list(records.classes_in(config.data.train_split)),
        tokenizer=tokenizer.model_bytes,
    )
    evaluator = build_evaluator(
        mesh, model, tokenizer, records, _class_prompts(config, records), training_tasks(config, records),
        image_size=config.image.size, context=config.text.context, batch_size=config.evaluation.batch_size,
        keep="image" in locked,
    )  # fmt: skip
    return Experiment(
        config, workdir, mesh, records, model, tokenizer, schedule, step, state, locked, about, evaluator, examples,
        total_steps,
    )  # fmt: skip


def open_tokenizer(config: Config, records: RecordSet) -> Tokenizer:
    """The tokenizer of the config, else the record set's own.

    Raises:
        UserError: if neither is there.
    """
    path = config.data.tokenizer or records.tokenizer
    if not path:
        raise UserError(
            f"data.tokenizer: found none in the config or in {records.directory}, expected a SentencePiece .model file"
        )
    return load_tokenizer(path)


def build_model(config: Config, tokenizer: Tokenizer) -> TwoTower:
    """The towers as the config describes them.

    Raises:
        UserError: sizes that do not go together.
    """
    image, text, joint = config.image, config.text, config.model
    dtype = DTYPES[config.train.precision]
    for name, tower in (("image", image), ("text", text)):
        if tower.width % tower.heads:
            raise UserError(f"{name}.width: found {tower.width} with {tower.heads} heads, expected a multiple")
    if image.size % image.patch:
        raise UserError(f"image.size: found {image.size}, expected a multiple of image.patch, {image.patch}")
    if not joint.projection and joint.embed_dim != image.width:
        raise UserError(
            f"model.embed_dim: found {joint.embed_dim} without model.projection, expected image.width, {image.width}"
        )
    return TwoTower(
        image=models.IMAGE_TOWERS[image.tower](
            patch=image.patch, width=image.width, depth=image.depth, heads=image.heads, mlp_dim=image.mlp_dim,
            pool=image.pool, dtype=dtype,
        ),
        text=models.TEXT_TOWERS[text.tower](
            vocab_size=tokenizer.vocab_size, context=text.context, end_id=tokenizer.end_id, width=text.width,
            depth=text.depth, heads=text.heads, embed_dim=joint.embed_dim, mlp_dim=text.mlp_dim, causal=text.causal,
            pool=text.pool, projection_bias=text.projection_bias, exact_gelu=text.exact_gelu,
            norm_epsilon=text.norm_epsilon, dtype=dtype,
        ),
        embed_dim=joint.embed_dim,
        projection=joint.projection,
        mean=tuple(image.mean),
        std=tuple(image.std),
        scale_init=joint.scale_init,
        bias_init=joint.bias_init if joint.loss == "sigmoid" else None,
    )  # fmt: skip


def initial_params(config: Config, model: TwoTower) -> tuple[Params, dict[str, str]]:
    """Parameters before the first step: from scratch or from files, as the lock's letters say.

    Returns:
        Float32 parameters, and the digest of each pre-trained tower's weights, by tower.

    Raises:
        UserError: a letter L or U without a weight file, or u with one.
    """

    def fresh(key: jax.Array) -> Params:
        return models.init(model, key, image_size=config.image.size, context=config.text.context)

    letters = optimizer.lock_letters(config.train.locks)
    pretrained = {name for name, letter in letters.items() if letter in "LU"}
    for name in letters:
        path = config[name].weights
        if bool(path) != (name in pretrained):
            expected = "a file of pre-trained weights" if name in pretrained else "none, since u means from scratch"
            raise UserError(f"{name}.weights: found {path!r} under lock {config.train.locks}, expected {expected}")
    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(fresh, key)
    # Only what is used is initialised: a locked ViT-L is not drawn at random first.
    params = jax.jit(lambda key: {name: tree for name, tree in fresh(key).items() if name not in pretrained})(key)
    digests = {}
    for name in pretrained:
        params[name], _ = weights.load_tower(config[name].weights, shapes[name], name)
        digests[name] = weights.digest(params[name])
    return params, digests


def build_schedule(config: Config, examples: int) -> optax.Schedule:
    """The learning rate by optimizer step.

    Raises:
        UserError: a warm-up given both in steps and in epochs, or longer than the schedule.
    """
    per_epoch = examples / config.train.batch_size / config.optimizer.accumulate
    if config.optimizer.warmup_steps and config.optimizer.warmup_epochs:
        raise UserError("optimizer.warmup_steps: found warmup_epochs as well, expected one of the two; set one to 0")
    warmup = config.optimizer.warmup_steps or round(config.optimizer.warmup_epochs * per_epoch)
    horizon = math.ceil((config.optimizer.horizon_epochs or config.train.epochs) * per_epoch)
    return optimizer.warmup_cosine(peak=config.optimizer.lr, warmup_steps=warmup, horizon_steps=horizon)


def build_optimizer(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW as the config describes it."""
    chosen = config.optimizer
    return optimizer.adamw(
        schedule, weight_decay=chosen.weight_decay, b1=chosen.b1, b2=chosen.b2, eps=chosen.eps,
        clip_norm=chosen.clip_norm, accumulate=chosen.accumulate,
    )  # fmt: skip


def training_tasks(config: Config, records: RecordSet) -> list[Task]:
    """Seen species among all seen ones; held-out species among themselves, and among all species."""
    tasks = []
    seen = set(records.classes_in(config.data.train_split))
    if config.data.seen_split:
        seen |= set(records.classes_in(config.data.seen_split))
        tasks.append(Task("seen", config.data.seen_split, tuple(sorted(seen))))
    split = config.data.heldout_split
    if split and split in records.splits:
        heldout = set(records.classes_in(split))
        if heldout & seen:
            raise UserError(f"data.heldout_split: found class id {min(heldout & seen)} in training too, expected none")
        tasks.append(Task("heldout", split, tuple(sorted(heldout))))
        tasks.append(Task("heldout_among_all", split, tuple(sorted(heldout | seen))))
    return tasks


def build_evaluator(
    mesh: Mesh,
    model: TwoTower,
    tokenizer: Tokenizer,
    records: RecordSet,
    class_prompts: Mapping[int, Sequence[str]],
    tasks: Sequence[Task],
    *,
    image_size: int,
    context: int,
    batch_size: int,
    keep: bool,
) -> Evaluator:
    """An evaluator of `tasks` on a record set; the other arguments are as in `Evaluator`."""
    hosts, host = jax.process_count(), jax.process_index()
    parts = zeroshot.embedder(model, mesh)

    def photos(split: str, tower: Params) -> Iterator[zeroshot.Photos]:
        stream = batches.evaluation_batches(
            records, split, batch_size=batch_size // hosts, image_size=image_size, host=host, hosts=hosts
        )
        return iter(zeroshot.photo_features(parts, tower, stream))

    def tokenise(texts: Sequence[str]) -> np.ndarray:
        return tokenizer.encode(texts, context)

    return Evaluator(parts, tasks, class_prompts, tokenise, batch_size, photos, keep)


def _class_prompts(config: Config, records: RecordSet) -> dict[int, Sequence[str]]:
    """Prompts of every class of the record set, by class id."""
    table = read_class_table(records.class_table)
    if not config.evaluation.templates:
        return dict(
            zip(table.ids, class_captions(table, records.templates, drop_repeats=records.drop_repeats), strict=True)
        )
    templates = read_templates(config.evaluation.templates)
    return dict(zip(table.ids, prompts(table.rows(), templates), strict=True))


def _required(value: str, name: str, what: str) -> str:
    if not value:
        raise UserError(f"{name}: found nothing, expected a {what}; set it in the config or with --config.{name}=...")
    return value


# Driving.


def marks(every_epochs: float, steps_per_epoch: float, total_steps: int) -> set[int]:
    """The steps at which something is due: the first step at or after each multiple of epochs, and the last step.

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


def _resume(experiment: Experiment, manager: Any) -> None:
    """Continues from the latest checkpoint, if there is one that fits."""
    latest = manager.latest_step()
    ensure_same_on_hosts([-1 if latest is None else latest], name=f"checkpoint {manager.directory}")
    if latest is None:
        return
    saved = checkpoint.read_about(manager, latest)
    changed = options.difference(saved.config, experiment.about.config)
    checkpoint.check_fits(saved, experiment.about, changed, where=str(experiment.workdir))
    experiment.state = checkpoint.restore(manager, latest, experiment.state)
    experiment.about = dataclasses.replace(experiment.about, position=saved.position, results=saved.results)


def _drive(experiment: Experiment, manager: Any) -> dict[str, Any]:
    """The loop: trains, evaluates, saves, reports."""
    config, start = experiment.config, int(experiment.state.step)
    per_epoch = experiment.examples / config.train.batch_size
    evaluate_at = marks(config.evaluation.every_epochs, per_epoch, experiment.total_steps)
    save_at = marks(config.checkpoint.every_epochs, per_epoch, experiment.total_steps)
    quiet = jax.process_index() != 0
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(_log(experiment, start, quiet))
        progress = stack.enter_context(report.Progress(experiment.total_steps, start=start, quiet=quiet))
        told = stack.enter_context(_sigterm())
        progress.line(_opening(experiment, start))
        watch = _Watch(experiment, log, progress, manager)
        for state, metrics in _steps(experiment, start):
            step = watch.step(metrics)
            params = {**state.params, **experiment.locked}
            stop = _stop_asked(told, at=step % config.log.every_steps == 0)
            evaluated = step in evaluate_at
            if evaluated or step in save_at or stop:
                watch.settle()
            if evaluated:
                _evaluate(experiment, params, step / per_epoch, step, log, progress)
            if step in save_at or evaluated or stop:
                _save(experiment, manager, state, score=_score(experiment.about.results) if evaluated else None)
            if stop and step < experiment.total_steps:
                manager.wait_until_finished()
                raise Stopped(f"stopped by SIGTERM after step {step}; run the same command to go on from there")
            watch.resume_clock()
        results = _results(experiment, log, watch)
        if not quiet:
            title = f"{experiment.workdir.name}: {config.train.epochs:g} epochs, batch {config.train.batch_size}"
            report.curves(experiment.workdir / "curves.png", log.records, title=title)
    return results


def _steps(experiment: Experiment, start: int) -> Iterator[tuple[train.State, train.Metrics]]:
    """The rest of the run, from batch `start` on."""
    config, hosts = experiment.config, jax.process_count()
    if start >= experiment.total_steps:
        return
    stream = batches.training_batches(
        experiment.records,
        config.data.train_split,
        tokenizer=experiment.tokenizer,
        context=config.text.context,
        batch_size=config.train.batch_size // hosts,
        image_size=config.image.size,
        seed=config.seed,
        host=jax.process_index(),
        hosts=hosts,
        position=start,
        window=config.data.shuffle_window,
        crop_scale=tuple(config.data.crop_scale),
        flip=config.data.flip,
    )

    def put(batch: dict[str, np.ndarray]) -> train.Batch:
        return put_batch({"image": batch["image"], "tokens": batch["tokens"]}, experiment.mesh)

    on_device = batches.ahead(stream, put)
    state = experiment.state
    # The state is donated to the first step: from here on the loop owns it.
    del experiment.state
    limited = (batch for batch, _ in zip(on_device, range(experiment.total_steps - start), strict=False))
    yield from train.run(state, experiment.locked, limited, experiment.step)


class _Watch:
    """Reads metrics one step late, so that the device never waits, and stops a run whose loss is not finite."""

    def __init__(self, experiment: Experiment, log: report.MetricsLog, progress: report.Progress, manager: Any):
        self._experiment, self._log, self._progress, self._manager = experiment, log, progress, manager
        self._waiting: deque[tuple[int, train.Metrics]] = deque()
        self._step = int(experiment.about.position)
        self._skipped = 0
        self.seconds = 0.0
        self.steps = 0
        self._since, self._steps_since = time.monotonic(), 0

    def step(self, metrics: train.Metrics) -> int:
        """Takes the metrics of one more step; returns the number of steps done."""
        self._step += 1
        self._steps_since += 1
        self._waiting.append((self._step, metrics))
        if len(self._waiting) > 1:
            self._read(*self._waiting.popleft())
        return self._step

    def settle(self) -> None:
        """Waits for all steps so far and stops the clock."""
        while self._waiting:
            self._read(*self._waiting.popleft())
        self._count_time()

    def resume_clock(self) -> None:
        """Starts the clock again after an evaluation or a save."""
        if not self._waiting:
            self._since = time.monotonic()

    def _count_time(self) -> float:
        now = time.monotonic()
        passed, self._since = now - self._since, now
        self.seconds += passed
        self.steps += self._steps_since
        rate, self._steps_since = self._steps_since / max(passed, 1e-9), 0
        return rate

    def _read(self, step: int, metrics: train.Metrics) -> None:
        values = {name: float(value.addressable_data(0)) for name, value in metrics.items()}
        self._skipped += int(values.pop("skipped"))
        config = self._experiment.config
        rate = float(self._experiment.schedule((step - 1 - self._skipped) // config.optimizer.accumulate))
        if not math.isfinite(values["loss"]):
            last = self._manager.latest_step()
            good = f"step {last} in {self._manager.directory}" if last is not None else "none was saved yet"
            raise UserError(
                f"loss: found {values['loss']} at step {step}, learning rate {rate:.3g}, expected a finite number; "
                f"lower optimizer.lr or lengthen the warm-up. Last good checkpoint: {good}"
            )
        if step % config.log.every_steps and step != self._experiment.total_steps:
            return
        steps_per_s = self._count_time()
        record = {
            "step": step,
            "epoch": step * config.train.batch_size / self._experiment.examples,
            **values,
            "learning_rate": rate,
            "skipped_steps": self._skipped,
            "steps_per_s": steps_per_s,
            "pairs_per_s": steps_per_s * config.train.batch_size,
        }
        if jax.process_index() == 0:
            self._log.add(record)
        self._progress.update(record)


def _evaluate(
    experiment: Experiment, params: Params, epoch: float, step: int, log: report.MetricsLog, progress: report.Progress
) -> None:
    results = experiment.evaluator(params)
    experiment.about = dataclasses.replace(experiment.about, results=results)
    flat = {f"{task}/{name}": value for task, row in results.items() for name, value in row.items() if "top" in name}
    if jax.process_index() == 0:
        log.add({"step": step, "epoch": epoch, **flat})
    shown = ", ".join(f"{task} top-1 {100 * row['top1']:.2f} %" for task, row in results.items())
    progress.line(f"epoch {epoch:.2f}: {shown or 'no split to evaluate'}")


def _score(results: Mapping[str, Any]) -> float | None:
    """What makes a checkpoint the best: top-1 on seen species, else on the first task there is."""
    rows = [results[name] for name in ("seen", *results) if name in results]
    return rows[0]["top1"] if rows else None


def _save(experiment: Experiment, manager: Any, state: train.State, *, score: float | None) -> None:
    position = int(state.step.addressable_data(0))
    experiment.about = dataclasses.replace(experiment.about, position=position)
    if manager.latest_step() != position:
        checkpoint.save(manager, state, experiment.about, score=score)


@contextlib.contextmanager
def _log(experiment: Experiment, start: int, quiet: bool) -> Iterator[report.MetricsLog]:
    # Hosts but the first keep a log of nothing, in memory only.
    if quiet:
        yield None  # type: ignore[misc]
        return
    log = report.MetricsLog(experiment.workdir, step=start, tensorboard=experiment.config.log.tensorboard)
    try:
        yield log
    finally:
        log.close()


@contextlib.contextmanager
def _sigterm() -> Iterator[list[int]]:
    """Collects SIGTERM in a list instead of dying of it; only in the main thread, where signals arrive."""
    told: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    except ValueError:
        yield told
        return
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop_asked(told: Sequence[int], *, at: bool) -> bool:
    """Whether to stop now. Several hosts agree on it, at steps where all of them ask."""
    if jax.process_count() == 1:
        return bool(told)
    return at and bool(from_all_hosts(np.array(bool(told))).any())


def _opening(experiment: Experiment, start: int) -> str:
    def count(tree: Any) -> str:
        return f"{sum(leaf.size for leaf in jax.tree.leaves(tree)):,}"

    records = ", ".join(f"{name} {experiment.records.examples(name):,}" for name in experiment.records.splits)
    begin = f"resuming after step {start}" if start else "starting"
    return (
        f"{begin}: {count(experiment.state.params)} parameters to train, {count(experiment.locked)} locked; "
        f"photos: {records}; {experiment.total_steps} steps of {experiment.config.train.batch_size} pairs on "
        f"{experiment.mesh.size} device{'s' if experiment.mesh.size > 1 else ''}"
    )


def _results(experiment: Experiment, log: report.MetricsLog | None, watch: _Watch) -> dict[str, Any]:
    losses = [record for record in (log.records if log else ()) if "loss" in record]
    return {
        **experiment.about.results,
        "step": experiment.total_steps,
        "epochs": experiment.total_steps * experiment.config.train.batch_size / experiment.examples,
        "loss": losses[-1]["loss"] if losses else None,
        "seed": experiment.config.seed,
        "lock": experiment.config.train.locks,
        "config": options.digest(experiment.about.config),
        "records": experiment.about.fingerprint,
        "locked": experiment.about.locked,
    }


def _print_results(workdir: pathlib.Path, results: Mapping[str, Any]) -> None:
    print(report.results_table(results))
    print(f"results: {workdir / 'results.json'}, curves: {workdir / 'curves.png'}")
