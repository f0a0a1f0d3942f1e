"""Draws the demo's field guide: `python -m data_prep.field_guide --out DIR`."""

from collections.abc import Sequence

from data_prep.demo.field_guide import draw, guide
from lit_jax.base.command_line import Parser
from lit_jax.base.console import say
from lit_jax.errors import user_errors_in_one_line


def main(argv: Sequence[str] | None = None) -> None:
    """The command: draws the guide of the demo, or one of another seed."""
    parser = Parser(
        prog="python -m data_prep.field_guide",
        description="Draws an invented field guide: photos, class table and splits.",
    )
    parser.add_argument("--out", required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another tree of life")
    parser.add_argument("--heldout", type=int, default=40, help="species never used for training")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: all cores")
    arguments = parser.parse_args(argv)
    with user_errors_in_one_line():
        book = guide(arguments.seed, heldout=arguments.heldout)
        folder = draw(book, arguments.out, seed=arguments.seed, workers=arguments.workers)
        say(f"{folder}: {len(book.species)} species, {sum(book.heldout)} of them held out")


if __name__ == "__main__":
    main()
