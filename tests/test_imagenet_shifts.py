"""ImageNet's relatives as they were released: which class a folder is, and what a conversion makes of them."""

import json

import numpy as np
import pytest
from PIL import Image

from data_prep import convert
from data_prep.sources import imagenet_shifts
from data_prep.sources.by_name import SOURCES
from data_prep.sources.items import Request
from lit_jax.data.records import decode, open_records
from lit_jax.data.tfrecord import read_frames
from lit_jax.errors import UserError
from lit_jax.text.classes import read_class_table

SYNSETS = (
    "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn03710637 maillot\nn03710721 maillot, tank suit\n"
)


@pytest.fixture
def synsets(tmp_path):
    path = tmp_path / "LOC_synset_mapping.txt"
    path.write_text(SYNSETS)
    return path


def photos(root, *folders):
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        Image.fromarray(np.full((20, 24, 3), 10 * number, np.uint8)).save(root / folder / f"photo_{number}.jpeg")
    return root


def classes_of(source):
    """Folder of each photo to the name of its class."""
    rows = dict(zip(source.table.columns["folder"], source.table.columns["name"], strict=True))
    items = list(source.items)
    assert {item.split for item in items} == {"validation"}
    return {item.image_id.split("/")[-2]: rows[item.class_name] for item in items}


def test_names_are_read_from_every_list_and_no_two_classes_are_one(synsets, tmp_path):
    names = ("tench", "crane (n02012849)", "crane (n03126707)", "maillot", "maillot, tank suit")
    assert imagenet_shifts.read_names(synsets).columns["name"] == names
    index = tmp_path / "imagenet_class_index.json"
    index.write_text(json.dumps({"0": ["n01440764", "tench"], "1": ["n02012849", "crane_bird"]}))
    assert imagenet_shifts.read_names(index).columns["name"] == ("tench", "crane bird")
    table = tmp_path / "own.csv"
    table.write_text("folder,name\nn01440764,a tench\n")
    assert imagenet_shifts.read_names(table).columns["name"] == ("a tench",)
    table.write_text("name\na tench\n")
    with pytest.raises(UserError, match="no column folder"):
        imagenet_shifts.read_names(table)
    synsets.write_text("tench\n")
    with pytest.raises(UserError, match="found a line of another form"):
        imagenet_shifts.read_names(synsets)


@pytest.mark.parametrize("name", ["imagenet-r", "imagenet-a", "imagenet-sketch"])
def test_folders_are_wordnet_ids_and_only_those_there_are_classes(name, synsets, tmp_path):
    root = photos(tmp_path / "set", "n03126707", "n01440764")
    source = SOURCES[name](Request(str(root), classes=synsets))
    assert classes_of(source) == {"n03126707": "crane (n03126707)", "n01440764": "tench"} and len(source.table) == 2
    with pytest.raises(UserError, match="--classes: found none, expected the names of ImageNet's classes"):
        SOURCES[name](Request(str(root)))
    photos(root, "n99999999")
    with pytest.raises(UserError, match="n99999999"):
        SOURCES[name](Request(str(root), classes=synsets))


def test_folders_of_v2_are_places_in_the_order_of_wordnet_ids(synsets, tmp_path):
    synsets.write_text("".join(sorted(SYNSETS.splitlines(keepends=True), reverse=True)))
    root = photos(tmp_path / "set", "0", "2", "4")
    source = SOURCES["imagenet-v2"](Request(str(root), classes=synsets))
    assert classes_of(source) == {"0": "tench", "2": "crane (n03126707)", "4": "maillot, tank suit"}
    columns = source.table.columns
    assert dict(zip(columns["folder"], columns["wordnet_id"], strict=True)) == {
        "0": "n01440764", "2": "n03126707", "4": "n03710721",
    }  # fmt: skip
    photos(root, "5")
    with pytest.raises(UserError, match="5"):
        SOURCES["imagenet-v2"](Request(str(root), classes=synsets))


def test_objectnet_has_names_of_its_own(tmp_path):
    root = photos(tmp_path, "images/air_freshener", "images/alarm_clock").parent / tmp_path.name
    (root / "mappings").mkdir()
    names = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock"}
    (root / imagenet_shifts.OBJECTNET_NAMES).write_text(json.dumps(names))
    (root / imagenet_shifts.OBJECTNET_TO_IMAGENET).write_text(json.dumps({"Alarm clock": "analog clock"}))
    assert classes_of(SOURCES["objectnet"](Request(str(root)))) == names
    shared = SOURCES["objectnet"](Request(str(root), subsets=("imagenet",)))
    assert classes_of(shared) == {"alarm_clock": "Alarm clock"} and len(shared.table) == 1
    with pytest.raises(UserError, match="--subsets: found others, expected imagenet"):
        SOURCES["objectnet"](Request(str(root), subsets=("others",)))
    (root / imagenet_shifts.OBJECTNET_NAMES).unlink()
    with pytest.raises(UserError, match="folder_to_objectnet_label.json: found No such file"):
        SOURCES["objectnet"](Request(str(root)))


def test_a_conversion_makes_records_to_evaluate(synsets, tmp_path):
    root = photos(tmp_path / "set", "n03126707", "n01440764")
    out = tmp_path / "records"
    convert.main([
        "--source=imagenet-sketch", f"--images={root}", f"--classes={synsets}", f"--out={out}", "--allow-no-training",
        "--vocab-size=0", "--workers=1",
    ])  # fmt: skip
    records = open_records(out)
    assert list(records.splits) == ["validation"] and records.examples("validation") == 2
    table = read_class_table(records.class_table)
    (path,) = records.files("validation")
    named = {(one := decode(frame)).image_id: table.names[table.index_of(one.class_id)] for frame in read_frames(path)}
    assert {key.split("/")[0]: name for key, name in named.items()} == {
        "n03126707": "crane (n03126707)", "n01440764": "tench",
    }  # fmt: skip
