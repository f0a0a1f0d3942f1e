"""The gate: style, types, layers, and promises about the package as a whole."""

import ast
import importlib
import os
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib

import pytest

import data_prep
import lit_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = sorted(
    module.name
    for package in (lit_jax, data_prep)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)
COMMANDS = ["lit_jax.main", "lit_jax.evaluate", "lit_jax.embed", "lit_jax.plan", "lit_jax.export", "lit_jax.probe", "lit_jax.leaks", "lit_jax.robustness", "lit_jax.predict", "lit_jax.search", "lit_jax.site", "lit_jax.check_cluster", "data_prep.convert", "data_prep.captions", "data_prep.ranks", "data_prep.clip_templates", "data_prep.field_guide",
            "data_prep.pretrain_tower", "data_prep.embeddings", "data_prep.to_webdataset"]  # fmt: skip


def tool(*arguments):
    """Runs a development tool of this environment from the root of the project."""
    path = pathlib.Path(sys.executable).with_name(arguments[0])
    got = subprocess.run([path, *arguments[1:]], cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 0, got.stdout + got.stderr


# What a user keeps beside them in the checkout, such as a config and photos, is not looked at.
OWN = ("lit_jax", "data_prep", "configs", "benchmarks", "docs", "tests", "setup.py", ".ci")


def test_style():
    tool("ruff", "check", *OWN)


def test_format():
    tool("ruff", "format", "--check", *OWN)


def test_types():
    tool("mypy")


def test_imports_go_down_the_layers_only():
    tool("lint-imports", "--no-cache")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_has_a_docstring(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--help"])
    assert stop.value.code in (None, 0) and f"python -m {name}" in capsys.readouterr().out


def loaded_by(code):
    got = subprocess.run(
        [sys.executable, "-c", code + "; import sys; print(*sys.modules)"], cwd=ROOT, capture_output=True, text=True
    )
    return set(got.stdout.split())


def test_the_constraints_name_a_version_of_each_requirement_for_every_python():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(one) for one in (*project["dependencies"], *extras["test"], *extras["docs"])]
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    for python in ("3.11", "3.12", "3.13"):
        where = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "sys_platform": "linux",
            "platform_machine": "x86_64",
        }
        fixed = {
            canonicalize_name(one.name): str(one.specifier)[2:]
            for one in lines
            if not one.marker or one.marker.evaluate(where)
        }
        for one in wanted:
            if one.name != "lit_jax" and (not one.marker or one.marker.evaluate(where)):
                assert fixed[canonicalize_name(one.name)] in one.specifier, (python, one)


def test_the_first_commands_of_the_readme_can_be_pasted_into_a_checkout():
    block = (ROOT / "README.md").read_text().split("```bash\n")[1].split("```")[0]
    commands = [line for line in block.splitlines() if not line.startswith("#")]
    assert len(commands) == 2
    for command in commands:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ")
        named = [part.rpartition("=")[2] for part in command.split() if "." in part.rpartition("=")[2]]
        assert all(
            part.startswith(".venv") or (ROOT / part).exists() or part in (".", "'.[test]'", "lit_jax.main")
            for part in named
        ), named


def test_without_tensorflow_records_are_refused_in_one_line(tmp_path):
    """As on a Python that TensorFlow has no wheel for: it is hidden, and what is said is what a person reads."""
    hide = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'tensorflow_datasets')))"
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "x.jpg").write_bytes(b"")
    (tmp_path / "classes.csv").write_text("name\na\n")
    demo = ["--config=demo", "--workdir=run", "--config.data.records=records"]
    convert = ["--images=photos", "--classes=classes.csv", "--out=out"]
    for command, arguments in (("lit_jax.main", demo), ("data_prep.convert", convert)):
        code = f"{hide}; from {command} import main; main({arguments!r})"
        got = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert got.returncode == 2 and len(got.stderr.splitlines()) == 1, got.stderr
        assert got.stderr.startswith("error: tensorflow and tensorflow_datasets: found none in Python 3"), got.stderr


def test_tensorflow_is_imported_late():
    code = "import lit_jax.training.experiment, lit_jax.evaluate, lit_jax.embed, lit_jax.main, lit_jax.predict, data_prep.convert"
    assert not {"tensorflow", "tensorflow_datasets", "matplotlib.pyplot", "sentencepiece"} & loaded_by(code)


def test_events_are_written_without_tensorflow_torch_or_tensorboard(tmp_path):
    # tensorboardX itself imports torch where it is installed: here none of them is, and events are written all the same.
    hide = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'torch', 'tensorboard')))"
    code = f"from lit_jax.training.metrics_log import MetricsLog as L; log = L({str(tmp_path)!r}); log.add({{'step': 1, 'a': 2.0}}); log.close()"
    loaded = loaded_by(f"{hide}; {code}")
    assert "tensorboardX" in loaded and list(tmp_path.glob("events*"))


def test_what_knows_nothing_of_models_imports_no_jax():
    code = "import lit_jax.config, lit_jax.text.captions, data_prep.conversion.columns, lit_jax.text.prompts, lit_jax.text.tokenizers, lit_jax.data.records, lit_jax.data.epoch_order, lit_jax.data.unique_captions, lit_jax.data.embedding_store, lit_jax.base.hosts, lit_jax.main"
    assert "jax" not in loaded_by(code)


def test_flax_is_known_to_models_only():
    for path in (ROOT / "lit_jax").glob("*.py"):
        assert not re.search(r"^\s*(import|from) flax", path.read_text(), re.M), path


def test_libraries_are_imported_where_the_house_says():
    for library, allowed in {
        "orbax": {"checkpoint.py"},
        "optax": {"optimizer.py", "train_step.py", "experiment.py", "probe.py"},
    }.items():
        for path in (ROOT / "lit_jax").rglob("*.py"):
            if re.search(rf"^\s*(import|from) {library}", path.read_text(), re.M):
                assert path.name in allowed, (library, path)


