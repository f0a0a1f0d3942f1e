"""What commands write to: nothing goes that this program did not write, and one command at a time writes a name."""

import contextlib
import importlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from lit_jax.base import files, folders
from lit_jax.base.files import alone_in, alone_with, incomplete, written_aside
from lit_jax.errors import Busy, UserError, user_errors_in_one_line
from lit_jax.prediction import output
from lit_jax.prediction.answers import Named
from lit_jax.prediction.sorting import sort_photo

ROOT = pathlib.Path(__file__).parent.parent
PHOTOS = {"IMG_1.jpg": b"\xff\xd8 a photo", "2024/IMG_2.jpg": b"\xff\xd8 another", "splits.csv": b"file,class\n"}


def put(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def held(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def given(finished, records, tiny_config, tmp_path_factory, field_guide_folder):
    """What commands read: paths by name."""
    from lit_jax import config
    from lit_jax.embed import embed

    store = tmp_path_factory.mktemp("stores") / "store"
    embed(config.load(str(tiny_config), {})[0], store)
    head = store.with_name("head.npy")
    np.save(head, np.ones((12, 4), np.float32))
    return {
        "run": finished[0],
        "config": tiny_config,
        "records": records.directory,
        "store": store,
        "classes": field_guide_folder / "classes.csv",
        "photos": field_guide_folder / "photos",
        "head": head,
        "one": sorted((field_guide_folder / "photos").iterdir())[0],
    }


# Command, its arguments with {target}, and the name of the target in the user's folder; "" for the folder itself.
WRITES = {
    "main": ("lit_jax.main --config={config} --workdir={target}", ""),
    "embed": ("lit_jax.embed --config={config} --out={target}", ""),
    "embed restart": ("lit_jax.embed --config={config} --out={target} --restart", ""),
    "evaluate": ("lit_jax.evaluate --checkpoint={run} --out={target}", "mine.json"),
    "evaluate page": ("lit_jax.evaluate --checkpoint={run} --out={target}", "page.json"),
    "predict": ("lit_jax.predict --checkpoint={run} {one} --out={target} --format=csv", "IMG_1.jpg"),
    "predict folder": ("lit_jax.predict --checkpoint={run} {one} --out={target} --format=csv --overwrite", ""),
    "predict record": ("lit_jax.predict --checkpoint={run} {one} --out={target}", "new.csv"),
    "predict sort": ("lit_jax.predict --checkpoint={run} {one} --sort-into={target}", ""),
    "predict sort into a file": ("lit_jax.predict --checkpoint={run} {one} --sort-into={target}", "mine.json"),
    "search": ("lit_jax.search --checkpoint={run} --photos={photos} bird --index={target}", ""),
    "search store": ("lit_jax.search --checkpoint={run} --store={store} bird --index={target}", ""),
    "search out": ("lit_jax.search --checkpoint={run} --photos={photos} bird --out={target}", "IMG_1.jpg"),
    "export": ("lit_jax.export --checkpoint={run} --out={target}", ""),
    "export onnx": ("lit_jax.export --checkpoint={run} --format=onnx --out={target}", ""),
    "export open_clip": ("lit_jax.export --checkpoint={run} --format=open_clip --out={target}", ""),
    "site": ("lit_jax.site --checkpoint={run} --out={target}", ""),
    "site one file": ("lit_jax.site --checkpoint={run} --one-file --out={target}", "page.html"),
    "plan": ("lit_jax.plan --config={config} --json={target}", "mine.json"),
    "probe": ("lit_jax.probe --store={store} --split=validation --out={target}", "mine.json"),
    "leaks": ("lit_jax.leaks --store={store} --out={target}", "mine.json"),
    "robustness": ("lit_jax.robustness --checkpoint={run} --out={target}", "mine.json"),
    "convert": ("data_prep.convert --images={photos} --classes={classes} --out={target}", ""),
    "convert restart": ("data_prep.convert --images={photos} --classes={classes} --out={target} --restart", ""),
    "captions": ("data_prep.captions --classes={classes} --out={target}", "splits.csv"),
    "ranks": ("data_prep.ranks --classes={classes} --from={classes} --out={target}", "splits.csv"),
    "embeddings": ("data_prep.embeddings --classes={classes} --head={head} --out={target}", ""),
    "embeddings restart": ("data_prep.embeddings --classes={classes} --head={head} --out={target} --restart", ""),
    "to_webdataset": ("data_prep.to_webdataset --records={records} --out={target}", ""),
    "clip_templates": ("data_prep.clip_templates --file=no --out={target}", "splits.csv"),
    "field_guide": ("data_prep.field_guide --out={target}", ""),
    "pretrain_tower": ("data_prep.pretrain_tower --out={target}", "IMG_1.jpg"),
}
MORE = {"mine.json": b'{"thesis": 1}', "page.html": b"<p>mine", "new.csv.run.json": b'{"mine": 1}'}


@pytest.mark.parametrize("name", WRITES)
def test_a_folder_of_photos_is_never_touched(name, given, tmp_path, capsys):
    mine = put(tmp_path / "mine", PHOTOS | MORE)
    before = held(mine)
    command, target = WRITES[name]
    module, *arguments = command.format(target=mine / target if target else mine, **given).split()
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main(arguments)
    assert ended.value.code == 2 and held(mine) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(mine) in line and "found" in line and "expected" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]  # nothing aside is left


def test_every_command_that_writes_is_tried_above():
    tried = {command.split()[0] for command, _ in WRITES.values()}
    option = re.compile(r'"--(out|workdir|index|json|sort-into)"')
    for folder in ("lit_jax", "data_prep"):
        for path in (ROOT / folder).glob("*.py"):
            if option.search(path.read_text(encoding="utf-8")):
                assert f"{folder}.{path.stem}" in tried, path


@pytest.mark.parametrize("kind", ["export", "site", "field guide"])
def test_what_is_aside_and_not_ours_stays(kind, tmp_path):
    mine = put(incomplete(tmp_path / "new"), PHOTOS)
    with (
        pytest.raises(UserError, match="found 2024, expected no such folder, or what an interrupted"),
        folders.made(tmp_path / "new", kind),
    ):
        raise AssertionError("must not begin")
    assert held(mine) == PHOTOS


def test_what_a_killed_command_left_aside_goes(tmp_path):
    with contextlib.suppress(ZeroDivisionError), folders.made(tmp_path / "new", "export") as aside:
        shutil.copytree(aside, tmp_path / "kept")
        (tmp_path / "kept" / "half.bin").write_bytes(b"half")
        raise ZeroDivisionError
    assert not incomplete(tmp_path / "new").exists()  # one that fails leaves nothing
    (tmp_path / "kept").rename(incomplete(tmp_path / "new"))  # as after a kill
    with folders.made(tmp_path / "new", "export") as aside:
        (aside / "a").write_bytes(b"whole")
    assert held(tmp_path / "new") == {"a": b"whole"} and sorted(os.listdir(tmp_path)) == ["new"]


def test_a_folder_that_is_replaced_gives_its_other_files_to_the_new_one(tmp_path):
    folder = put(tmp_path / "index", {"index.json": b"old", "found.html": b"mine", "sheets/a.html": b"mine"})
    new = put(tmp_path / "aside", {"index.json": b"new"})
    folders.replace(new, folder, lambda name: name in ("index.json", folders.MARK))
    assert held(folder) == {"index.json": b"new", "found.html": b"mine", "sheets/a.html": b"mine"}
    assert os.listdir(tmp_path) == ["index"]


@contextlib.contextmanager
def killed_at(place):
    """Ends the body before so many changes to the disk have been made, as a kill would; gives those that were."""
    made = []

    def change(act):
        def changed(self, *given, **more):
            if len(made) == place:
                raise KeyboardInterrupt
            made.append(act.__name__)
            return act(self, *given, **more)

        return changed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        for name in ("rename", "replace", "unlink", "rmdir", "touch", "mkdir", "write_text"):
            patch.setattr(pathlib.Path, name, change(getattr(pathlib.Path, name)))
        yield made


def test_a_kill_while_a_folder_is_replaced_loses_nothing(tmp_path):
    ours = {"index.json", folders.MARK}.__contains__
    old = {"index.json": b"old", "found.html": b"mine", "sheets/a.html": b"mine"}
    for place in range(20):
        here = tmp_path / str(place)
        folder, new = put(here / "index", old), put(here / "index.incomplete", {"index.json": b"new"})
        with killed_at(place) as made:
            folders.replace(new, folder, ours)
        folders.recover(folder, ours, "search")
        assert held(folder) in (old, {**old, "index.json": b"new"}), made
        assert {"index"} <= {*os.listdir(here)} <= {"index", "index.incomplete"}, made
        folders.replace(put(here / "aside again", {"index.json": b"newest"}), folder, ours)
        assert held(folder) == {**old, "index.json": b"newest"}, made
    assert len(made) < place  # the last ones were not killed


def test_a_kill_while_an_empty_folder_is_replaced_leaves_it_empty(tmp_path):
    for place in range(12):
        folder = tmp_path / str(place) / "set"
        new = put(folder.with_name("set.incomplete"), {"a": b"new"})
        folder.mkdir()
        with killed_at(place) as made:
            folders.replace(new, folder, lambda name: name in ("a", folders.MARK))
        folders.recover(folder, lambda name: name in ("a", folders.MARK), "conversion")
        assert held(folder) in ({}, {"a": b"new"}), made
    assert len(made) < place


def test_the_mark_of_a_kill_after_the_last_renaming_goes(tmp_path):
    for place in range(12):
        folder = tmp_path / str(place) / "model"
        with killed_at(place), folders.made(folder, "export") as aside:
            (aside / "a").write_bytes(b"whole")
        if folder.exists():
            with pytest.raises(UserError, match="found something there already"):
                folders.refuse_there(folder, "--out")
            assert held(folder) == {"a": b"whole"}


def test_what_is_being_replaced_by_another_process_is_left_to_it(tmp_path):
    """A moment in which the folder has no name, since the other is about to give it to the new one."""
    put(tmp_path / "set.replaced", {"a": b"old", folders.MARK: b""})
    with alone_in(incomplete(tmp_path / "set"), "conversion"):
        folders.recover(tmp_path / "set", lambda name: name in ("a", folders.MARK), "conversion")
        assert not (tmp_path / "set").exists()
    folders.recover(tmp_path / "set", lambda name: name in ("a", folders.MARK), "conversion")
    assert held(tmp_path / "set") == {"a": b"old"}


def test_two_files_of_somebody_else_that_have_one_name_both_stay(tmp_path):
    ours = {"a", folders.MARK}.__contains__
    folder, new = (put(tmp_path / name, {"a": b"", "notes": name.encode()}) for name in ("set", "set.incomplete"))
    with pytest.raises(UserError, match=r"set\.incomplete/notes: found one in .*/set too, expected one of them"):
        folders.replace(new, folder, ours)
    old = put(tmp_path / "set.replaced", {"a": b"", "notes": b"oldest", folders.MARK: b""})
    with pytest.raises(UserError, match=r"set/notes: found one in .*/set\.replaced too, expected one of them"):
        folders.recover(folder, ours, "conversion")
    assert [held(one)["notes"] for one in (folder, new, old)] == [b"set", b"set.incomplete", b"oldest"]


def test_a_backup_that_has_the_name_of_a_replaced_folder_stays(tmp_path):
    folder = put(tmp_path / "index", {"index.json": b"old"})
    backup = put(tmp_path / "index.replaced", {"index.json": b"older"})
    with pytest.raises(UserError, match=r"index\.replaced: found a folder there, expected none; move it away"):
        folders.replace(put(tmp_path / "aside", {"index.json": b"new"}), folder, lambda name: True)
    assert held(backup) == {"index.json": b"older"} and held(folder) == {"index.json": b"old"}


def test_links_in_circles_are_no_target(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for act in (
        lambda path: files.new_file(path, overwrite=True),
        folders.resolved,
        lambda path: files.write_json(path, {}),
    ):
        with pytest.raises(UserError, match="one: found links that lead in circles"):
            act(tmp_path / "one")
    assert os.readlink(tmp_path / "one") == "two"


def test_nothing_is_made_beside_the_root_of_the_disk():
    with pytest.raises(UserError, match="/: found the root of a disk, expected a folder below it"):
        folders.resolved("/")


def test_a_device_is_no_file_to_write(tmp_path):
    for path, kind in ((pathlib.Path("/dev/null"), "device"), (tmp_path, "folder")):
        with pytest.raises(UserError, match=f"found a {kind}, expected a file or a new name"), written_aside(path):
            raise AssertionError("must not begin")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="found a pipe, expected a file"):
        files.write_json(tmp_path / "pipe", {})
    assert pathlib.Path("/dev/null").is_char_device()


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "made.json")
    for name in ("link.json", "dangling.json"):
        files.write_json(tmp_path / name, [1])
        assert (tmp_path / name).is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == json.loads((tmp_path / "made.json").read_text()) == [1]
    (tmp_path / "disk").mkdir()
    (tmp_path / "app").symlink_to(tmp_path / "disk" / "app")
    with folders.made(tmp_path / "app", "site") as aside:
        (aside / "a").write_bytes(b"a")
    assert held(tmp_path / "disk" / "app") == {"a": b"a"} and (tmp_path / "app").is_symlink()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_second_command_on_the_same_name_is_refused_and_the_first_is_whole(kind, tmp_path):
    target = tmp_path / "target"
    code = f"""
import pathlib, sys
from lit_jax.base import files, folders
from lit_jax.errors import user_errors_in_one_line
target = pathlib.Path({str(target)!r})
with user_errors_in_one_line():
    with folders.made(target, "site") if {kind == "folder"} else files.alone_with(target, "predict"):
        print("begun", flush=True)
        sys.stdin.read()
"""
    first = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "begun\n"
    second = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, check=False)
    assert second.returncode == 2 and "found another" in second.stderr and len(second.stderr.splitlines()) == 1
    first.communicate()
    assert first.returncode == 0 and target.exists() == (kind == "folder")
    assert os.listdir(tmp_path) == (["target"] if kind == "folder" else [])  # no lock is left


