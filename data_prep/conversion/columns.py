"""Which columns of a class table to caption with: the choice that tells the classes apart best."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, combinations

import numpy as np

from lit_jax.errors import UserError
from lit_jax.text.captions import OMIT, caption, value_of
from lit_jax.text.classes import ClassTable

NOT_METADATA = ("id", "folder", "image_dir_name", "label", "file", "split")
"""Columns that say where a class is kept, not what it is; `select_columns` passes them over by default."""

EXHAUSTIVE = 12
"""Up to this many free columns `select_columns` tries every subset, 4095 of them."""

Tokenize = Callable[[str], Sequence[Hashable]]


def words(text: str) -> list[str]:
    """The default tokens: lower-cased words between white space."""
    return text.lower().split()


@dataclass(frozen=True)
class Statistics:
    """How well a set of captions tells its classes apart.

    Two captions are the same if their tokens are: the text tower sees no more than those.

    Attributes:
        count: captions, N.
        distinct: different captions, at most N.
        duplicates: each caption that several classes share (its first spelling), and their ids.
        distance: mean over all pairs of captions of the number of tokens that one has and the other has not
            (size of the symmetric difference of the two token sets).
        min_tokens: tokens of the shortest caption.
        mean_tokens: mean tokens a caption.
        max_tokens: tokens of the longest caption.
    """

    count: int
    distinct: int
    duplicates: Mapping[str, tuple[int, ...]]
    distance: float
    min_tokens: int
    mean_tokens: float
    max_tokens: int


def describe(captions: Sequence[str], ids: Sequence[int], *, tokenize: Tokenize = words) -> Statistics:
    """Statistics of N captions.

    The mean distance is exact and takes no pairs: a token that is in df of the N captions differs between
    df (N - df) of the pairs, so the mean is the sum of df (N - df) over all tokens, divided by N (N - 1) / 2.

    Args:
        captions: N texts.
        ids: their N class ids.
        tokenize: a text to its tokens, without any that the tokenizer adds at the start or end.

    Raises:
        UserError: there are no captions.
        ValueError: the two lengths differ.

    Example:
        >>> facts = describe(["a red kite", "a red fox", "a wren"], [0, 1, 2])
        >>> facts.distinct, facts.distance, facts.max_tokens
        (3, 2.6666666666666665, 3)
    """
    if not captions:
        raise UserError("captions: found none, expected at least one; give a class table with rows")
    groups: dict[tuple[Hashable, ...], list[int]] = {}
    spelling: dict[tuple[Hashable, ...], str] = {}
    frequency: Counter[Hashable] = Counter()
    counts = []
    for text, class_id in zip(captions, ids, strict=True):
        tokens = tuple(tokenize(text))
        groups.setdefault(tokens, []).append(class_id)
        spelling.setdefault(tokens, text)
        frequency.update(set(tokens))
        counts.append(len(tokens))
    n = len(counts)
    return Statistics(
        count=n,
        distinct=len(groups),
        duplicates={spelling[t]: tuple(members) for t, members in groups.items() if len(members) > 1},
        distance=_mean_over_pairs(sum(df * (n - df) for df in frequency.values()), n),
        min_tokens=min(counts),
        mean_tokens=sum(counts) / n,
        max_tokens=max(counts),
    )


def _mean_over_pairs(total: int, n: int) -> float:
    return total / (n * (n - 1) // 2) if n > 1 else 0.0


@dataclass(frozen=True)
class ColumnFacts:
    """What one candidate column gives by itself, and what became of it.

    Attributes:
        column: its name.
        distinct: different values among the classes (by their tokens).
        distance: mean pairwise distance of captions made of this column alone.
        mean_tokens: mean tokens a value.
        verdict: `chosen`, or why not.
    """

    column: str
    distinct: int
    distance: float
    mean_tokens: float
    verdict: str


@dataclass(frozen=True)
class Selection(Statistics):
    """The columns that `select_columns` chose, with the statistics of the captions they make.

    Attributes:
        columns: the chosen columns, in the order of the table.
        template: the caption template made of them.
        budget: the greatest number of tokens allowed.
        search: one line on how the choice was found.
        candidates: facts of every candidate column, in the order of the table.
    """

    columns: tuple[str, ...]
    template: str
    budget: int
    search: str
    candidates: tuple[ColumnFacts, ...]


def select_columns(
    table: ClassTable,
    *,
    columns: Sequence[str] | None = None,
    budget: int,
    tokenize: Tokenize = words,
    prefix: str = "A photo of a",
    must: Sequence[str] = (),
    omit: Collection[str] = OMIT,
) -> Selection:
    """Chooses the metadata columns whose captions tell the classes apart best within a token budget.

    The paper's general method: aggregate metadata, take the subset of columns that maximises the differences
    between classes, and caption with "A photo of a { CONCAT_METADATA }". It leaves the measure open; here a
    subset is better that has, in this order, (1) more distinct captions, (2) a greater mean pairwise
    distance, as `describe` defines and computes it, in whole hundredths of a token, (3) fewer tokens in all,
    (4) fewer and then earlier columns. The hundredths keep out a column that repeats another in all but a few classes.
    Only subsets whose longest caption has at most `budget` tokens, prefix included, are considered. Values
    stand in the caption in the order of the table's columns.

    Up to `EXHAUSTIVE` free columns every subset is considered, and the result is the best there is. Beyond,
    the best column is added one at a time as long as that helps, and `Selection.search` says so.

    Args:
        table: K classes.
        columns: the candidates; by default every column that is not in `NOT_METADATA`.
        budget: tokens, at least 1. Leave room for an end token yourself.
        tokenize: a text to its tokens. A caption is taken to have the tokens of its prefix and values one
            after the other, which holds if no token spans a space: words, CLIP's and SentencePiece's default.
        prefix: text before the values.
        must: columns that have to be in the subset.
        omit: values left out, as in `caption`; give the same there.

    Raises:
        UserError: the table has no rows or lacks a column, no candidate is left, more than 62 are, no subset
            fits the budget, or `tokenize` has tokens that span a space and the longest caption is too long.
    """
    names = candidates(table, columns, must)
    problem = _Problem.of([table.columns[name] for name in names], tokenize, prefix, budget, omit)
    fixed = frozenset(names.index(name) for name in must)
    free = [i for i in range(len(names)) if i not in fixed]
    if len(free) <= EXHAUSTIVE:
        chosen, tried = _exhaustive(problem, fixed, free)
        search = f"every subset of {len(free)} free columns considered, {tried} within the budget"
    else:
        chosen = _greedy(problem, fixed, free)
        search = f"greedy, for {len(free)} free columns are more than {EXHAUSTIVE}: the best added one at a time"
    if not chosen:
        raise UserError(_over_budget(problem, names, fixed))
    braced = " ".join(f"{{{names[i]}}}" for i in chosen)
    template = f"{prefix.replace('{', '{{').replace('}', '}}')} {braced}".strip()
    texts = [caption(row, template, omit=omit) for row in table.rows()]
    statistics = describe(texts, table.ids, tokenize=tokenize)
    if statistics.max_tokens > budget:
        raise UserError(
            f"tokenize: found {statistics.max_tokens} tokens in a caption of parts with {budget} or fewer, "
            "expected tokens that do not span spaces; give a tokenizer that splits at them"
        )
    return Selection(
        **vars(statistics),
        columns=tuple(names[i] for i in chosen),
        template=template,
        budget=budget,
        search=search,
        candidates=tuple(_facts(problem, names[i], i, chosen) for i in range(len(names))),
    )


def report(selection: Selection) -> str:
    """A selection as text for people: what was chosen, how well it does, and why the rest was left out."""
    width = max(len("column"), *(len(facts.column) for facts in selection.candidates))
    lines = [
        f"template  {selection.template}",
        f"search    {selection.search}",
        *statistics_lines(selection, budget=selection.budget),
        "",
        f"{'column':{width}}  {'distinct':>8}  {'distance':>8}  {'tokens':>6}  verdict",
    ]
    lines += [
        f"{f.column:{width}}  {f.distinct:>8}  {f.distance:>8.2f}  {f.mean_tokens:>6.2f}  {f.verdict}"
        for f in selection.candidates
    ]
    return "\n".join(lines)


def statistics_lines(statistics: Statistics, *, budget: int | None = None) -> list[str]:
    """Statistics of captions as lines for people, with the first few shared captions."""
    limit = "" if budget is None else f", budget {budget}"
    shared = [
        f"  {text!r}: ids {', '.join(map(str, ids[:8]))}{', ...' if len(ids) > 8 else ''}"
        for text, ids in statistics.duplicates.items()
    ]
    more = len(shared) - 5
    return [
        f"distinct  {statistics.distinct} of {statistics.count} captions",
        *shared[:5],
        *([f"  and {more} more captions that several classes share"] if more > 0 else []),
        f"distance  {statistics.distance:.2f} tokens differ between two captions in the mean",
        f"tokens    {statistics.min_tokens} to {statistics.max_tokens}, mean {statistics.mean_tokens:.2f}{limit}",
    ]


def candidates(table: ClassTable, columns: Sequence[str] | None, must: Sequence[str] = ()) -> list[str]:
    """The names of the candidate columns, those of `must` among them, in the order of the table."""
    if not len(table):
        raise UserError("class table: found no rows, expected at least one; give a table with classes")
    wanted = [c for c in table.columns if c not in NOT_METADATA] if columns is None else list(columns)
    for column in (*wanted, *must):
        value_of(dict.fromkeys(table.columns, ""), column, "columns")
    names = [c for c in table.columns if c in {*wanted, *must}]
    if not 1 <= len(names) <= 62:
        raise UserError(f"columns: found {len(names)} candidates, expected 1 to 62; name them with columns")
    return names


def _over_budget(problem: "_Problem", names: Sequence[str], fixed: Collection[int]) -> str:
    options = [tuple(sorted(fixed))] if fixed else [(i,) for i in range(len(names))]
    least = min(options, key=problem.longest)
    needed = ", ".join(names[i] for i in least)
    return (
        f"budget: found {problem.budget} tokens, expected at least {problem.longest(least)} for the prefix "
        f"and {needed}; raise the budget or name other columns"
    )


Subset = tuple[int, ...]
Key = tuple[int, int, int, Subset]  # distinct, hundredths of distance, -tokens, order: greater is better


@dataclass(frozen=True)
class _Problem:
    """The tokens of all values, interned once, in the forms in which a subset is judged fast.

    Attributes:
        values: C columns of K token tuples, empty where the value is left out.
        lengths: `[C, K]` int32, tokens of each value.
        prefix_length: tokens of the prefix.
        token, mask, count: `[E]` int64 each. `count` captions have the number `token` in exactly the columns
            whose bits `mask` has: their union over a subset needs only these, not the rows again.
        budget: tokens.
    """

    values: tuple[tuple[Subset, ...], ...]
    lengths: np.ndarray
    prefix_length: int
    token: np.ndarray
    mask: np.ndarray
    count: np.ndarray
    budget: int

    @classmethod
    def of(
        cls,
        columns: Sequence[Sequence[str]],
        tokenize: Tokenize,
        prefix: str,
        budget: int,
        omit: Collection[str],
    ) -> "_Problem":
        numbers: dict[Hashable, int] = {}

        @cache
        def interned(text: str) -> Subset:
            return tuple(numbers.setdefault(token, len(numbers)) for token in tokenize(text))

        prefix_tokens = interned(" ".join(prefix.split())) if prefix.strip() else ()
        values = tuple(
            tuple(interned(v) if v and v not in omit else () for v in (" ".join(v.split()) for v in column))
            for column in columns
        )
        where: Counter[tuple[int, int]] = Counter()
        for row in zip(*values, strict=True):
            # A token of the prefix is in every caption and never makes a difference.
            bits = dict.fromkeys(chain.from_iterable(row), 0)
            for column, tokens in enumerate(row):
                for token in tokens:
                    bits[token] |= 1 << column
            where.update((token, mask) for token, mask in bits.items() if token not in prefix_tokens)
        entries = np.array([(*pair, n) for pair, n in where.items()], np.int64).reshape(-1, 3)
        lengths = np.array([[len(tokens) for tokens in column] for column in values], np.int32)
        token, mask, count = entries.T
        return cls(values, lengths, len(prefix_tokens), token, mask, count, budget)

    @cached_property
    def most_distinct(self) -> int:
        """Distinct rows of all columns: no subset has more distinct captions."""
        return len(set(zip(*self.values, strict=True)))

    @cached_property
    def distinct_values(self) -> tuple[int, ...]:
        return tuple(len(set(column)) for column in self.values)

    def longest(self, subset: Subset) -> int:
        return self.prefix_length + int(self.lengths[list(subset)].sum(axis=0).max())

    def distance(self, subset: Subset) -> int:
        """Sum over all pairs of captions of the tokens that differ."""
        here = (self.mask & sum(1 << i for i in subset)) != 0
        if not here.any():
            return 0
        frequency = np.bincount(self.token[here], weights=self.count[here]).astype(np.int64)
        return int((frequency * (self.lengths.shape[1] - frequency)).sum())

    def hundredths(self, subset: Subset) -> int:
        """The mean distance in whole hundredths of a token, rounded down, in exact integers."""
        n = self.lengths.shape[1]
        return 100 * self.distance(subset) // max(n * (n - 1) // 2, 1)

    def distinct(self, subset: Subset) -> int:
        rows = zip(*(self.values[i] for i in subset), strict=True)
        return len({tuple(chain.from_iterable(row)) for row in rows})

    def bound(self, subset: Subset) -> Key:
        """At least `key(subset)`, without a look at the rows."""
        distinct = min(self.most_distinct, math.prod(self.distinct_values[i] for i in subset))
        tokens = int(self.lengths[list(subset)].sum())
        return distinct, self.hundredths(subset), -tokens, (-len(subset), *(-i for i in subset))

    def key(self, subset: Subset) -> Key:
        return self.distinct(subset), *self.bound(subset)[1:]


def _exhaustive(problem: _Problem, fixed: Collection[int], free: Sequence[int]) -> tuple[Subset, int]:
    """The best of all subsets within the budget and their number; () and 0 if there is none."""
    subsets = [
        tuple(sorted((*fixed, *extra)))
        for size in range(len(free) + 1)
        for extra in combinations(free, size)
        if size or fixed
    ]
    bounds = sorted(((problem.bound(s), s) for s in subsets if problem.longest(s) <= problem.budget), reverse=True)
    best: tuple[Key, Subset] | None = None
    for bound, subset in bounds:
        # The rest cannot be better than its bounds, which only fall from here on.
        if best and bound <= best[0]:
            break
        candidate = problem.key(subset), subset
        best = max(best, candidate) if best else candidate
    return (best[1] if best else ()), len(bounds)


def _greedy(problem: _Problem, fixed: Collection[int], free: Sequence[int]) -> Subset:
    """Adds the best column as long as the captions get better; () if nothing is within the budget."""
    chosen = tuple(sorted(fixed))
    if chosen and problem.longest(chosen) > problem.budget:
        return ()
    best = problem.key(chosen) if chosen else None
    while True:
        larger = [tuple(sorted((*chosen, i))) for i in free if i not in chosen]
        keys = [(problem.key(s), s) for s in larger if problem.longest(s) <= problem.budget]
        if not keys or (best and max(keys)[0] <= best):
            return chosen
        best, chosen = max(keys)


def _facts(problem: _Problem, name: str, i: int, chosen: Subset) -> ColumnFacts:
    return ColumnFacts(
        column=name,
        distinct=problem.distinct((i,)),
        distance=_mean_over_pairs(problem.distance((i,)), problem.lengths.shape[1]),
        mean_tokens=float(problem.lengths[i].mean()),
        verdict="chosen" if i in chosen else _left_out(problem, i, chosen),
    )


def _left_out(problem: _Problem, i: int, chosen: Subset) -> str:
    larger = tuple(sorted((*chosen, i)))
    if problem.longest(larger) > problem.budget:
        return f"left out: would make {problem.longest(larger)} tokens"
    if problem.hundredths(larger) == problem.hundredths(chosen):
        return "left out: adds no difference"
    return "left out: makes captions more alike"