@pytest.mark.parametrize(
    ("written", "where"),
    [
        (r"\.part\"|\"\.incomplete\"", "lit_jax/base/files.py"),
        (r"ProcessPoolExecutor|get_context", "lit_jax/base/processes.py"),
    ],
)
def test_there_is_one_way_to_write_aside_and_one_pool_of_processes(written, where):
    for path in (path for package in ("lit_jax", "data_prep") for path in (ROOT / package).rglob("*.py")):
        assert str(path.relative_to(ROOT)) == where or not re.search(written, path.read_text()), path


def test_no_function_takes_more_than_seven_things():
    for path in (path for package in ("lit_jax", "data_prep") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [one.arg for one in given if one.arg not in ("self", "cls")]
                assert len(names) <= 7, (str(path), node.name, names)


def test_a_reader_that_has_gone_is_no_error():
    code = "from lit_jax.errors import user_errors_in_one_line as e\nwith e():\n    for i in range(50_000): print(i, 'x' * 50)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"0 x")
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 141


@pytest.mark.parametrize(
    ("module", "inner", "arguments", "goes_on"),
    [
        ("lit_jax.main", "options.load", "--config=x", True),
        ("lit_jax.embed", "options.load", "--config=x", True),
        ("lit_jax.evaluate", "load", "--checkpoint=x", False),
        ("lit_jax.export", "trained_models.load_whole", "--checkpoint=x --out=y", False),
        ("lit_jax.plan", "options.load", "--config=x", False),
        ("lit_jax.probe", "open_store", "--store=x", False),
        ("lit_jax.leaks", "open_store", "--store=x", False),
        ("lit_jax.predict", "load", "--checkpoint=x y.jpg", False),
        ("lit_jax.predict", "load", "--checkpoint=x y.jpg --out=z.csv", True),
        ("lit_jax.site", "runtime", "--checkpoint=x --out=y", False),
        ("data_prep.captions", "read_class_table", "--classes=x", False),
        ("data_prep.ranks", "read_class_table", "--classes=x --from=y --out=z", False),
        ("data_prep.convert", "options_of", "--out=x", True),
        ("data_prep.embeddings", "read_embeddings", "--embeddings=x --ids=y --classes=z --out=w", True),
        ("data_prep.field_guide", "guide", "--out=x", False),
        ("data_prep.to_webdataset", "open_records", "--records=x --out=y", True),
    ],
)
def test_ctrl_c_is_one_line(module, inner, arguments, goes_on, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    command = importlib.import_module(module)
    monkeypatch.setattr(f"{module}.{inner}", interrupted)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        command.main(arguments.split())
    assert isinstance(stop.value, SystemExit) and stop.value.code == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert ("run the same command" in line and "to go on" in line) == goes_on
    assert goes_on or line == "interrupted"


def test_the_readme_names_only_files_that_exist():
    for document in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), (document, link)


def test_the_version_stands_in_the_changelog_and_the_citation():
    assert f"## {lit_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {lit_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_documentation_is_a_site_without_broken_links(tmp_path):
    """Links between pages, to headings, and to files of the repository; names in the reference; pages without a place."""
    tool("mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    start, reference = ((tmp_path / name).read_text() for name in ("index.html", "api.html"))
    assert (
        'href="configs/cub.py"' in start
        and (tmp_path / "configs" / "cub.py").read_bytes() == (ROOT / "configs" / "cub.py").read_bytes()
    )
    assert 'id="lit_jax.prediction.model.load"' in reference


def test_commands_for_people_are_scripts_too():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
    makers = {
        "data_prep.clip_templates",
        "data_prep.field_guide",
        "data_prep.pretrain_tower",
    }  # of what lies in the tree
    assert sorted(scripts) == sorted(f"{name}:main" for name in set(COMMANDS) - makers)


@pytest.mark.slow
def test_the_wheel_works_outside_the_tree(tmp_path):
    tool("python", "-m", "build", "--wheel", "--outdir", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel], check=True)
    code = "import lit_jax.models, pathlib; from lit_jax import config; tower = config.load('demo')[0].image.weights; print(lit_jax.__file__, tower, pathlib.Path(tower).exists() and (pathlib.Path(lit_jax.__file__).parent / 'evaluation' / 'page.css').exists())"
    # Dependencies of this environment, the package of the wheel: path files are not read in PYTHONPATH's folders.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_paths()["purelib"]}
    got = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, tower, exists = got.stdout.split()
    assert str(tmp_path) in where and str(tmp_path) in tower and exists == "True"
    assert not (
        python.parents[1] / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "configs"
    ).exists()
    command = [python, "-m", "lit_jax.main", "--config=dmo"]
    got = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert got.returncode == 2 and "demo_records" in got.stderr and got.stderr.endswith("did you mean demo?\n")


@pytest.mark.slow
def test_a_notebook_beside_the_clone_finds_the_package(tmp_path):
    """Where Python starts, the clone's folder looks like a package without an __init__.py."""
    clone = tmp_path / "lit_jax"
    for package in ("lit_jax", "data_prep"):
        shutil.copytree(ROOT / package, clone / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone / name)
    for folder in ("models", "data"):  # what people make in a clone is called like packages
        (clone / folder / "mine").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-e", clone], check=True)
    code = "import lit_jax, importlib.util as u; print(lit_jax.__version__, u.find_spec('lit_jax.data').origin)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    got = subprocess.run([python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert got.stdout.split() == [lit_jax.__version__, str(clone / "lit_jax" / "data" / "__init__.py")], got.stderr
