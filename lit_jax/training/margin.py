"""The margin for seen species, fitted inside the training split by trainings that leave some of its species out.

Where species with and without photos in training are asked together, seen species are held back by a margin (see
`lit_jax.evaluation.gzsl`). It may be chosen on training data alone: the training species are divided into parts, and
for each part a model is trained without it, which then names photos of that part and other photos of the rest, among
all training species. What is found there is stored with every checkpoint of the run.
"""

import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lit_jax import config as options
from lit_jax.base.files import clear_parts, digest, file_digest, written_aside
from lit_jax.base.hosts import asked_of_first_host, from_all_hosts, on_first_host, seen_in_time
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.embedding.photo_embeddings import ASIDE, from_store, image_embeddings
from lit_jax.errors import DAMAGED, Stopped, UserError
from lit_jax.evaluation import calibration, closed_form, gzsl, ranking
from lit_jax.models.locking import Params
from lit_jax.training import train_step
from lit_jax.training.experiment import Experiment, Shorter

STOPPED = "stopped while the margin was fitted; run the same command to go on from there"


class Trial(NamedTuple):
    """What one training without some of its species says, and what it was made from.

    Attributes:
        photos: `[N, D]` float32, embeddings of photos that it did not learn from.
        labels: `[N]` int64, number of each one's species.
        classes: `[K, D]` float32, embeddings of all training species.
        seen: `[K]` bool, species that it had photos of.
        made_from: digest of all that decides the numbers above, see `_made_from`.
    """

    photos: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    seen: np.ndarray
    made_from: np.ndarray = np.array("")


def fit(
    experiment: Experiment,
    *,
    tell: Callable[[str], None],
    tick: Callable[[int, int], None],
    interrupted: Callable[[], bool],
) -> dict[str, Any]:
    """Fits the margin of a run, and the temperatures that hold with it.

    Each trial trains for the epochs of the run on the photos that it has. It is kept in the run's folder as soon as it
    is done, so that a run that was stopped goes on with the next; what other options or data made is made again.

    Args:
        experiment: the run.
        tell: hears a line a trial.
        tick: hears of each step of all trials: how many are done, and how many there are.
        interrupted: asked after each step of training.

    Returns:
        ``margin``; ``seen``, ``unseen``, ``harmonic`` and ``ausuc``, means over the trials at that margin; ``folds``;
        ``species`` held out in each; and ``factors``: the factor of similarities, see `calibration.fit_factor`, at
        which the model is as sure as it is right, where it names a ``seen`` and where an ``unseen`` species.

    Raises:
        UserError: too few species, or one photo of each; records instead of a store.
        Stopped: if asked to.
    """
    number, data = experiment.config.evaluation.margin_folds, experiment.data
    if not isinstance(data, Store):
        raise UserError(
            'evaluation.margin_folds: found a run on records, expected input = "store"; make one with '
            "python -m lit_jax.embed, so that no photo passes the tower again"
        )
    species = _species_of_rows(experiment, data)
    folds = closed_form.folds_of(species, folds=number, seed=experiment.config.seed)
    if not any(fold.aside.any() for fold in folds):
        raise UserError(
            "evaluation.margin_folds: found one photo or row of a head for each species, expected two or more of some, "
            "to name photos of species that are trained on; set it to 0"
        )
    on_first_host(lambda: _clear_parts(experiment.workdir / "margin"), "what a killed run left of the margin")
    shorter = experiment.without([~fold.learnt for fold in folds])
    steps, of_run, trials, rivals = shorter.length.steps, _of_run(experiment), [], []
    for place, fold in enumerate(folds):
        if interrupted():
            raise Stopped(STOPPED)
        path = experiment.workdir / "margin" / f"trial-{place}-of-{number}.npz"
        tock = functools.partial(lambda done, step: tick(done + step, number * steps), place * steps)
        train = functools.partial(_trial, experiment, species, fold, shorter, tock, interrupted)
        trials.append(_of_fold(path, _made_from(of_run, fold), train))
        rivals.append(_rivals(experiment, trials[-1]))
        held, right = int((~trials[-1].seen).sum()), gzsl.at(rivals[-1], np.inf)[1]
        tell(f"margin: trained without {held} of the species ({place + 1} of {number}), named {100 * right:.1f} % of "
             "their photos among them")  # fmt: skip
    return _fitted(experiment, trials, rivals)


