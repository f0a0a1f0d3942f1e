"""Converts photos and a class table to a record set.

Work is done in ``DIR.incomplete``, and the last step renames that folder. A conversion that was stopped, in
whatever way, goes on where it was when the same command is given again. Equal photos, class table and
options give equal shards and manifest, whatever the number of workers, stopped in between or not.

Kinds of sources are in `data_prep.sources.by_name`.

The command ends with exit code 0, with `LOST` if all photos of a species had to be left out, with 2 for what a person
can mend, and with that of the signal if it is stopped.
"""

import dataclasses
import gc
import hashlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.conversion.columns import Tokenize, words
from data_prep.conversion.options import Options, check_options, facts
from data_prep.conversion.plan import Plan, Planned, plan_photos, shard_photos
from data_prep.conversion.report import forecast, report_lines, report_of
from data_prep.conversion.shards import CLEANING, PROGRESS, Job, Outcome, Texts, finished, write_shards
from data_prep.conversion.texts import table_warnings, texts_of
from data_prep.conversion.workspace import (
    REPORT,
    REPORT_TEXT,
    disk_errors_in_one_line,
    is_up_to_date,
    move_into_place,
    prepare,
    refuse_foreign,
)
from data_prep.sources.archives import check
from data_prep.sources.items import TRAIN, Source
from lit_jax.base.console import say
from lit_jax.base.files import alone_in, incomplete, write_json
from lit_jax.base.folders import resolved
from lit_jax.base.processes import cores
from lit_jax.data.dataset_folder import MANIFEST
from lit_jax.data.records import (
    CLASS_TABLE,
    RANK_FIELDS,
    TOKENIZER,
    RecordSet,
    open_records,
    shard_name,
    write_metadata,
)
from lit_jax.errors import UserError, refuse_without_tensorflow
from lit_jax.text.captions import TEMPLATE, fields, fitted
from lit_jax.text.classes import ClassTable, write_class_table
from lit_jax.text.tokenizers import load_tokenizer, train_sentencepiece

_CONTEXT = 64  # tokens that a text tower reads, where neither option nor preset says otherwise


def convert(
    source: Source,
    out: str | Path,
    options: Options | None = None,
    *,
    workers: int = 0,
    restart: bool = False,
    write: Callable[..., list[Outcome]] | None = None,
) -> RecordSet:
    """Writes a record set, or goes on writing it, or finds that it is there already.

    A script that calls this with more than one worker must do so under ``if __name__ == "__main__":``,
    because each worker imports the script.

    Args:
        source: Photos and classes, as a reader returns them.
        out: The folder to make; ``out.incomplete`` is used in the meantime.
        options: What the set holds; by default `Options()`.
        workers: Number of processes; 0: one a core.
        restart: Replace what an earlier conversion left in these folders, finished or not. Files that no
            conversion wrote are never deleted.
        write: What writes the shards in place of `write_shards`, with the same arguments; for many machines.

    Returns:
        The record set, opened.

    Raises:
        UserError: a bad option; a folder of something else; an earlier conversion with other options or
            photos, without `restart`; another conversion at work in the folder; no photo that can be used, or to
            train on; an archive with another MD5; a full disk; and all that `plan_photos` refuses.
    """
    table = source.table
    options, notes = with_templates(options or Options(), table)
    out, work, captions = _begin(table, out, options, workers)
    say("looking at names, sizes and duplicates", flush=True)
    plan = _plan(source, options)
    warnings = (f"warning: {line}" for line in table_warnings(table, captions))
    say("\n".join([*notes, *plan.notes, *warnings]), flush=True)
    identity = _identity(plan, table, options)
    if is_up_to_date(out, identity, restart=restart):
        record_set = open_records(out)
        say(f"{out} is up to date", flush=True)
        return record_set
    if plan.untrained and not options.allow_no_training:
        raise UserError(plan.untrained)
    say(f"{len(plan.photos)} photos to store, {len(plan.skips)} left out before reading", flush=True)
    with disk_errors_in_one_line(work), alone_in(work, "conversion"):
        prepare(work, identity, restart=restart)
        if not (work / MANIFEST).exists():  # else only the renaming is missing
            check(source.archives, work / PROGRESS / "archives.json")
            _write_set(work, plan, table, captions, options, workers or cores(), write or write_shards)
        move_into_place(work, out)
    say(f"wrote {out}; what was left out and why: {out / REPORT_TEXT}", flush=True)
    return open_records(out)


