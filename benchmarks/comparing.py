"""Figures of a benchmark's JSON beside those of another: which may be compared, and which are the same."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.declared import (
    ACCURACY,
    BY_THE_CLOCK,
    CPU_TIME,
    ERROR,
    MACHINE_BOUND,
    MEMORY,
    RATE,
    TIME,
    Benchmark,
    Figure,
)  # fmt: skip

MACHINE = ("processor", "cores", "devices", "device_count")
"""Of `benchmarks.machine.facts`, what makes a machine another one."""

SLOWER = {TIME: 1.5, RATE: 1.5, CPU_TIME: 1.5, MEMORY: 1.2}
"""How many times as much is still the same: a machine with other work on it takes longer, but hardly more memory."""
POINT = 0.01  # of accuracy: another version of a library rounds otherwise, and a photo or two change sides
ROUNDING, NOTHING = 4.0, 1e-5  # times as much of an error, and what is next to nothing

SAME, BETTER, WORSE, BUSY, OTHER_MACHINE, OTHER_SETTINGS, NEW = (
    "same", "better", "differs", "busy machine", "another machine", "other settings", "not committed",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Compared:
    """A figure now and as committed.

    Attributes:
        figure: Its path, every ``*`` filled in.
        kind: As of `benchmarks.declared.Figure`.
        then: As committed, None where it is not there.
        now: As measured.
        ratio: Now by then; None where they must not be compared, or cannot.
        verdict: `SAME`, `BETTER`, `WORSE`, `BUSY` for worse by the clock on a busy machine, or why nothing is compared.
    """

    figure: str
    kind: str
    then: float | None
    now: float
    ratio: float | None
    verdict: str


def values(content: Any, path: str) -> dict[str, float]:
    """The numbers at a path by their own paths; booleans count as 0 and 1, and what is no number is left out.

    An entry of a list is called by its first value where that is a text or a whole number, else by its place.
    """
    found = dict(_walk(content, path.split("."), ()))
    return {".".join(where): float(value) for where, value in found.items() if isinstance(value, int | float)}


def _walk(content: Any, keys: Sequence[str], where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not keys:
        yield where, content
    elif keys[0] == "*":
        for name, inner in _entries(content):
            yield from _walk(inner, keys[1:], (*where, name))
    elif isinstance(content, Mapping) and keys[0] in content:
        yield from _walk(content[keys[0]], keys[1:], (*where, keys[0]))


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        yield from content.items()
    elif isinstance(content, list):
        names = [next(iter(one.values()), None) if isinstance(one, Mapping) else None for one in content]
        clear = all(isinstance(name, str | int) for name in names) and len(set(names)) == len(names)
        yield from zip(map(str, names if clear else range(len(names))), content, strict=True)


def same_machine(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """Whether two results, by their facts, are of machines of one kind; a result that does not say is of another."""
    facts = [one.get("machine", {}) for one in (now, then)]
    return all(name in fact for fact in facts for name in MACHINE) and all(
        facts[0][name] == facts[1][name] for name in MACHINE
    )


def same_settings(now: Mapping[str, Any], then: Mapping[str, Any], settings: Sequence[str]) -> bool:
    """Whether what decides the figures is the same in two results."""
    return all(_at(now, path) == _at(then, path) for path in settings)


def _at(content: Any, path: str) -> Any:
    return next((value for _, value in _walk(content, path.split("."), ())), None)


def compared(
    benchmark: Benchmark, now: Mapping[str, Any], then: Mapping[str, Any] | None, *, busy: bool = False
) -> list[Compared]:
    """Every declared figure of a result beside the committed one; None: there is none.

    Times, rates and memory are never compared between machines; accuracy and errors are. On a machine that is `busy`
    with something else nothing by the clock is called worse.
    """
    rows = []
    for figure in benchmark.figures:
        before = values(then or {}, figure.path)
        for name, value in values(now, figure.path).items():
            why_not = _why_not(figure, benchmark, now, then) if name in before else NEW
            known = before.get(name)
            if why_not or known is None:
                rows.append(Compared(name, figure.kind, known, value, None, why_not))
            else:
                ratio = value / known if known else None
                said = verdict(figure.kind, known, value)
                said = BUSY if busy and said == WORSE and figure.kind in BY_THE_CLOCK else said
                rows.append(Compared(name, figure.kind, known, value, ratio, said))
    return rows


def _why_not(figure: Figure, benchmark: Benchmark, now: Mapping[str, Any], then: Mapping[str, Any] | None) -> str:
    if then is None:
        return NEW
    if figure.kind in MACHINE_BOUND and not same_machine(now, then):
        return OTHER_MACHINE
    anyway = figure.always or figure.kind == ERROR
    return "" if anyway or same_settings(now, then, benchmark.settings) else OTHER_SETTINGS


def verdict(kind: str, then: float, now: float) -> str:
    """`SAME`, `BETTER` or `WORSE` of two figures that may be compared; accuracy that rose differs as well."""
    if kind == ACCURACY:
        return SAME if abs(now - then) <= POINT else WORSE
    if kind == ERROR:
        return SAME if now <= max(ROUNDING * then, NOTHING) else WORSE
    more, less = (then, now) if kind == RATE else (now, then)
    limit = SLOWER[kind]
    if more > limit * less:
        return WORSE
    return BETTER if less > limit * more else SAME
