"""Which parts of a model move: LiT's letters, and the names of the parameter tree."""

from typing import Any

from lit_jax.errors import UserError

Params = dict[str, Any]
"""A tree of parameters, or a part of one; see `lit_jax.models.two_tower`."""

IMAGE, TEXT = TOWERS = ("image", "text")
PROJECTION, TEXT_PROJECTION = "projection", "text_projection"
LOGIT_SCALE, LOGIT_BIAS = "logit_scale", "logit_bias"

# LiT's letters (arXiv 2111.07991, section 4.1), image tower first: L locked and pre-trained, U unlocked and
# pre-trained, u unlocked and from scratch.
LOCKS = ("Lu", "LL", "LU", "UU", "Uu", "uu")


LETTERS = {"L": "locked", "U": "pre-trained and trained further", "u": "trained from scratch"}


def lock_letters(lock: str) -> dict[str, str]:
    """The letter of each tower.

    Example:
        >>> lock_letters("Lu")
        {'image': 'L', 'text': 'u'}

    Raises:
        UserError: if `lock` is none of `LOCKS`.
    """
    if lock not in LOCKS:
        raise UserError(
            f"train.locks: found {lock!r}, expected one of {', '.join(LOCKS)} (image tower first: "
            f"{', '.join(f'{letter} {what}' for letter, what in LETTERS.items())})"
        )
    return dict(zip(TOWERS, lock, strict=True))


def check_image_locked(lock: str, why: str) -> None:
    """Refuses letters by which the image tower moves.

    Args:
        lock: one of `LOCKS`.
        why: it must not, for the message.

    Raises:
        UserError: if it does.
    """
    if lock_letters(lock)[IMAGE] != "L":
        locked = [other for other in LOCKS if lock_letters(other)[IMAGE] == "L"]
        raise UserError(
            f"train.locks: found an image tower that is trained ({lock}), expected a locked one {why}; set "
            f"train.locks to {', '.join(locked[:-1])} or {locked[-1]}"
        )


def split_locked(params: Params, lock: str) -> tuple[Params, Params]:
    """Parts the parameters into those that move and those that must not.

    This is the one place that says what locked means. The locked part is given to the step apart from the rest:
    it gets no gradient, no optimizer state and no place in a checkpoint.

    Args:
        params: as in `lit_jax.models.two_tower`.
        lock: one of `LOCKS`.

    Returns:
        (moving, locked); together they hold every key of `params` once.
    """
    still = {tower for tower, letter in lock_letters(lock).items() if letter == "L"}
    return (
        {name: tree for name, tree in params.items() if name not in still},
        {name: tree for name, tree in params.items() if name in still},
    )
