"""Which columns of a class table carry over to species without a photo, found out inside the training split.

Species of training are held out in turn and named from their words by what the others taught, in the closed form of
`lit_jax.evaluation.closed_form` with photos as they are. Only photos of the training split are read.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import sparse, stats

from lit_jax.base.console import text_table
from lit_jax.data.embedding_store import Rows, Store
from lit_jax.errors import UserError
from lit_jax.evaluation import closed_form
from lit_jax.evaluation.closed_form import FOLDS, PER_CLASS, Photos, Products
from lit_jax.evaluation.gzsl import best_margin
from lit_jax.evaluation.yardstick import sets_of
from lit_jax.text.captions import OMIT, caption
from lit_jax.text.classes import ClassTable, some
from lit_jax.text.identity import is_placeholder
from lit_jax.text.units import KINDS

MOST_CLASSES = 1000
"""Of a store with more classes so many are drawn: time and memory grow with the cube and the square of them."""
NAMED = 10_000
"""Photos of held-out classes that are named, about; five of each class at the least."""
FEW, DRAWS = 300, 3  # with so few classes the parts are drawn several times, lest one partition decide
PENALTIES = (0.1, 0.3, 1.0)
READINGS = tuple(kinds for number in (1, 2, 3) for kinds in itertools.combinations(KINDS, number))
"""How a text may be read: by one kind of units, or several of equal weight; see ``text.units``."""

Reading = tuple[str, ...]


class Judged(NamedTuple):
    """What a caption of some columns gives.

    Attributes:
        columns: in the order in which they were taken.
        reading: kinds of units that the caption is read by.
        penalty: of the ridge, that does best.
        rates: `[K]` float64, share of each class's photos that are named rightly while it is held out.
    """

    columns: tuple[str, ...]
    reading: Reading
    penalty: float
    rates: np.ndarray

    @property
    def top1(self) -> float:
        """Mean over classes."""
        return float(self.rates.mean())


class Step(NamedTuple):
    """A column that was added, or would be next.

    Attributes:
        judged: with that column.
        gain: mean over classes of what it adds.
        chance: what the best of as many columns of no worth would seem to add, see `beyond_chance`.
    """

    judged: Judged
    gain: float
    chance: float


@dataclass(frozen=True)
class Task:
    """Inner hold-outs of a store, ready to judge columns.

    Attributes:
        table: K classes of training, one row a species.
        folds: of every draw.
        omit: values that captions leave out.
        notes: what was left out, in lines for people.
    """

    table: ClassTable
    folds: Sequence[Products]
    omit: Collection[str] = OMIT
    notes: Sequence[str] = ()
    _judged: dict[tuple[tuple[str, ...], Reading], Judged] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def guessing(self) -> np.ndarray:
        """`[K]`: rates of a guess among the classes that are held out together."""
        return self._rates([(np.full(len(one.heldout), 1 / len(one.heldout)), one.heldout) for one in self.folds])

    def judge(self, columns: Sequence[str], reading: Reading) -> Judged:
        """Accuracy of classes held out in turn, named from captions of these columns."""
        key = (tuple(column for column in self.table.columns if column in columns), reading)
        if key not in self._judged:
            kernel = self.kernel(columns, reading)
            rates = {p: self._rates([one.right(kernel, p) for one in self.folds]) for p in PENALTIES}
            best = max(PENALTIES, key=lambda penalty: (rates[penalty].mean(), penalty))
            self._judged[key] = Judged(tuple(columns), reading, best, rates[best])
        return self._judged[key]._replace(columns=tuple(columns))

    def margin(self, judged: Judged) -> tuple[float, float]:
        """The margin with the best harmonic mean of seen and unseen accuracy over the hold-outs, and that mean."""
        kernel = self.kernel(judged.columns, judged.reading)
        return best_margin([one.rivals(kernel, judged.penalty) for one in self.folds])

    def kernel(self, columns: Sequence[str], reading: Reading) -> np.ndarray:
        """`[K, K]` float64: mean over kinds of units of the cosines of the captions' sets."""
        template = template_of([column for column in self.table.columns if column in columns])
        texts = [caption(row, template, omit=self.omit) for row in self.table.rows()]
        sets = [sparse.csr_matrix(sets_of(texts, kind)) for kind in reading]
        return np.asarray(sum(((one @ one.T).toarray() for one in sets), np.zeros((1, 1))) / len(sets))

    def _rates(self, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        right, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
        number = np.bincount(labels, minlength=len(self.table))
        return np.bincount(labels, weights=right, minlength=len(self.table)) / np.maximum(number, 1)


@dataclass(frozen=True)
class Transfer:
    """What was chosen, and what each column brings.

    Attributes:
        steps: the columns in the order in which they were added.
        refused: the column that would have been next; None where none is left.
        alone: each candidate by itself, by the kind of units that it does best by.
        without: all candidates but one, read as the chosen ones are.
        every: all candidates, likewise.
        constant: columns that say the same of all classes.
    """

    steps: Sequence[Step]
    refused: Step | None
    alone: Sequence[Judged]
    without: Sequence[Judged]
    every: Judged
    constant: Sequence[str]

    @property
    def template(self) -> str:
        """The caption template of the chosen columns."""
        return template_of(self.steps[-1].judged.columns)

    @property
    def units(self) -> str:
        """The chosen reading as the option ``text.units`` has it."""
        return ",".join(self.steps[-1].judged.reading)


def template_of(columns: Sequence[str]) -> str:
    """Fields with commas between them, at which whole phrases are told apart."""
    return ", ".join(f"{{{column}}}" for column in columns)


def task_of(
    store: Store, table: ClassTable, split: str, *, seed: int = 0, omit: Collection[str] = OMIT,
    tell: Callable[[str], None] = lambda _: None,
) -> Task:  # fmt: skip
    """Reads photos of the training split, `PER_CLASS` of a class at the most, and makes the inner hold-outs.

    Args:
        store: of the features.
        table: with a row for each class that has photos in the split.
        split: to learn from.
        seed: of all draws.
        omit: values that captions leave out.
        tell: hears of progress.

    Raises:
        UserError: classes that the table lacks, or fewer than ten of them.
    """
    rows = Rows(store, split)
    present = store.classes_in(split)
    missing = sorted(set(present) - set(table.ids))
    if missing:
        raise UserError(
            f"--classes: found no row for {len(missing)} of {len(present)} classes with photos in {split} (id "
            f"{missing[0]}), expected one each; give the table that the store was made with"
        )
    species = np.array(sorted({table.species_of[class_id] for class_id in present}))
    if not closed_form.enough(len(species)):
        raise UserError(
            f"--store {store.directory}: found {len(species)} species with photos in {split}, expected {2 * FOLDS} or "
            "more to hold some out in turn; bring more, or use --select distinct"
        )
    rng, notes = np.random.default_rng(seed), []
    if len(species) > MOST_CLASSES:
        notes.append(
            f"{MOST_CLASSES:,} of {len(species):,} classes are drawn (seed {seed}): they have fewer relatives "
            "there than among all, so that low ranks count for less"
        )
        species = np.sort(rng.choice(species, MOST_CLASSES, replace=False))
    species_of_class = np.vectorize(table.species_of.__getitem__, otypes=[np.int64])(rows.class_ids)
    wanted = np.isin(species_of_class, species)
    taken = closed_form.some_of_each(species_of_class, wanted, rng)
    if len(taken) < int(wanted.sum()):
        notes.append(f"{PER_CLASS} photos a class at the most: {len(taken):,} of {int(wanted.sum()):,}")
    photos = Photos(rows.take(taken), np.searchsorted(species, species_of_class[taken]))
    named, folds = min(PER_CLASS, max(5, NAMED // len(species))), []
    for draw in range(DRAWS if len(species) <= FEW else 1):
        folds += closed_form.products(photos, seed=seed + draw, named=named)
        tell(f"inner hold-outs, draw {draw + 1}")
    return Task(table.subset(species.tolist()), folds, omit, notes)


def beyond_chance(gain: np.ndarray, tried: int) -> float:
    """What a gain must pass to count: what the best of several columns of no worth would seem to gain.

    The gain of a column is a mean over classes, and other classes would give another: its standard error is that of
    the paired differences, `[K]` of them. Of one column of no worth a gain of one standard error is nothing odd; the
    best of n seems to gain the expected greatest of n normal deviates, 1.5 standard errors of ten (Blom 1958). So the
    limit is that many standard errors, and never less than one. It is no test at a level of 5 %, which would ask for
    2.6 of ten: with a hundred classes that leaves out columns that help, and one of no worth does little harm.

    Args:
        gain: `[K]`, by class.
        tried: n.
    """
    greatest = float(stats.norm.ppf((tried - 0.375) / (tried + 0.25)))
    return max(1.0, greatest) * float(gain.std(ddof=1)) / np.sqrt(len(gain))


def climb(task: Task, columns: Sequence[str], reading: Reading) -> tuple[list[Step], Step | None]:
    """Adds the best column one at a time as long as its gain is `beyond_chance`; also what would have been next."""
    steps: list[Step] = []
    taken: tuple[str, ...] = ()
    rates = task.guessing
    while left := [column for column in columns if column not in taken]:
        best = max((task.judge((*taken, column), reading) for column in left), key=lambda one: one.top1)
        step = Step(best, best.top1 - float(rates.mean()), beyond_chance(best.rates - rates, len(left)))
        if step.gain <= step.chance:
            return steps, step
        steps.append(step)
        taken, rates = best.columns, best.rates
    return steps, None


def choose(task: Task, columns: Sequence[str], *, tell: Callable[[str], None] = lambda _: None) -> Transfer:
    """Chooses columns, and by which units their captions are read.

    Columns are added for each reading by itself. Of the readings by one kind of units the best is taken, and one by
    several in its place only where its gain, too, is `beyond_chance`.

    Args:
        task: of the store.
        columns: the candidates.
        tell: hears of progress.

    Raises:
        UserError: all candidates say the same of all classes, or none does better than a guess.
    """
    values = {column: _values(task, column) for column in columns}
    useful = [column for column, found in values.items() if len(found) > 1]
    if not useful:
        raise UserError(
            f"columns: found {len(columns)} ({some(list(columns))}), all of them with one value for all classes in "
            "training, expected one that tells classes apart; add columns to the class table"
        )
    paths = {}
    for reading in READINGS:
        paths[reading] = climb(task, useful, reading)
        tell(f"read by {' and '.join(reading)}: {_share(paths[reading][0])}")
    steps, refused = _best_path([paths[reading] for reading in READINGS if paths[reading][0]])
    reading = steps[-1].judged.reading
    alone = [max((task.judge((column,), (kind,)) for kind in KINDS), key=lambda one: one.top1) for column in useful]
    others = [[column for column in useful if column != left] for left in useful] if len(useful) > 1 else []
    without = [task.judge(rest, reading) for rest in others]
    constant = [column for column in columns if column not in useful]
    return Transfer(steps, refused, alone, without, task.judge(useful, reading), constant)


def _values(task: Task, column: str) -> set[str]:
    """The values of a column, absent ones as the empty text."""
    found = set(task.table.columns[column])
    return {"" if value in task.omit or is_placeholder(value) else value for value in found}


def _best_path(paths: Sequence[tuple[list[Step], Step | None]]) -> tuple[list[Step], Step | None]:
    if not paths:
        raise UserError(
            "columns: found none by which species held out inside training are named better than by a guess, expected "
            "one; fill in ranks with data_prep.ranks, or use --select distinct"
        )
    last: Callable[[tuple[list[Step], Step | None]], Judged] = lambda path: path[0][-1].judged  # noqa: E731
    ordered = sorted(paths, key=lambda path: (len(last(path).reading), -last(path).top1))
    best = ordered[0]
    several = [path for path in ordered if len(last(path).reading) > len(last(best).reading)]
    for path in several:
        gain = last(path).rates - last(best).rates
        if gain.mean() > beyond_chance(gain, len(several)):
            best = path
    return best


def _share(steps: Sequence[Step]) -> str:
    return f"{100 * steps[-1].judged.top1:.1f} % by {', '.join(steps[-1].judged.columns)}" if steps else "no column"


def report(task: Task, chosen: Transfer) -> str:
    """A choice as text for people."""
    reading = " and ".join(chosen.steps[-1].judged.reading)
    guess = 100 * float(task.guessing.mean())
    head = [
        f"{len(task.table)} species of training, held out in turn; a guess names {guess:.1f} % of their photos rightly",
        *task.notes,
    ]
    columns = [one.columns[0] for one in chosen.alone]
    without = [f"{100 * one.top1:.1f} %" for one in chosen.without] or ["" for _ in columns]
    brings = [
        [column, f"{100 * one.top1:.1f} %", one.reading[0], rest]
        for column, one, rest in zip(columns, chosen.alone, without, strict=True)
    ]
    brings.append(["all of them", f"{100 * chosen.every.top1:.1f} %", reading, ""])
    brings += [[column, "says the same of all", "", ""] for column in chosen.constant]
    order = [
        [number, step.judged.columns[-1], f"{100 * step.judged.top1:.1f} %", f"{100 * step.gain:+.1f}",
         f"{100 * step.chance:.1f}", f"{task.margin(step.judged)[1]:.3f}"]
        for number, step in enumerate(chosen.steps, 1)
    ]  # fmt: skip
    last = chosen.refused
    if last is not None:
        order.append(["no", last.judged.columns[-1], f"{100 * last.judged.top1:.1f} %", f"{100 * last.gain:+.1f}",
                      f"{100 * last.chance:.1f}", f"{task.margin(last.judged)[1]:.3f}"])  # fmt: skip
    return "\n".join([
        *head,
        text_table(["column", "alone", "best read by", f"all but it, by {reading}"], brings, left=(0, 2)),
        text_table(["added", f"read by {reading}", "ZSL inside", "gain", "chance", "H inside"], order, left=(1,)),
        f'--template "{chosen.template}" and, where the text tower reads units, config.text.units = "{chosen.units}"',
    ])  # fmt: skip
