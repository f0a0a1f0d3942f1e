"""Folders as people have them: links in circles, thumbnails of a NAS, folders that macOS zips along."""

import glob
import os
from pathlib import Path

import pytest

from data_prep.sources.by_name import SOURCES
from data_prep.sources.items import Item, Request, Skip
from lit_jax.base.walking import CLOSED, COPIES, LINK, SORTED, SORTED_MARK, Walk
from lit_jax.errors import UserError
from lit_jax.prediction.found import find_photos


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff\xd8\xff")
    return root


def found(root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in find_photos([str(root)]).photos]


def items_of(root: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Photos with their class, and what was passed over with the reason."""
    source = SOURCES["folder"](Request(str(root)))
    every = list(source.items)
    photos = [(item.image_id, str(item.class_name)) for item in every if isinstance(item, Item)]
    return photos, {item.image_id: item.reason for item in every if isinstance(item, Skip)}


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    root = put(tmp_path / "birds", "crow/a.jpg", "crow/b.jpg", "jay/c.jpg")
    (root / "crow" / "up").symlink_to(root)
    (root / "jay" / "higher").symlink_to(tmp_path)
    (root / "jay" / "self").symlink_to(root / "jay")
    assert found(root) == ["crow/a.jpg", "crow/b.jpg", "jay/c.jpg"]
    photos, passed = items_of(root)
    assert photos == [("crow/a.jpg", "crow"), ("crow/b.jpg", "crow"), ("jay/c.jpg", "jay")]
    assert passed == dict.fromkeys(("crow/up", "jay/higher", "jay/self"), LINK)
    assert find_photos([str(root)]).notes[0] == f"{root}/crow/up: passed over, {LINK}"


def test_two_links_in_each_of_many_folders_end_at_once(tmp_path: Path) -> None:
    """Followed, they would be 2^30 folders."""
    outside = tmp_path / "outside"
    for level in range(30):
        put(outside / str(level), "a.jpg")
    for level in range(29):
        for name in ("x", "y"):
            (outside / str(level) / name).symlink_to(outside / str(level + 1))
    root = put(tmp_path / "root", "own.jpg")
    (root / "link").symlink_to(outside / "0")
    assert len(found(root)) == 31
    assert len(find_photos([f"{root}/**/*.jpg"]).photos) == 31


def test_a_link_that_leads_outside_is_followed_once_and_a_class_keeps_its_own_photos(tmp_path: Path) -> None:
    put(tmp_path / "disk", "crow/a.jpg", "jay/b.jpg")
    root = put(tmp_path / "birds", "owl/c.jpg")
    for name in ("crow", "jay"):
        (root / name).symlink_to(tmp_path / "disk" / name)
    (root / "a copy of owl").symlink_to(root / "owl")  # comes first by name
    photos, passed = items_of(root)
    assert photos == [("crow/a.jpg", "crow"), ("jay/b.jpg", "jay"), ("owl/c.jpg", "owl")]
    assert passed == {"a copy of owl": LINK}
    (root / "again").symlink_to(tmp_path / "disk" / "crow")
    assert sorted(found(root)) == ["again/a.jpg", "jay/b.jpg", "owl/c.jpg"]


def test_a_link_into_a_hidden_folder_is_the_only_way_there(tmp_path: Path) -> None:
    root = put(tmp_path / "birds", ".store/crow/a.jpg", "jay/b.jpg")
    (root / "crow").symlink_to(root / ".store" / "crow")
    assert found(root) == ["crow/a.jpg", "jay/b.jpg"]


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "Thumbnails", "#recycle", "Catalog Previews.lrdata"])
def test_folders_of_thumbnails_are_passed_over_and_said(name: str, tmp_path: Path) -> None:
    root = put(tmp_path / "birds", "crow/a.jpg", f"crow/{name}/a.jpg/SYNOPHOTO_THUMB_M.jpg", f"{name}/crow/._a.jpg")
    assert found(root) == ["crow/a.jpg"]
    assert [note.partition(": ")[2] for note in find_photos([str(root)]).notes] == [f"passed over, {COPIES}"] * 2
    photos, passed = items_of(root)
    assert photos == [("crow/a.jpg", "crow")] and passed == {name: COPIES, f"crow/{name}": COPIES}
    assert find_photos([f"{root}/{'crow' if name[0] != '_' else '*'}/*.jpg"]).photos == [f"{root}/crow/a.jpg"]


def test_a_folder_that_is_named_itself_is_looked_into_whatever_it_is_called(tmp_path: Path) -> None:
    root = put(tmp_path / "Thumbnails", "a.jpg", "crow/b.jpg")
    assert found(root) == ["a.jpg", "crow/b.jpg"]


def test_deep_trees_and_folders_without_permission_are_no_error(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(150):
        deep = deep / "d"
    put(deep, "a.jpg")
    assert len(found(tmp_path)) == 1
    assert list(Walk(tmp_path).files(tmp_path)) == [str(deep / "a.jpg")]


TREE = (
    "1.jpg",
    "n.txt",
    ".hid.jpg",
    "a/2.jpg",
    "a/b.jpg",
    "a/.hid/3.jpg",
    "[x]/4.jpg",
    "[x]/trap1/5.jpg",
    "trap2/c/6.JPG",
    "trap2/only hidden/.h/7.jpg",
    "a b/x?y/8.jpg",
    ".top/9.jpg",
)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(
    "pattern",
    [
        "**",
        "**/*",
        "a/**",
        "**/",
        "**/*.jpg",
        "**/**/*.jpg",
        "*/**/*.jpg",
        "**/a?b.jpg",
        "**/[ab].*",
        "**/[.a]*",
        "**/trap*",
        "**/trap*/*.jpg",
        "**/.h/*.jpg",
        "**/.hid/*.jpg",
        "**/.*.jpg",
        ".top/**/*.jpg",
        "[[]x]/**/*.jpg",
        "**/*/../1.jpg",
        "./**/*.jpg",
        "**/x*y/*.jpg",
        "none/**/*.jpg",
        "**/a/**",
    ],
)
def test_patterns_match_what_glob_matches(
    pattern: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "tree", *TREE)
    monkeypatch.chdir(tmp_path / "tree")
    pattern = str(tmp_path / "tree" / pattern) if absolute else pattern
    expected = set()
    for path in glob.glob(pattern, recursive=True):
        below = [
            found for found in TREE if os.path.realpath(found).startswith(os.path.join(os.path.realpath(path), ""))
        ]
        inside = [os.path.relpath(os.path.realpath(one), os.path.realpath(path)) for one in below]
        shown = [one for one in inside if "/." not in f"/{one}" and not one.endswith(".txt")]
        expected.update(
            (os.path.realpath(os.path.join(path, one)) for one in shown)
            if os.path.isdir(path)
            else [os.path.realpath(path)]
        )
    try:
        photos = find_photos([pattern]).photos
    except UserError:
        photos = []
    assert {os.path.realpath(path) for path in photos} == expected


def test_what_a_pattern_passes_over_is_said(tmp_path: Path) -> None:
    root = put(tmp_path / "birds", "crow/a.jpg", "crow/@eaDir/b.jpg")
    (root / "jay").symlink_to(root / "crow")
    photos, notes = find_photos([f"{root}/**/*.jpg"])
    assert photos == [f"{root}/crow/a.jpg"]
    assert sorted(notes) == [f"{root}/crow/@eaDir: passed over, {COPIES}", f"{root}/jay: passed over, {LINK}"]


def test_a_link_into_a_folder_of_copies_is_the_only_way_there(tmp_path: Path) -> None:
    root = put(tmp_path / "birds", "Thumbs/crow/a.jpg", "jay/b.jpg")
    (root / "crow").symlink_to(root / "Thumbs" / "crow")
    assert found(root) == ["crow/a.jpg", "jay/b.jpg"]


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, listed = put(tmp_path / "birds", "crow/a.jpg", "jay/b.jpg", "owl/c.jpg"), os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("jay"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert find_photos([str(root)]).notes == [f"{root}/jay: passed over, {CLOSED}"]
    assert items_of(root)[1] == {"jay": CLOSED}


def test_photos_that_were_sorted_are_not_named_again(tmp_path: Path) -> None:
    root = put(tmp_path / "birds", "a.jpg", "sorted/Crow/a.jpg", f"sorted/{SORTED_MARK}")
    assert found(root) == ["a.jpg"]
    assert find_photos([str(root)]).notes == [f"{root}/sorted: passed over, {SORTED}"]
    assert found(root / "sorted") == ["Crow/a.jpg"]  # named itself