def dry_run(
    source: Source,
    out: str | Path,
    options: Options | None = None,
    *,
    workers: int = 0,
    restart: bool = False,
) -> list[str]:
    """What `convert` would do with the same arguments, as lines; writes nothing.

    Classes without a photo and photos without any to train on, which `convert` refuses unless told otherwise, are a
    warning here. Released archives are
    not read.

    Raises:
        UserError: what `convert` would refuse before it writes anything.
    """
    table = source.table
    options, notes = with_templates(options or Options(), table)
    out, work, captions = _begin(table, out, options, workers)
    plan = _plan(source, dataclasses.replace(options, allow_empty_classes=True))
    shards = {split: list(parts.values()) for split, parts in _shards(work, plan, options).items()}
    lines = [*notes, *plan.notes, *forecast(table, plan, shards, captions, out)]
    lines.append(f"processes: {min(workers or cores(), sum(map(len, shards.values())))}")
    if is_up_to_date(out, _identity(plan, table, options), restart=restart):
        lines.append(f"{out} is up to date: there is nothing to write")
    tokenize: Tokenize = load_tokenizer(options.tokenizer).pieces if options.tokenizer else words
    longest = max((text for texts in captions for text in texts), key=lambda text: len(tokenize(text)))
    if len(tokenize(longest)) > _CONTEXT - 1:  # the end is a token too
        lines.append(f"warning: captions of up to {len(tokenize(longest))} tokens, longer than usual: {longest}")
    absent = len(table) - len(plan.present)
    if absent and not options.allow_empty_classes:
        lines.append(f"warning: {absent} classes without a photo are refused unless you pass --allow-empty-classes")
    if plan.untrained and not options.allow_no_training:
        lines.append(f"warning: {plan.untrained}")
    return lines


def with_templates(options: Options, table: ClassTable) -> tuple[Options, list[str]]:
    """The options, with a default caption that fits the table if none is given; and lines on that and on the table."""
    notes = [*table.notes]
    if options.templates:
        return options, notes
    template = fitted(TEMPLATE, table.columns)
    absent = [column for column in fields(TEMPLATE) if column not in fields(template)]
    if absent:
        columns = f"column {absent[0]}" if len(absent) == 1 else f"columns {' and '.join(absent)}"
        notes.append(f"captions: {template}, as the class table has no {columns}")
    return dataclasses.replace(options, templates=(template,)), notes


def _begin(
    table: ClassTable, out: str | Path, options: Options, workers: int
) -> tuple[Path, Path, list[tuple[str, ...]]]:
    """The folder to make, the one to work in, and the captions; refuses what can be refused without the photos."""
    refuse_without_tensorflow()
    check_options(options)
    if workers < 0:
        raise UserError(f"workers: found {workers}, expected 0 (all cores) or more; correct it")
    out = resolved(out)
    work = incomplete(out)
    refuse_foreign(out, work)
    return out, work, texts_of(table, options)


def _plan(source: Source, options: Options) -> Plan:
    collects = gc.isenabled()
    gc.disable()  # to look for cycles among millions of tuples, again and again, would double the time
    try:
        return plan_photos(source.items, source.table, options)
    finally:
        if collects:
            gc.enable()


def _write_set(
    work: Path,
    plan: Plan,
    table: ClassTable,
    captions: Sequence[tuple[str, ...]],
    options: Options,
    workers: int,
    write: Callable[..., list[Outcome]],
) -> None:
    """Fills the folder: small files that may be refused first, then shards, then what says they are whole."""
    write_class_table(table, work / CLASS_TABLE)
    write_tokenizer(work / TOKENIZER, plan.photos, table, captions, options)
    shards = _shards(work, plan, options)
    before = {path: outcome for split in shards.values() for path in split if (outcome := finished(path))}
    todo = {path: photos for split in shards.values() for path, photos in split.items() if path not in before}
    if before:
        say(f"{len(before)} of {len(before) + len(todo)} shards were finished before", flush=True)
    number = sum(map(len, todo.values()))
    start = time.monotonic()
    written = write(
        _jobs(todo, table, captions, options),
        workers=max(1, min(workers, len(todo))),
        total=len(plan.photos),
        done=len(plan.photos) - number,
    )
    seconds = max(time.monotonic() - start, 1e-3)
    by_path = before | dict(zip(todo, written, strict=True))
    outcomes = {split: [by_path[path] for path in paths] for split, paths in shards.items()}
    _write_reports(work, table, plan, outcomes, captions, options)
    write_metadata(
        work,
        {split: [outcome.shard for outcome in done] for split, done in outcomes.items()},
        templates=options.templates,
        drop_repeats=options.drop_repeats,
        captions=captions,
        class_ids={split: set().union(*(o.photos_of_class for o in done)) for split, done in outcomes.items()},
        options=facts(options),
    )
    say(f"{number} photos in {seconds:.1f} s, {number / seconds:.0f} a second", flush=True)