def test_a_lock_is_gone_in_the_end_and_files_and_folders_of_the_user_stay(tmp_path):
    (tmp_path / "names.csv.lock").write_text("mine")
    target = tmp_path / "names.csv"
    busy = pytest.raises(Busy, match="found another predict at work in it")
    with alone_with(target, "predict"), busy, alone_with(target, "predict"):
        raise AssertionError("must not begin")
    assert held(tmp_path) == {"names.csv.lock": b"mine"}
    with alone_in(tmp_path, "run", file=".lock"):
        assert (tmp_path / ".lock").exists()
    assert held(tmp_path) == {"names.csv.lock": b"mine"}
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "new"):
        with alone_in(tmp_path / folder, "run"):
            assert (tmp_path / folder).is_dir()
    assert (tmp_path / "empty").is_dir() and not (tmp_path / "new").exists()


def test_long_names_are_cut_to_what_file_systems_take_and_stay_distinct():
    names = [f"{'ä' * 200}{i}.jpeg" for i in range(50)]
    short = {files.shortened(name) for name in names}
    assert len(short) == 50 and max(len(os.fsencode(name)) for name in short) <= 255
    assert all(name.endswith(".jpeg") for name in short) and files.shortened("a.jpg") == "a.jpg"


FULL = {
    "predict": "lit_jax.predict --checkpoint={run} {photos} --top=5 --out={disk}/names.csv",
    "predict jsonl": "lit_jax.predict --checkpoint={run} {photos} --top=5 --out={disk}/names.jsonl",
    "sort": "lit_jax.predict --checkpoint={run} {photos} --sort-into={disk}/sorted --out={tmp}/names.csv",
    "search": "lit_jax.search --checkpoint={run} --photos={photos} bird --index={disk}/index",
    "search store": "lit_jax.search --checkpoint={run} --store={store} bird --index={disk}/index",
    "contact sheet": "lit_jax.search --checkpoint={run} --photos={photos} bird --index={tmp}/i --out={disk}/a.html",
    "export": "lit_jax.export --checkpoint={run} --out={disk}/model",
    "export onnx": "lit_jax.export --checkpoint={run} --format=onnx --out={disk}/model",
    "embed": "lit_jax.embed --config={config} --out={disk}/store",
    "evaluate": "lit_jax.evaluate --checkpoint={run} --out={disk}/e.json",
    "leaks": "lit_jax.leaks --store={store} --out={disk}/leaks.json",
    "convert": "data_prep.convert --images={photos} --classes={classes} --splits={splits} --vocab-size=0 --out={disk}/set",
    "to_webdataset": "data_prep.to_webdataset --records={records} --out={disk}/tars",
    "field_guide": "data_prep.field_guide --out={disk}/guide",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("sort", "embed"))) for name in FULL]
)
def test_a_full_disk_is_one_line_that_names_it(name, given, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = FULL[name].format(disk=disk, tmp=tmp_path, splits=given["classes"].with_name("splits.csv"), **given)
    arguments = arguments.replace(str(given["photos"]), str(given["photos"].parent)).split()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], check=True)
    try:
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(arguments[0]).main(arguments[1:])
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    line = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and line.startswith(f"error: {disk}") and "found No space left on device" in line, line


