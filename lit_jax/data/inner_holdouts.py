"""How many species it takes to hold some of them out in turn, as the closed form and the margin do inside training."""

FOLDS = 5
"""Parts in which the closed form holds training species out in turn."""
A_PART = 2
"""Species of a part at the least, which are named among themselves."""


def enough(species: int, folds: int = FOLDS) -> bool:
    """Whether so many species with photos can be held out in turn."""
    return species >= A_PART * folds
