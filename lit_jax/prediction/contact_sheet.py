"""What a search found as one HTML file with thumbnails inside, that can be sent to a colleague as it is."""

import base64
import html
import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from lit_jax.base.processes import cores
from lit_jax.data.photo import BadPhoto, upright_pixels

SIDE = 320  # pixels of the longer side of a thumbnail
STYLE = """
:root { color-scheme: light dark; --ink: #1d2a33; --paper: #fbfbf9; --quiet: #5b6b75; --line: #d8dee2 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8edf0; --paper: #14191d; --quiet: #9aa9b3; --line: #2c363d } }
body { margin: 2rem auto; max-width: 84rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper) }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(14rem, 44%), 1fr)) }
figure { margin: 0 } figcaption { font-size: .8rem; color: var(--quiet); overflow-wrap: break-word }
img, .none { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--line);
  border-radius: 4px }
.none { display: grid; place-content: center; font-size: .8rem; text-align: center }
.asked { width: auto; max-width: min(14rem, 44%); aspect-ratio: auto; margin-bottom: 1rem; outline: 3px solid #2f7d5b }
.same img { outline: 3px solid #2f7d5b }
footer { margin: 2.5rem 0 1rem; font-size: .8rem; color: var(--quiet) }
"""


class Hit(NamedTuple):
    """One photo that was found.

    Attributes:
        photo: its path, or its id in a store.
        score: cosine with the query.
        file: where the picture is; empty if nobody says.
    """

    photo: str
    score: float
    file: str = ""


class Query(NamedTuple):
    """What was looked for.

    Attributes:
        text: in words.
        photo: the file that others were to be like; empty of a text.
    """

    text: str
    photo: str = ""


def sheet(queries: Sequence[Query], found: Sequence[Sequence[Hit]], note: str) -> str:
    """The page.

    Args:
        queries: what was asked.
        found: the photos of each query, the best first.
        note: stands below.
    """
    with ThreadPoolExecutor(cores()) as pool:
        files = [file for query, hits in zip(queries, found, strict=True) for file in (query.photo, *_files(hits))]
        pictures = iter(pool.map(thumbnail, files))
        above = _common([hit.photo for hits in found for hit in hits])
        groups = "".join(_group(query, hits, pictures, above) for query, hits in zip(queries, found, strict=True))
    title = html.escape("; ".join(query.text for query in queries))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>Photos found</h1>\n{groups}<footer>{html.escape(note)}</footer></body></html>\n"
    )


def thumbnail(file: str | os.PathLike[str]) -> str:
    """A small JPEG of a photo as a ``data:`` address; an empty text if there is none."""
    if not file:
        return ""
    try:
        picture = Image.fromarray(upright_pixels(str(file)))
    except BadPhoto:
        return ""
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _common(photos: Sequence[str]) -> int:
    """Length of the folder that all paths share: a colleague need not know where the photos lay."""
    folders = [os.path.dirname(photo) for photo in photos]
    return len(os.path.commonpath(folders)) if len(set(map(os.path.isabs, folders))) == 1 else 0


def _below(photo: str, above: int) -> str:
    """A path below the folder that all share; where they share none, at most the photo's own folder and name."""
    shared = above > len(os.sep) or not os.path.isabs(photo)
    return photo[above:].lstrip(os.sep) if shared else os.path.join(*photo.split(os.sep)[-2:]).lstrip(os.sep)


def _files(hits: Sequence[Hit]) -> list[str]:
    return [hit.file for hit in hits]


def _group(query: Query, hits: Sequence[Hit], pictures: Iterator[str], above: int) -> str:
    asked = next(pictures)
    top = f'<img class="asked" src="{asked}" alt="the photo that was asked for">' if asked else ""
    cards = []
    for place, hit in enumerate(hits, 1):
        address, name = next(pictures), html.escape(_below(hit.photo, above))
        shown = (
            f'<img src="{address}" alt="{name}" loading="lazy">' if address else '<div class="none">no picture</div>'
        )
        same = bool(query.photo and hit.file) and os.path.realpath(query.photo) == os.path.realpath(hit.file)
        marked, told = (' class="same"', "<br><b>the photo that was asked for</b>") if same else ("", "")
        # Between folders and words a long name may be broken.
        broken = re.sub(r"([/\\_-])", r"\1<wbr>", name)
        caption = f"<figcaption>{place}. {broken}<br>similarity {hit.score:.3f}{told}</figcaption>"
        cards.append(f"<li{marked}><figure>{shown}{caption}</figure></li>")
    return f"<section><h2>{html.escape(query.text)}</h2>{top}<ol>{''.join(cards)}</ol></section>\n"
