"""A record set to webdataset shards: `python -m data_prep.to_webdataset` or `lit-jax-to-webdataset`.

So that others, open_clip (``--dataset-type webdataset``) and webdataset among them, train on the very photos and
captions. A key has nine digits and counts the photos of its split; its members are::

    000000012.jpg    the photo, byte for byte
    000000012.txt    its first caption
    000000012.cls    its class id
    000000012.json   image_id, class_id, captions, and ranks with the name

Each split is a folder. It is made as ``SPLIT.incomplete`` and renamed when it is whole; a run that was stopped goes
on with the first shard that is missing. Equal records give equal bytes. TensorFlow is not needed.
"""

from collections.abc import Sequence
from pathlib import Path

from data_prep.conversion.to_tars import SHARD_MB, to_webdataset
from lit_jax.base.command_line import Parser
from lit_jax.data.records import open_records
from lit_jax.errors import user_errors_in_one_line


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    parser = Parser(
        prog="python -m data_prep.to_webdataset",
        description="A record set to webdataset shards: a folder of tars for each split.",
    )
    parser.add_argument("--records", type=Path, required=True, metavar="DIR", help="the record set")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; a sub-folder a split")
    parser.add_argument("--split", nargs="+", default=[], metavar="SPLIT", help="these only (default: all)")
    parser.add_argument("--shard-mb", type=int, default=SHARD_MB, help="size of a tar, MiB")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: all cores")
    arguments = parser.parse_args(argv)
    with user_errors_in_one_line("run the same command to go on"):
        records = open_records(arguments.records)
        options = {"shard_mb": arguments.shard_mb, "workers": arguments.workers}
        to_webdataset(records, arguments.out, arguments.split, **options)


if __name__ == "__main__":
    main()
