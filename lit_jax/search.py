"""Finds photos by words or by a photo: ``python -m lit_jax.search --checkpoint=M --photos DIR "a red beetle"``."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_jax.base import console
from lit_jax.base.command_line import Parser, positive
from lit_jax.base.console import say
from lit_jax.base.files import alone_with, digest, written_aside
from lit_jax.base.named_files import spelt_out
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.prediction import contact_sheet, photo_index
from lit_jax.prediction.contact_sheet import Hit, Query
from lit_jax.prediction.photo_index import Index

if TYPE_CHECKING:
    from lit_jax.embedding.about import About

FORMATS = ("table", "jsonl", "html")


def main(argv: Sequence[str] | None = None) -> None:
    """The command: brings the index up to date and tells the photos most like each query."""
    parsed = _parser().parse_args(argv)
    ending = Path(parsed.out).suffix.lower().lstrip(".")
    parsed.format = parsed.format or (ending if ending in FORMATS else "table")
    with user_errors_in_one_line("run the same command to go on with the index"):
        _check(parsed)
        index, queries, given = _of_store(parsed) if parsed.store else _of_photos(parsed)
        if not len(index.vectors):
            raise UserError("photos: found none that can be read, expected at least one")
        scores, rows = photo_index.nearest(index.vectors, queries, parsed.top)
        sought = [*map(Query, parsed.texts), *(Query(f"like {_named(photo, parsed)}", photo) for photo in parsed.like)]
        photos = iter(index.photos_of(rows.reshape(-1)))
        found = [[_hit(next(photos), score, parsed.images, given) for score in of_one] for of_one in scores.tolist()]
        model = _named(parsed.checkpoint, parsed)
        _tell(parsed, sought, found, f"{len(index.vectors):,} photos, all compared; model {model}")


def _named(path: str, parsed: argparse.Namespace) -> str:
    """A path as it is shown: its name alone in a contact sheet, which others get; as it is where it is no path."""
    name = os.path.basename(os.path.abspath(path)) if parsed.format == "html" and os.path.exists(path) else path
    return spelt_out(name)


def _check(parsed: argparse.Namespace) -> None:
    if not (parsed.texts or parsed.like):
        raise UserError('query: found none, expected a text such as "a red beetle", or a photo with --like')
    if any(not text.strip() for text in parsed.texts):
        raise UserError("query: found an empty text, expected words")
    if parsed.format == "html" and not parsed.out:
        raise UserError("--format html: found no --out, expected the file to write")
    if parsed.images and not os.path.isdir(parsed.images):
        raise UserError(f"--images: found no folder {parsed.images}, expected that of the store's photos")
    if parsed.out:
        from lit_jax.prediction import output

        output.check(Path(parsed.out), overwrite=parsed.overwrite)


def _of_photos(parsed: argparse.Namespace) -> tuple[Index, np.ndarray, dict[str, str]]:
    """The index of photos, the vectors of the queries `[Q, D]`, and the paths as a person wrote them."""
    from lit_jax.prediction import searching
    from lit_jax.prediction.found import find_photos
    from lit_jax.prediction.model import load

    found = find_photos(parsed.photos)
    model = load(parsed.checkpoint, step=parsed.step, image_weights=parsed.image_weights)
    beside = searching.folder_beside(model.folder, parsed.photos) if model.folder else None
    folder = _folder(parsed, beside)
    with console.Progress(len(found.photos), aside=True) as progress:
        updated = searching.of_photos(
            model.engine.image_key,
            model.embedded,
            found.photos,
            folder,
            console.pace(progress, "new photos"),
            verify=parsed.verify,
        )
    given = {os.path.abspath(photo): photo for photo in found.photos}
    for note in (*found.notes, *(f"left out: {given[photo]}: {reason}" for photo, reason in updated.broken)):
        say(note, file=sys.stderr)
    told = f"{updated.kept:,} photos known, {updated.added:,} new, {updated.gone:,} gone"
    say(f"index {folder}: {told}, {len(updated.broken):,} cannot be read", file=sys.stderr)
    texts = _embedded(parsed.texts, model.about, model.engine.protocol, model.embed_texts)
    return updated.index, np.concatenate([*texts, *searching.liked(model.embedded, parsed.like, "--like")]), given


def _of_store(parsed: argparse.Namespace) -> tuple[Index, np.ndarray, dict[str, str]]:
    """The same of a store, which has ids and no paths; the image tower is there for ``--like`` alone."""
    # Late: bad options are refused in a moment.
    from lit_jax.base import hosts
    from lit_jax.data.dataset_folder import check_split
    from lit_jax.data.embedding_store import open_store
    from lit_jax.prediction import searching, searching_store
    from lit_jax.prediction.model import load
    from lit_jax.prediction.with_jax import WithJax
    from lit_jax.trained import loading

    hosts.keep_compiled()
    store = open_store(parsed.store)
    if parsed.split:
        check_split(parsed.split, store.splits, store.directory, option="--split")
    model = load(parsed.checkpoint, step=parsed.step, image_weights=parsed.image_weights) if parsed.like else None
    if model is not None and isinstance(model.engine, WithJax):
        trained = model.engine.trained
    else:
        trained = loading.load(parsed.checkpoint, step=parsed.step, with_image_tower=False)
    key = digest([store.fingerprint, parsed.split])[:20]
    folder = _folder(parsed, loading.folder_of(parsed.checkpoint) / photo_index.FOLDER / key)
    index = searching_store.of_store(trained, store, parsed.split, folder, verify=parsed.verify)
    protocol, embed = trained.config.evaluation.protocol, searching_store.texts_of(trained)
    texts = _embedded(parsed.texts, trained.about, protocol, embed)
    return (
        index,
        np.concatenate([*texts, *(searching.liked(model.embedded, parsed.like, "--like") if model else [])]),
        {},
    )


def _embedded(
    texts: Sequence[str], about: "About", protocol: str, embed: Callable[[Sequence[str]], np.ndarray]
) -> list[np.ndarray]:
    """The vectors of texts, if there are any; prints which of them are names of classes."""
    from lit_jax.prediction import searching

    if not texts:
        return []
    vectors, notes = searching.queries_of(about, protocol, embed, texts)
    for note in notes:
        say(f"note: {note}", file=sys.stderr)
    return [vectors]


def _folder(parsed: argparse.Namespace, beside: Path | None) -> Path:
    """Of the index: as given, or beside the model."""
    if parsed.index:
        return Path(parsed.index)
    if beside is None:
        raise UserError("--index: found none, expected a folder to keep the index in")
    model = beside.parents[1]
    if not beside.is_dir() and model.is_dir() and not os.access(model, os.W_OK):
        raise UserError(f"{model}: found no permission to keep the index beside the model; say where with --index")
    return beside


def _hit(photo: str, score: float, images: str, given: Mapping[str, str]) -> Hit:
    # In a store a photo goes by its split and id, which mostly is its path below the photos' folder.
    places = [photo, *(os.path.join(images, part) for part in (photo, photo.partition("/")[2]) if images and part)]
    return Hit(
        spelt_out(given.get(photo, photo)), score, next((place for place in places if os.path.isfile(place)), "")
    )


def _tell(parsed: argparse.Namespace, sought: Sequence[Query], found: Sequence[Sequence[Hit]], note: str) -> None:
    names = [query.text for query in sought]
    if parsed.format == "html":
        text = contact_sheet.sheet(sought, found, note)
    elif parsed.format == "jsonl":
        text = "".join(
            json.dumps({"query": name, "place": place, "photo": hit.photo, "score": round(hit.score, 6)},
                       ensure_ascii=False) + "\n"
            for name, hits in zip(names, found, strict=True) for place, hit in enumerate(hits, 1)
        )  # fmt: skip
    else:
        text = "\n".join(
            f"{name}\n" + console.text_table(
                ["", "photo", "similarity"], [[str(place), hit.photo, f"{hit.score:.3f}"]
                                              for place, hit in enumerate(hits, 1)], left=(1,),
            ) + "\n"
            for name, hits in zip(names, found, strict=True)
        ) + f"{note}\n"  # fmt: skip
    if not parsed.out:
        (print if parsed.format == "jsonl" and not sys.stdout.isatty() else say)(text, end="")
        return
    with alone_with(Path(parsed.out), "search"), written_aside(parsed.out, number=0) as aside:
        aside.write_text(text, encoding="utf-8")
    say(f"written to {parsed.out}")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.search",
        description="Finds photos by words, or by a photo. Every photo is compared; they are looked at once, and new "
        "ones when they come.",
    )
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="what to look for, such as 'a red beetle'; each text is one search")
    add("--checkpoint", required=True, help="folder of a run, or of an exported model")
    add("--step", default="best", help="of a run: best, latest or a number")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--photos", action="append", metavar="PATH", help="a folder, file or pattern; repeatable")
    data.add_argument("--store", help="an embedding store instead; no photo is looked at")
    add("--split", default="", help="of the store (default: all)")
    add("--images", default="", help="folder of the store's photos, for the pictures of a contact sheet")
    add("--like", action="append", default=[], metavar="PHOTO", help="look for photos like this one; repeatable")
    add("--top", type=positive, default=20, help="photos to tell of each search")
    what = "html is a contact sheet, one file with the pictures inside (default: as --out ends, else a table)"
    add("--format", choices=FORMATS, default="", help=what)
    add("--out", default="", help="file to write instead of printing")
    add("--overwrite", action="store_true", help="also if the file is there")
    add("--index", default="", help="folder to keep the index in (default: in photo_index of the model's folder)")
    add("--verify", action="store_true", help="compare an index of more than 2 GB with its checksums; smaller ones are")
    add("--image-weights", default="", help="where the locked image tower's weights are now")
    return parser


if __name__ == "__main__":
    main()
