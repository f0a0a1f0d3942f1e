"""The demo's records: the field guide drawn and converted, as the demo's configs ask for it."""

import pathlib

from data_prep.conversion import convert
from data_prep.conversion.options import Options
from data_prep.demo import field_guide
from data_prep.sources import folder
from data_prep.sources.items import Source
from lit_jax.errors import refuse_without_tensorflow
from lit_jax.text.classes import read_class_table


def make(records: str | pathlib.Path) -> None:
    """Draws the photos into a folder beside the records, and converts them."""
    refuse_without_tensorflow()
    records = pathlib.Path(records)
    photos = records.with_name("demo_photos")
    print("drawing the field guide (once)", flush=True)
    field_guide.draw(field_guide.guide(), photos)
    source = Source(folder.read_folder(photos, photos / "splits.csv"), read_class_table(photos / "classes.csv"))
    convert.convert(source, records, Options(shards=4, vocab_size=512))
