"""Makes a class table of the names of labels or folders, where there is no other."""

from collections.abc import Sequence

from lit_jax.text.classes import ClassTable


def label_table(names: Sequence[str]) -> ClassTable:
    """A class table of names alone, as labels or folders have them.

    Its ids are the numbers of the names. Column ``folder`` has them as they are, ``name`` with blanks for underscores;
    the columns that captions ask for by default are there, and empty.
    """
    blank = ("",) * len(names)
    spaced = tuple(" ".join(name.replace("_", " ").split()) or name for name in names)
    columns = {"name": spaced, "common_name": blank, "supercategory": blank, "folder": tuple(names)}
    return ClassTable(tuple(range(len(names))), columns)
