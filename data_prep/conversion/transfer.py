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


class Path(NamedTuple):
    """The best column added one at a time.

    Attributes:
        steps: with one column, two, and so on, up to all candidates.
        taken: how many columns are worth it.
    """

    steps: Sequence[Judged]
    taken: int

    @property
    def chosen(self) -> Judged:
        """With the columns that are worth it."""
        return self.steps[self.taken - 1]


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
        path: by the kind of units that does best.
        chosen: of that path, perhaps read by several kinds.
        alone: each candidate by itself, by the kind of units that it does best by.
        without: all candidates but one, read as the path is.
        constant: columns that say the same of all classes.
    """

    path: Path
    chosen: Judged
    alone: Sequence[Judged]
    without: Sequence[Judged]
    constant: Sequence[str]

    @property
    def template(self) -> str:
        """The caption template of the chosen columns."""
        return template_of(self.chosen.columns)

    @property
    def units(self) -> str:
        """The chosen reading as the option ``text.units`` has it."""
        return ",".join(self.chosen.reading)


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
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    folds: list[Products] = []
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
    named = min(PER_CLASS, max(5, NAMED // len(species)))
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


def climb(task: Task, columns: Sequence[str], reading: Reading) -> Path:
    """Adds the best column one at a time, and says how many are worth it: none, if none is better than a guess.

    Columns are worth it as long as the next of the path, alone or together with any number of those after it, gains
    more than `beyond_chance`. So two columns that help together are found where the first of them seems to gain little,
    and a long row of small gains counts as what it adds up to.
    """
    steps: list[Judged] = []
    while left := [column for column in columns if not steps or column not in steps[-1].columns]:
        before = steps[-1].columns if steps else ()
        steps.append(max((task.judge((*before, column), reading) for column in left), key=lambda one: one.top1))
    taken = 0
    for number in range(len(steps)):
        rates = steps[number - 1].rates if number else task.guessing
        if not any(_is_gain(later.rates - rates, len(steps) - number) for later in steps[number:]):
            break
        taken = number + 1
    return Path(steps, taken)


def _is_gain(gain: np.ndarray, tried: int) -> bool:
    return float(gain.mean()) > beyond_chance(gain, tried)


def choose(task: Task, columns: Sequence[str], *, tell: Callable[[str], None] = lambda _: None) -> Transfer:
    """Chooses columns, and by which units their captions are read.

    Columns are added for each kind of units by itself, and the best of these paths is taken. Its caption is read by
    several kinds together only where the gain of that, too, is `beyond_chance`.

    Args:
        task: of the store.
        columns: the candidates.
        tell: hears of progress.

    Raises:
        UserError: all candidates say the same of all classes, or none does better than a guess.
    """
    useful = [column for column in columns if len(_values(task, column)) > 1]
    if not useful:
        raise UserError(
            f"columns: found {len(columns)} ({some(list(columns))}), all of them with one value for all classes in "
            "training, expected one that tells classes apart; add columns to the class table"
        )
    paths = []
    for kind in KINDS:
        paths.append(climb(task, useful, (kind,)))
        tell(f"read by {kind}: {_share(paths[-1])}")
    if not any(path.taken for path in paths):
        raise UserError(
            "columns: found none by which species held out inside training are named better than by a guess, expected "
            "one; fill in ranks with data_prep.ranks, or use --select distinct"
        )
    path = max((path for path in paths if path.taken), key=lambda path: path.chosen.top1)
    chosen = path.chosen
    several = [task.judge(chosen.columns, reading) for reading in READINGS if len(reading) > 1]
    better = [one for one in several if _is_gain(one.rates - chosen.rates, len(several))]
    reading = chosen.reading
    alone = [max((task.judge((column,), (kind,)) for kind in KINDS), key=lambda one: one.top1) for column in useful]
    others = [[column for column in useful if column != left] for left in useful] if len(useful) > 1 else []
    without = [task.judge(rest, reading) for rest in others]
    constant = [column for column in columns if column not in useful]
    return Transfer(path, max([chosen, *better], key=lambda one: one.top1), alone, without, constant)


def _values(task: Task, column: str) -> set[str]:
    """The values of a column, absent ones as the empty text."""
    found = set(task.table.columns[column])
    return {"" if value in task.omit or is_placeholder(value) else value for value in found}


def _share(path: Path) -> str:
    if not path.taken:
        return "no column is better than a guess"
    return f"{100 * path.chosen.top1:.1f} % by {', '.join(path.chosen.columns)}"


def report(task: Task, chosen: Transfer) -> str:
    """A choice as text for people."""
    guess = 100 * float(task.guessing.mean())
    path, kind = chosen.path, chosen.path.steps[0].reading[0]
    head = [
        f"{len(task.table)} species of training, held out in turn; a guess names {guess:.1f} % of their photos rightly",
        *task.notes,
    ]
    without = [f"{100 * one.top1:.1f} %" for one in chosen.without] or ["" for _ in chosen.alone]
    brings = [
        [one.columns[0], f"{100 * one.top1:.1f} %", one.reading[0], rest]
        for one, rest in zip(chosen.alone, without, strict=True)
    ]
    brings += [[column, "says the same of all", "", ""] for column in chosen.constant]
    order = [
        [number, step.columns[-1], f"{100 * step.top1:.1f} %", f"{task.margin(step)[1]:.3f}",
         "taken" if number <= path.taken else "within chance"]
        for number, step in enumerate(path.steps, 1)
    ]  # fmt: skip
    if chosen.chosen.reading != path.steps[0].reading:
        both = " and ".join(chosen.chosen.reading)
        order.append(
            ["", f"by {both}", f"{100 * chosen.chosen.top1:.1f} %", f"{task.margin(chosen.chosen)[1]:.3f}", "taken"]
        )
    return "\n".join([
        *head,
        text_table(["column", "alone", "best read by", f"all but it, by {kind}"], brings, left=(0, 2)),
        text_table(["added", f"read by {kind}", "ZSL inside", "H inside", ""], order, left=(1, 4)),
        f'--template "{chosen.template}" and, where the text tower reads units, config.text.units = "{chosen.units}"',
    ])  # fmt: skip