def _clear_parts(folder: pathlib.Path) -> None:
    if folder.is_dir():
        clear_parts(folder)


def _of_fold(path: pathlib.Path, made_from: str, train: Callable[[], Trial]) -> Trial:
    """The trial that is kept at a path if it was made from the same, else a new one, which is kept there."""
    if not asked_of_first_host(lambda: _kept(path, made_from) is not None, "whether a trial is kept"):
        trial = train()._replace(made_from=np.array(made_from))
        on_first_host(lambda: _write(path, trial), "a trial of the margin")
    found = seen_in_time(path.parent, lambda: _kept(path, made_from))
    if found is None:
        raise UserError(f"{path}: found no trial of this run, which host 0 has there; use one folder for all hosts")
    return found


def _of_run(experiment: Experiment) -> dict[str, Any]:
    """What decides the numbers of every trial of a run: options, data, towers and words. JSON-ready.

    The digest of a locked tower is among `About.locked`; one that moves is known by the files that it starts from.
    """
    about, config = experiment.about, experiment.config
    names = (
        "locked",
        "store",
        "templates",
        "drop_repeats",
        "class_table",
        "train_classes",
        "prompt_templates",
        "units",
    )
    return {
        **{name: getattr(about, name) for name in names},
        "options": options.deciding(about.config),
        "tokenizer": hashlib.sha256(about.tokenizer).hexdigest(),
        "weights": [_content(config.text.weights), _content(config.model.weights)],
    }


def _made_from(of_run: dict[str, Any], fold: closed_form.Fold) -> str:
    """A digest of what decides the numbers of a trial: of the run, and the photos of the fold."""
    return digest({**of_run, "photos": [hashlib.sha256(np.packbits(part).tobytes()).hexdigest() for part in fold]})


def _content(weights: str) -> list[str]:
    """Digests of the files of weights that a tower may start from; their name alone where they are not on this disk."""
    path = pathlib.Path(weights)
    files = [path] if path.is_file() else sorted(path.glob("*")) if weights and path.is_dir() else []
    return [file_digest(file) for file in files if file.is_file()] or [weights]


def _kept(path: pathlib.Path, made_from: str) -> Trial | None:
    """A trial of an earlier start, if it is whole and was made from the same."""
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            trial = Trial(**arrays)
    except (OSError, *DAMAGED):
        return None  # there is none, it is damaged, or a version wrote it that did not say what it was made from
    return trial if str(trial.made_from) == made_from else None


def _trial(
    experiment: Experiment,
    species: np.ndarray,
    fold: closed_form.Fold,
    shorter: Shorter,
    tick: Callable[[int], None],
    interrupted: Callable[[], bool],
) -> Trial:
    feed, start = shorter.of(~fold.learnt)
    state, _ = start()
    stream = itertools.islice(feed(0), shorter.length.steps)
    for number, (current, _) in enumerate(train_step.run(state, experiment.locked, stream, shorter.step), start=1):
        state = current
        tick(number)
        if interrupted():
            raise Stopped(STOPPED)
    learnt = fold._replace(learnt=fold.learnt & ~shorter.aside)
    trial = _judged(experiment, {**state.params, **experiment.locked}, species, learnt)
    if not (np.isfinite(trial.photos).all() and np.isfinite(trial.classes).all()):
        raise UserError(
            "evaluation.margin_folds: found a training without some species that ends in numbers that are not finite, "
            "expected one that learns; lower optimizer.lr or lengthen the warm-up"
        )
    return trial


