"""Lists of species as people have them; ``region_lists.json`` has the cases, which the page's reader passes as well."""

import codecs
import json
from pathlib import Path

import pytest

from lit_jax.errors import UserError
from lit_jax.prediction.choices import only
from lit_jax.text.classes import ClassTable
from lit_jax.text.labels import read_entries

CASES = json.loads(Path(__file__).with_name("region_lists.json").read_text(encoding="utf-8"))
TABLE = ClassTable(tuple(range(6)), {column: tuple(values) for column, values in CASES["columns"].items()})


def raw(case: dict[str, str]) -> bytes:
    """The bytes of a list; `codecs` and not `str.encode`, which knows no mark for utf-16-be."""
    return codecs.encode(case["text"], case.get("encoding", "utf-8"))


@pytest.mark.parametrize("case", CASES["lists"], ids=lambda case: case["what"])
def test_each_species_of_a_list_is_found(tmp_path: Path, case: dict) -> None:
    path = tmp_path / "region.csv"
    path.write_bytes(raw(case))
    if "line" in case:
        with pytest.raises(UserError, match=rf"region\.csv line {case['line']}: found .*; (mend|put) ") as refusal:
            read_entries(path)
        assert "\n" not in str(refusal.value)
        return
    assert list(only(TABLE, path).table.ids) == case["species"]
    if "entries" in case:
        assert read_entries(path) == case["entries"]


def test_the_shared_lists(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "region_lists"
    if not folder.is_dir():
        pytest.skip("no shared cases beside the project")
    for path in sorted(folder.iterdir()):
        assert list(only(TABLE, path).table.ids) == [0, 1, 2, 3, 4, 5], path.name
