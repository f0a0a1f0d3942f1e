import ast
import dataclasses
import doctest
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from lit_jax import config
from lit_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def config_file(tmp_path, body="pass", extra=""):
    path = tmp_path / "some.py"
    path.write_text(
        f"from lit_jax.config import defaults\ndef get_config():\n    config = defaults()\n    {body}\n"
        f"    return config\n{extra}"
    )
    return path


def test_a_file_and_overrides_give_a_frozen_checked_config(tmp_path):
    path = config_file(tmp_path, "config.train.epochs = 3")
    got, prepare = config.load(path, {"optimizer.lr": "1e-3", "data.flip": "true", "data.crop_scale": "0.5,1"})
    assert (got.train.epochs, got.optimizer.lr, got.data.flip) == (3.0, 1e-3, True)
    assert tuple(got.data.crop_scale) == (0.5, 1.0) and prepare is None
    with pytest.raises(AttributeError):
        got.train.epochs = 4


def test_a_prepare_function_is_handed_over(tmp_path):
    _, prepare = config.load(config_file(tmp_path, extra="def prepare(config):\n    return 'made'\n"))
    assert prepare(None) == "made"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("optimzer.lr", "optimizer.lr"), ("optimizer.lrr", "optimizer.lr"), ("lr", "optimizer.lr"),
     ("train.batchsize", "train.batch_size"), ("sed", "seed"), ("text.dept", "text.depth")],
)  # fmt: skip
def test_a_misspelt_override_is_refused_with_the_nearest_name(tmp_path, name, meant):
    with pytest.raises(UserError, match=rf"option {name}: found an unknown name.*did you mean {meant}\?"):
        config.load(config_file(tmp_path), {name: "1"})


@pytest.mark.parametrize("name", ["zzz", "colour", "train.zzz", "folds"])
def test_nothing_is_named_where_no_option_is_near(tmp_path, name):
    with pytest.raises(UserError) as refused:
        config.load(config_file(tmp_path), {name: "1"})
    assert str(refused.value).startswith(f"option {name}: found an unknown name") and "did you" not in str(
        refused.value
    )


@pytest.mark.parametrize(
    "line",
    [
        "config.text.haeds = 4",
        "config.text.width, config.text.haeds = 64, 4",
        "text = config.text; text.haeds = 4",
        "text = config['text']; text['haeds'] = 4",
    ],
)
def test_a_misspelt_option_of_a_section_is_looked_for_in_that_section(tmp_path, line):
    with pytest.raises(UserError, match=r"found unknown option 'text.haeds', .*; did you mean text.heads\?"):
        config.load(config_file(tmp_path, line))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("image.haeds", "image.heads"), ("text.hed", "text.heads"), ("txt.haeds", "text.heads")],
)
def test_the_section_counts_before_the_name(name, meant):
    assert config.nearest(name) == meant


def test_a_misspelt_option_in_a_file_is_refused_too(tmp_path):
    with pytest.raises(
        UserError, match=r"found unknown option 'train.epoch', expected a known one; did you mean train.epochs"
    ):
        config.load(config_file(tmp_path, "config.train.epoch = 3"))
    path = tmp_path / "own.py"
    path.write_text(
        "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({'trian': {'epochs': 1.0}})\n"
    )
    with pytest.raises(UserError, match=r"option trian.epochs.*did you mean train.epochs"):
        config.load(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("train.batch_size", "many"), "train.batch_size: found 'many', expected a whole number"),
        (("data.flip", "maybe"), "data.flip: found 'maybe', expected true or false"),
        (("data.crop_scale", "0.5"), "data.crop_scale: found .0.5,., expected 2 numbers such as 0.9,1"),
        (("train.precision", "float8"), "train.precision: found 'float8', expected one of float32, bfloat16, float16"),
        (("optimizer.b1", "1.5"), "optimizer.b1: found 1.5, expected at least 0 and at most 1"),
        (("train.batch_size", "0"), "train.batch_size: found 0, expected at least 1"),
    ],
)
def test_bad_values_are_refused_with_what_was_expected(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        config.load(config_file(tmp_path), dict([override]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.optimizer.lr = '1e-3'", "optimizer.lr: found a value of another type, expected a number"),
        ("config.data.crop_scale = 0.6", "data.crop_scale: found a value of another type, expected 2 numbers"),
        ("config.trian.epochs = 3.0", "found unknown option 'trian', expected a known one; did you mean train"),
        ("config.train.epochs = epochs", r"found NameError in line 4: name 'epochs' is not defined"),
        ("config.image.std = (0.5, -0.5, 0.5)", "image.std: found .0.5, -0.5, 0.5., expected at least 0"),
        ("config = None", "found that get_config returns None, expected the config; add a return"),
    ],
)
def test_values_of_the_wrong_type_in_a_file_are_one_line(tmp_path, body, message, monkeypatch):
    path = config_file(tmp_path, body)
    monkeypatch.chdir(tmp_path)
    for called in (path, path.name):  # absolute and relative
        with pytest.raises(UserError, match=message):
            config.load(called)


def wrong_values(option):
    """Values that no option of this kind takes: of another type, not finite, or of another length."""
    default = option.default
    numbers = [float("nan"), float("inf"), float("-inf")]
    if isinstance(default, tuple):
        length = len(default)
        parts = ["a", None, True, (1.0,), *numbers]
        return ["text", None, True, 1.0, (), default * 2, *((part, *default[1:]) for part in parts), ("a",) * length]
    if isinstance(default, bool):
        return [1, 0, 1.0, "true", None, ()]
    if isinstance(default, int):
        return [True, 1.5, "1", None, (1,), *numbers]
    if isinstance(default, float):
        return [True, "1", None, (1.0,), *numbers]
    return [1, 1.0, True, None, ("a",)]


@pytest.mark.parametrize("name", [*config.OPTIONS])
def test_no_option_takes_what_is_not_of_its_type_or_not_finite(name):
    for value in wrong_values(config.OPTIONS[name]):
        with pytest.raises(UserError) as refused:
            config.from_flat({name: value}, source="config x")
        assert str(refused.value).startswith(f"config x: {name}: found {value!r}, expected ")


@pytest.mark.parametrize("name", [name for name, one in config.OPTIONS.items() if not isinstance(one.default, str)])
def test_the_command_line_takes_no_such_values_either(tmp_path, name):
    length = len(config.OPTIONS[name].default) if isinstance(config.OPTIONS[name].default, tuple) else 1
    for text in ("a", "inf", "-inf", "nan", "1e999", "", "('a',1.0)"):
        with pytest.raises(UserError, match=rf"{name}: found .*, expected "):
            config.load(config_file(tmp_path), {name: ",".join([text] * length)})


def test_configs_of_the_package_go_by_their_names_where_there_is_no_such_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "demo.py", "configs/demo.py"):
        assert config.find(name) == ROOT / "configs" / "demo.py"
    mine = config_file(tmp_path, "config.seed = 7").rename(tmp_path / "demo.py")
    assert config.load("demo.py")[0].seed == 7 and mine.exists()
    with pytest.raises(
        UserError, match=r"found no file else/demo.py, .* come with the package: .*; did you mean demo\?"
    ):
        config.find("else/demo.py")