def _judged(experiment: Experiment, params: Params, species: np.ndarray, fold: closed_form.Fold) -> Trial:
    """What parameters say of photos that a fold does not learn from."""
    named = np.zeros(len(species), bool)
    for part in (fold.aside, fold.heldout):
        named[closed_form.some_of_each(species, part, np.random.default_rng(experiment.config.seed))] = True
    evaluator, split = experiment.evaluator, experiment.config.data.train_split
    assert isinstance(experiment.data, Store), "of records no margin is fitted"
    photos = from_store(evaluator.parts, experiment.data, batch_size=evaluator.batch_size, aside=(split, named))
    found, class_ids = image_embeddings(evaluator.parts, params, photos(ASIDE, params))
    found, class_ids = _of_all_hosts(found), _of_all_hosts(class_ids)
    classes = np.unique(species)
    own = np.array([experiment.species_of[class_id] for class_id in class_ids.tolist()])
    embedded = evaluator.embedded(params, classes.tolist())
    return Trial(found, np.searchsorted(classes, own), embedded, np.isin(classes, species[fold.learnt]))


def _species_of_rows(experiment: Experiment, data: Store) -> np.ndarray:
    """`[N]` int64: the species of each photo of the training split."""
    class_ids = Rows(data, experiment.config.data.train_split).class_ids
    return np.array([experiment.species_of[class_id] for class_id in class_ids.tolist()])


def _fitted(experiment: Experiment, trials: list[Trial], rivals: list[gzsl.Rivals]) -> dict[str, Any]:
    margin, reached = gzsl.best_margin(rivals)
    seen, unseen = np.mean([gzsl.at(one, margin) for one in rivals], 0)
    factors = {}
    for kind, wanted in (("seen", True), ("unseen", False)):
        named = [(one.gap > margin) == wanted for one in rivals]
        if sum(map(np.sum, named)):
            factors[kind] = calibration.fit_factor(_losses(experiment, trials, named, margin))
    return {
        "margin": margin, "seen": float(seen), "unseen": float(unseen), "harmonic": reached,
        "ausuc": float(np.mean([gzsl.curve(one).ausuc for one in rivals])), "folds": len(trials),
        "species": [int((~trial.seen).sum()) for trial in trials], "factors": factors,
    }  # fmt: skip


def _losses(
    experiment: Experiment, trials: list[Trial], named: list[np.ndarray], margin: float
) -> Callable[[float], ranking.Likelihoods]:
    """Likelihoods of the photos of all trials that `named` tells, at a factor."""

    def at(factor: float) -> ranking.Likelihoods:
        parts = [
            ranking.likelihoods(
                trial.photos[mask], trial.labels[mask], trial.classes, experiment.mesh, factor=factor,
                less=margin * trial.seen,
            )
            for trial, mask in zip(trials, named, strict=True)
            if mask.any()
        ]  # fmt: skip
        return ranking.Likelihoods(*(np.concatenate([getattr(part, name) for part in parts])
                                     for name in ("confidence", "loss", "slope")))  # fmt: skip

    return at


def _rivals(experiment: Experiment, trial: Trial) -> gzsl.Rivals:
    return ranking.all_rivals(trial.photos, trial.labels, trial.classes, trial.seen, experiment.mesh)


def _write(path: pathlib.Path, trial: Trial) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.savez(file, **trial._asdict())


def _of_all_hosts(rows: np.ndarray) -> np.ndarray:
    """Rows of every host, of which each may have another number."""
    counts = from_all_hosts(np.array(len(rows)))
    padded = np.concatenate([rows, np.zeros((int(counts.max()) - len(rows), *rows.shape[1:]), rows.dtype)])
    return np.concatenate([part[:n] for part, n in zip(from_all_hosts(padded), counts.tolist(), strict=True)])