def _shards(work: Path, plan: Plan, options: Options) -> dict[str, dict[Path, list[Planned]]]:
    """The photos of each shard file, by split."""
    photos_of: dict[str, list[Planned]] = defaultdict(list)
    for photo in plan.photos:
        photos_of[photo.split].append(photo)
    shards = {}
    for split, photos in sorted(photos_of.items()):
        parts = shard_photos(photos, seed=options.seed, shards=options.shards, shard_bytes=options.shard_mb << 20)
        shards[split] = {work / shard_name(split, i, len(parts)): part for i, part in enumerate(parts)}
    return shards


def _jobs(
    shards: Mapping[Path, Sequence[Planned]],
    table: ClassTable,
    captions: Sequence[tuple[str, ...]],
    options: Options,
) -> Iterator[Job]:
    """A job for each shard file, made when it is asked for: all texts of all jobs would be a lot at a time."""
    cleaning = {name: getattr(options, name) for name in CLEANING}
    texts = {
        class_id: Texts(captions[i], {rank: table.row(i).get(rank, "") for rank in RANK_FIELDS})
        for i, class_id in enumerate(table.ids)
    }
    for path, photos in shards.items():
        yield Job(path, photos, {photo.class_id: texts[photo.class_id] for photo in photos}, cleaning)


def write_tokenizer(
    path: Path, photos: Iterable[Planned], table: ClassTable, captions: Sequence[tuple[str, ...]], options: Options
) -> None:
    """Writes the model that is asked for, if any; before the shards, so that one that cannot be is refused at once.

    Args:
        path: The file to write.
        photos: What is to be stored.
        table: The classes.
        captions: K tuples, one a class.
        options: Tell which model.

    Raises:
        UserError: a vocabulary too small for the captions.
    """
    if options.tokenizer:
        path.write_bytes(load_tokenizer(options.tokenizer).model_bytes)
    elif options.vocab_size:
        # Held-out species are new words to the model that is to be judged on them.
        classes = {photo.class_id for photo in photos if photo.split == TRAIN} or set(table.ids)
        texts = (text for i, class_id in enumerate(table.ids) if class_id in classes for text in captions[i])
        train_sentencepiece(texts, path, vocab_size=options.vocab_size)
        pieces = load_tokenizer(path).vocab_size
        if pieces < options.vocab_size:
            say(f"tokenizer of {pieces} pieces: the captions have no use for {options.vocab_size}", flush=True)


def _write_reports(
    work: Path,
    table: ClassTable,
    plan: Plan,
    outcomes: Mapping[str, Sequence[Outcome]],
    captions: Sequence[Sequence[str]],
    options: Options,
) -> None:
    report = report_of(table, plan, outcomes, captions)
    write_json(work / REPORT, report)
    (work / REPORT_TEXT).write_text("\n".join(report_lines(report, shown=sys.maxsize)) + "\n", encoding="utf-8")
    say("\n".join(report_lines(report, shown=1)), flush=True)
    photos = {name: split["photos"] for name, split in report["splits"].items()}
    if not any(photos.values()) or (photos.get(TRAIN) == 0 and not options.allow_no_training):
        what = "to train on that can be used" if any(photos.values()) else "that can be used"
        raise UserError(f"photos: found none {what}, expected at least one; see {work / REPORT_TEXT} for reasons")


def table_digest(table: ClassTable) -> str:
    """SHA-256 of the classes, hexadecimal; the order of the columns says nothing.

    Of the table as it stands in its file: what is read of it may be mended, and what was made of it stays the same.
    """
    table = table.as_written or table
    return hashlib.sha256(repr((table.ids, sorted(table.columns.items()))).encode()).hexdigest()


def _identity(plan: Plan, table: ClassTable, options: Options) -> dict[str, Any]:
    """What makes two conversions the same; kept in the folder, so that another one is not mixed in."""
    return {"options": facts(options), "classes": table_digest(table), "photos or splits": plan.inputs}