def test_missing_broken_and_empty_files(tmp_path):
    with pytest.raises(UserError, match="--config: found no file"):
        config.load(tmp_path / "none.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(:\n")
    with pytest.raises(UserError, match="found a syntax error in line 1"):
        config.load(broken)
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(UserError, match="found no function get_config"):
        config.load(empty)


def test_overrides_are_parted_from_other_arguments():
    others, overrides = config.split_arguments(
        ["--config=a.py", "--config.seed=1", "--workdir", "w", "--config.train.locks", "uu"]
    )
    assert others == ["--config=a.py", "--workdir", "w"] and overrides == {"seed": "1", "train.locks": "uu"}
    with pytest.raises(UserError, match=r"found no --config. before it, expected --config.train.epochs=2"):
        config.split_arguments(["--train.epochs=2"])
    with pytest.raises(UserError, match="option seed: found no value"):
        config.split_arguments(["--config.seed"])


def test_from_flat_and_flattened_are_inverse():
    flat = config.flattened(config.Config())
    assert list(flat) == list(config.OPTIONS)
    changed = {**flat, "seed": 3, "image.mean": (0.1, 0.2, 0.3), "train.locks": "LU"}
    made = config.from_flat(changed, source="test")
    assert config.flattened(made) == changed and made.image.mean == (0.1, 0.2, 0.3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seed = 4
    assert isinstance(config.defaults(), ml_collections.ConfigDict)


def test_only_options_that_matter_count_as_a_difference():
    flat = config.flattened(config.Config())
    assert config.difference(flat, {**flat, "log.every_steps": 99, "workdir": "x"}) == []
    assert config.difference(flat, {**flat, "optimizer.lr": 1.0}) == ["optimizer.lr: 0.0005 -> 1.0"]
    assert config.digest(flat) != config.digest({**flat, "optimizer.lr": 1.0})


def test_every_option_is_used():
    """That every use is an option is checked by the types."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "lit_jax").rglob("*.py") if path.name != "config.py"]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [name for name in config.OPTIONS if name.rpartition(".")[2] not in used] == []


def test_a_misspelt_option_on_the_command_line_is_one_line_and_exit_code_2():
    command = [sys.executable, "-m", "lit_jax.main", "--config=configs/demo.py", "--config.optimzer.lr=1"]
    got = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 2 and got.stdout == ""
    assert got.stderr.count("\n") == 1 and "did you mean optimizer.lr?" in got.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    got, _ = config.load(path)
    assert got.train.batch_size > 0


def test_examples_in_the_documentation_run():
    assert doctest.testmod(config).failed == 0


def test_own_photos_offer_a_recipe_for_few_species_and_one_for_others():
    import importlib.util

    spec = importlib.util.spec_from_file_location("own_photos", ROOT / "configs" / "own_photos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    few = module.get_config()
    assert (few.text.tower, few.model.start, few.evaluation.margin_folds) == ("units", "solve", 5)
    module.FEW = False
    others = module.get_config()
    assert (others.text.pool, others.model.start, others.train.epochs) == ("mean", "", 20.0)
    assert few.input == others.input == "store" and few.image.tower == others.image.tower
