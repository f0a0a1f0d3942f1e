"""What a held-out figure may owe to leaks: photos seen before, names read before, species that the tower knows.

Functions of a store, a class table and lists of names, without a model; `lit_jax.leaks` is the command.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from lit_jax.data.embedding_store import Rows, Store, image_ids
from lit_jax.data.records import RecordSet
from lit_jax.errors import UserError
from lit_jax.evaluation.kinship import accuracy_by_kinship, kinship
from lit_jax.evaluation.near_duplicates import MOST, WITHIN, Pairs, mean_of, near_duplicates
from lit_jax.text.captions import class_captions
from lit_jax.text.classes import ClassTable, species_key
from lit_jax.text.identity import binomial, matched
from lit_jax.text.labels import synonyms

Row = dict[str, Any]
CAPTION, TABLE = "caption", "class table"


def near_photos(
    store: Store,
    train_split: str,
    splits: Sequence[str],
    *,
    within: float = WITHIN,
    most: int = MOST,
    inside: bool = False,
    tick: Callable[[int, int], None] | None = None,
) -> Row:
    """Photos of other splits that are nearly one of training, by view 0 of the features.

    Args:
        store: with all the splits.
        train_split: whose mean is the centre, see `near_duplicates`.
        splits: to compare with it.
        within: one minus the least cosine.
        most: pairs kept a photo.
        inside: whether photos within each split are compared too.
        tick: told the pairs compared and those there are, anew for each comparison.

    Returns:
        ``within``, ``most``, and ``comparisons``, one of each two splits: ``split``, ``against``, ``photos``,
        ``near_photos`` (with at least one near photo), ``other_class`` (pairs of two classes), ``capped`` (photos with
        more than `most`) and ``pairs`` from the nearest on: ``photo``, ``class``, ``like``, ``like_class``, ``cosine``.
    """
    rows = {split: Rows(store, split) for split in dict.fromkeys((train_split, *splits))}
    ids = {split: image_ids(store, split) for split in rows}
    centre = mean_of(rows[train_split])
    asked = [(split, train_split) for split in rows if split != train_split]
    asked += [(split, split) for split in rows if inside]
    comparisons = []
    for split, against in asked:
        found = near_duplicates(rows[split], rows[against], centre, within=within, most=most, tick=tick)
        classes = rows[split].class_ids[found.queries], rows[against].class_ids[found.keys]
        comparisons.append({
            "split": split, "against": against, "photos": len(rows[split]),
            "near_photos": len({*found.queries.tolist(), *(found.keys.tolist() if split == against else ())}),
            "other_class": int((classes[0] != classes[1]).sum()),
            "capped": [ids[split][row] for row in found.capped.tolist()],
            "pairs": _photo_pairs(found, ids[split], ids[against], [one.tolist() for one in classes]),
        })  # fmt: skip
    return {"within": within, "most": most, "comparisons": comparisons}


def _photo_pairs(
    found: Pairs, own: Sequence[str], others: Sequence[str], classes: Sequence[Sequence[int]]
) -> list[Row]:
    rows = [
        {"photo": own[query], "class": one, "like": others[key], "like_class": other, "cosine": cosine}
        for query, key, cosine, one, other in zip(
            found.queries.tolist(), found.keys.tolist(), found.cosine.tolist(), *classes, strict=True
        )
    ]
    return sorted(rows, key=lambda row: -row["cosine"])


def names_in_training(
    table: ClassTable,
    seen_ids: Collection[int],
    unseen_ids: Collection[int],
    templates: Sequence[str] = (),
    *,
    drop_repeats: bool = False,
) -> list[Row]:
    """Held-out species of which a name stands in the words that training read, or is that of one of its classes.

    Names are the binomial, the common name and the synonyms; words are those of the captions, and of the names, common
    names and synonyms of the class table, of which captions need not say all.

    Returns:
        A row each species, kind of name and class of training: ``class``, ``common_name``, ``id``, ``by`` (name,
        common name or synonym), ``as`` (as it is written there), ``where`` (caption or class table), ``training`` (the
        class), ``whole`` (False where it is a part of a longer text other than a caption's), ``assumed``.
    """
    texts = [*_training_texts(table, seen_ids, templates, drop_repeats=drop_repeats)]
    by_words: dict[tuple[str, ...], list[int]] = {}
    needles = [needle for class_id in unseen_ids for needle in _needles(table, class_id)]
    lengths = sorted({len(words) for *_, words in needles})
    wanted = {words for *_, words in needles}
    for number, (_, _, text, whole) in enumerate(texts):
        for words in {tuple(_words(text)), tuple(_words(text.replace("-", ""))), tuple(binomial(whole).split())}:
            for part in _parts(words, lengths):
                if part in wanted:
                    by_words.setdefault(part, []).append(number)
    rows, told = [], set()
    for class_id, by, name, words in needles:
        for number in dict.fromkeys(by_words.get(words, ())):
            where, training, text, whole = texts[number]
            if (class_id, by, training) not in told:
                told.add((class_id, by, training))
                rows.append({
                    **_named(table, class_id), "by": by, "as": text, "where": where,
                    "training": table.label(training), "whole": species_key(text) == species_key(name),
                    "assumed": matched([name], [whole]).assumed.get(name, "") if by != "common name" and whole else "",
                })  # fmt: skip
    return rows


def of_heldout(
    data: Store | RecordSet,
    table: ClassTable,
    train_split: str,
    heldout: str,
    per_class: Sequence[Mapping[str, Any]] = (),
) -> Row:
    """What is to be known of the species of a held-out split: names in training, and relatives there.

    Args:
        data: with both splits.
        table: of its classes.
        train_split: that was trained on.
        heldout: the split of held-out species.
        per_class: rows of an evaluation of these, see `lit_jax.evaluation.kinship.accuracy_by_kinship`.

    Returns:
        ``heldout``, ``species`` (how many), ``ids`` (theirs), ``in_both`` (names of species that have photos in
        training too, and are left out), ``names`` (see `names_in_training`) and ``kinship``: ``species``, names by
        group, and ``rows`` of `accuracy_by_kinship`.

    Raises:
        UserError: the split has no species that training has not.
    """
    seen = data.classes_in(train_split)
    both = sorted(set(seen) & set(data.classes_in(heldout)))
    unseen = [class_id for class_id in data.classes_in(heldout) if class_id not in both]
    if not unseen:
        raise UserError(
            f"--heldout: found no species in {heldout!r} that {train_split!r} has not, expected species that were held "
            "out; give another split"
        )
    groups = kinship(table, seen, unseen)
    return {
        "heldout": heldout,
        "species": len(unseen),
        "ids": unseen,
        "names": names_in_training(table, seen, unseen, data.templates, drop_repeats=data.drop_repeats),
        "in_both": [table.label(class_id) for class_id in both],
        "kinship": {
            "species": {group: [table.label(class_id) for class_id in ids] for group, ids in groups.items()},
            "rows": accuracy_by_kinship(groups, per_class),
        },
    }


def _named(table: ClassTable, class_id: int) -> Row:
    row = table.row(table.index_of(class_id))
    return {"class": table.names[table.index_of(class_id)], "common_name": row.get("common_name", ""), "id": class_id}


def _training_texts(
    table: ClassTable, seen_ids: Collection[int], templates: Sequence[str], *, drop_repeats: bool
) -> Iterator[tuple[str, int, str, str]]:
    """Where it stands, class, text, and the same if it is a scientific name; whole names first, captions last."""
    seen = table.subset(seen_ids)
    for class_id, row in zip(seen.ids, seen.rows(), strict=True):
        for name in (row.get("name", ""), *synonyms(row)):
            yield TABLE, class_id, name, name
        yield TABLE, class_id, row.get("common_name", ""), ""
    for class_id, texts in zip(seen.ids, class_captions(seen, templates, drop_repeats=drop_repeats), strict=True):
        yield from ((CAPTION, class_id, text, "") for text in texts)


def _needles(table: ClassTable, class_id: int) -> Iterator[tuple[int, str, str, tuple[str, ...]]]:
    """Class, kind of name, the name, and its words in the form in which texts are searched."""
    row = table.row(table.index_of(class_id))
    names = [("name", row.get("name", "")), ("common name", row.get("common_name", ""))]
    for by, name in (*names, *(("synonym", synonym) for synonym in synonyms(row))):
        words = _words(name) if by == "common name" else binomial(name).split()
        if words and (by == "common name" or len(words) > 1):
            yield class_id, by, name, tuple(words)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", species_key(text).replace("'", "").replace("’", ""))


def _parts(words: Sequence[str], lengths: Sequence[int]) -> Iterator[tuple[str, ...]]:
    for length in lengths:
        for start in range(len(words) - length + 1):
            yield tuple(words[start : start + length])


def known_to_tower(table: ClassTable, unseen_ids: Collection[int], labels: Sequence[str]) -> Row:
    """Held-out species that stand among the labels of the tower's own training.

    Returns:
        ``labels`` (how many there are), ``known``: a row each species with ``class``, ``common_name``, ``id``, ``by``,
        ``as`` and ``assumed``; ``near``: those with a label that looks misspelt, ``as`` that; and ``not_named``: the
        names of all that are not known. Only of these can it be said that the tower has not learnt them, and that only
        as far as the list goes.
    """
    common = {species_key(label): label for label in reversed(labels)}
    scientific = {
        class_id: [name for _, by, name, _ in _needles(table, class_id) if by != "common name"]
        for class_id in unseen_ids
    }
    found = matched([name for names in scientific.values() for name in names], labels)
    known, near, rest = [], [], []
    for class_id, names in scientific.items():
        own = _named(table, class_id)
        same = next((name for name in names if name in found.same), None)
        if same is not None:
            by = "name" if same == own["class"] else "synonym"
            known.append({**own, "by": by, "as": found.same[same][0], "assumed": found.assumed.get(same, "")})
        elif (key := species_key(own["common_name"])) in common and key:
            known.append({**own, "by": "common name", "as": common[key], "assumed": ""})
        else:
            rest.append(own["class"])
            near += [{**own, "as": found.near[name]} for name in names if name in found.near][:1]
    return {"labels": len(labels), "known": known, "near": near, "not_named": rest}