@pytest.mark.parametrize(
    "raised",
    [
        OSError(28, "No space left on device"),
        OSError(28, "No space left on device", "the source", None, "the copy"),  # of shutil.copyfile
        OSError("283392 requested and 73664 written"),  # of NumPy's tofile
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # of safetensors
    ],
)
def test_a_full_disk_names_the_file_whatever_says_it(raised, tmp_path, capsys):
    with pytest.raises(SystemExit), user_errors_in_one_line(), written_aside(tmp_path / "a.npy") as aside:
        aside.write_bytes(b"half")
        raise raised
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'a.npy'}: found No space left on device, expected")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("lit_jax.predict --checkpoint={run} {one} --out={tmp}/names.csv", "names.csv"),
        ("lit_jax.search --checkpoint={run} --photos={photos} bird --index={tmp}/index", "index"),
    ],
)
def test_a_command_whose_target_is_being_written_is_refused(command, target, given, tmp_path, capsys):
    module, *arguments = command.format(tmp=tmp_path, **given).split()
    with alone_with(tmp_path / target, "command"), pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main(arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and f"{target}: found another" in error and "wait for it or stop it" in error
    assert not list(tmp_path.iterdir())
    importlib.import_module(module).main(arguments)
    assert (tmp_path / target).exists()


def test_a_run_in_a_folder_of_photos_is_refused_before_anything_is_made(given, tmp_path, capsys, monkeypatch):
    from lit_jax import config, main
    from lit_jax.base import cluster

    mine = put(tmp_path / "mine", PHOTOS)
    monkeypatch.setattr(cluster, "joined", lambda *_: 1 / 0)  # it makes a folder for logs
    with pytest.raises(SystemExit):
        main.main([f"--config={given['config']}", f"--workdir={mine}"])
    assert "which is of no run" in capsys.readouterr().err
    with pytest.raises(UserError, match="found 2024, which is of no run"):
        main.train(config.load(str(given["config"]), {})[0], mine)
    assert held(mine) == PHOTOS


def test_a_run_begins_where_a_log_of_it_is_and_goes_on_in_its_own_folder(tmp_path):
    from lit_jax.main import refuse_foreign

    put(tmp_path / "run", {"train.log": b"", "slurm-12.out": b"", ".DS_Store": b"", "hosts/host-0.log": b""})
    refuse_foreign(tmp_path / "run")
    put(tmp_path / "run", {"config.json": b'{"train.epochs": 3}', "results.json": b"{}", "notes.md": b"of mine"})
    refuse_foreign(tmp_path / "run")
    put(tmp_path / "torch", {"checkpoints/last.pt": b"", "config.json": b'{"model": 1}'})
    with pytest.raises(UserError, match=r"--workdir .*torch: found config\.json, which is of no run, expected a new"):
        refuse_foreign(tmp_path / "torch")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: found a file, expected a folder"):
        refuse_foreign(tmp_path / "file")


def test_photos_are_sorted_into_names_of_any_length(tmp_path):
    from lit_jax.prediction.answers import Answer, Named
    from lit_jax.prediction.sorting import sort_photo

    names = ["Bird " * 100 + "a", "Bird " * 100 + "b", "Ωμέγα " * 60]
    photos = put(tmp_path / "photos", {f"{number}{'p' * 240}.jpg": bytes([number]) for number in range(2)})
    for _ in range(2):  # the second time all is there
        for path in sorted(photos.iterdir()):
            for name in names:
                named = Named(str(path), (Answer("species", name, "", {}, 1.0, True),))
                assert sort_photo(named, tmp_path / "sorted", link=False)
    found = held(tmp_path / "sorted")
    assert len({path.split("/")[0] for path in found}) == 3 and len(found) == 6
    assert all(len(os.fsencode(part)) <= 255 for path in found for part in path.split("/"))


def test_photos_of_one_name_as_long_as_names_may_be_are_all_sorted(tmp_path):
    from lit_jax.prediction.answers import Named
    from lit_jax.prediction.sorting import UNREADABLE, sort_photo

    for number in range(3):
        photo = put(tmp_path / str(number), {f"{'p' * 251}.jpg": bytes([number])}) / f"{'p' * 251}.jpg"
        assert sort_photo(Named(str(photo), error="x"), tmp_path / "sorted", link=False)
    found = held(tmp_path / "sorted")
    assert sorted(found.values()) == [b"\0", b"\1", b"\2"] and all(name.startswith(UNREADABLE) for name in found)


def test_a_pipe_that_is_sorted_is_there_and_not_copied(tmp_path):
    from lit_jax.prediction.answers import Named
    from lit_jax.prediction.sorting import sort_photo

    os.mkfifo(tmp_path / "x.jpg")
    assert sort_photo(Named(str(tmp_path / "x.jpg"), error="a pipe"), tmp_path / "sorted", link=False)
    assert not sort_photo(Named(str(tmp_path / "gone.jpg"), error="gone"), tmp_path / "sorted", link=False)
    assert not (tmp_path / "sorted").exists()


def test_what_is_in_the_way_of_a_sorted_photo_is_never_read_or_waited_for(tmp_path):
    from lit_jax.prediction.answers import Named
    from lit_jax.prediction.sorting import UNREADABLE, sort_photo

    photos = put(tmp_path / "photos", {"a.jpg": b"a"})
    (tmp_path / "sorted" / UNREADABLE).mkdir(parents=True)
    os.mkfifo(tmp_path / "sorted" / UNREADABLE / "a.jpg")
    assert sort_photo(Named(str(photos / "a.jpg"), error="x"), tmp_path / "sorted", link=False)
    assert held(tmp_path / "sorted") == {f"{UNREADABLE}/a-2.jpg": b"a"}


def test_a_table_never_has_the_record_of_another_command(tmp_path):
    """A kill at any moment: the table that is there is the old one without its record or with it, or the new one."""
    forms = {name: types.SimpleNamespace(head=f"{name}\n", beside=f"record of {name}") for name in ("old", "new")}
    for place in range(9):
        table = tmp_path / str(place) / "names.csv"
        table.parent.mkdir()
        with output.opened(table, forms["old"], 0):
            pass
        with killed_at(place) as made, output.opened(table, forms["new"], 0):
            pass
        with pytest.raises(UserError, match="found it there already"):
            output.check(table, overwrite=False)
        found, record = table.read_text().strip(), output.beside(table)
        assert not record.exists() or record.read_text() == f"record of {found}", made
        assert found == "old" or record.exists(), made
        if found == "new":
            assert sorted(os.listdir(table.parent)) == ["names.csv", "names.csv.run.json"]
    assert found == "new" and len(made) < place


def test_a_photo_that_was_half_copied_is_copied_again(tmp_path, monkeypatch):
    put(tmp_path, {"a.jpg": b"photo"})
    process = itertools.count(1000)
    monkeypatch.setattr(os, "getpid", lambda: next(process))
    named = Named(str(tmp_path / "a.jpg"), error="x")
    (tmp_path / "sorted" / "unreadable").mkdir(parents=True)
    for place in range(3):
        with killed_at(place):
            sort_photo(named, tmp_path / "sorted", link=False)
    assert sort_photo(named, tmp_path / "sorted", link=False)
    assert held(tmp_path / "sorted") == {"unreadable/a.jpg": b"photo"}


@pytest.mark.parametrize(
    "command",
    [
        "lit_jax.predict --checkpoint={run} {one} --out={tmp}/out/names.parquet",
        "lit_jax.search --checkpoint={run} --photos={one} --index={tmp}/index red --out={tmp}/out/found.html",
    ],
)
def test_a_half_written_file_of_a_command_that_was_killed_does_not_stay(command, given, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    name, *arguments = command.format(tmp=tmp_path, **given).split()
    replace = pathlib.Path.replace

    def killed(self, to):
        if self.parent.name == "out" and self.name.endswith(".part"):
            shutil.copy(self, tmp_path / self.name)
            raise KeyboardInterrupt
        return replace(self, to)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(pathlib.Path, "replace", killed)
        importlib.import_module(name).main(arguments)
    for part in tmp_path.glob("*.part"):
        part.rename(tmp_path / "out" / part.name)  # as after a kill
    pid = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: pid)
    importlib.import_module(name).main(arguments)
    assert len(os.listdir(tmp_path / "out")) == 1
