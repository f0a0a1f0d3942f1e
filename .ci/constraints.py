"""Writes constraints.txt: the versions of all packages that the tests passed with, for each Python.

    python .ci/constraints.py .venv-3.11/bin/python .venv-3.13/bin/python

Each is an environment that the tests have passed in; the versions of the last one hold for every Python between it and
the one before, and for newer ones.
"""

import pathlib
import subprocess
import sys

HEADER = """\
# The versions that the tests passed with, on Linux. `pip install -c constraints.txt -e .` installs these;
# pyproject.toml says which others may work. Made by .ci/constraints.py.
"""
OWN = ("pip", "setuptools", "wheel")


def versions(python: str) -> tuple[str, dict[str, str]]:
    """The version of a Python as ``3.13``, and that of each package that it has."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    number = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze", "--exclude-editable"],
        check=True,
        capture_output=True,
        text=True,
    )
    pairs = (line.split("==") for line in listed.stdout.splitlines())
    return number, {name: version for name, version in pairs if name.lower() not in OWN}


def lines(pythons: list[str]) -> list[str]:
    """The constraints, a line a package, or one for each Python where they differ."""
    found = dict(sorted((versions(python) for python in pythons), key=lambda pair: int(pair[0].split(".")[1])))
    numbers, made = list(found), []
    for name in sorted({name for one in found.values() for name in one}, key=str.lower):
        of = [found[number].get(name) for number in numbers]
        if len(set(of)) == 1:
            made.append(f"{name}=={of[0]}")
            continue
        for place, (number, version) in enumerate(zip(numbers, of, strict=True)):
            after = f"python_version > '{numbers[place - 1]}'" if place else ""
            until = f"python_version <= '{number}'" if place < len(numbers) - 1 else ""
            if version:
                made.append(f"{name}=={version}; {' and '.join(filter(None, (after, until)))}")
    return made


if __name__ == "__main__":
    pathlib.Path(__file__).parents[1].joinpath("constraints.txt").write_text(
        HEADER + "\n".join(lines(sys.argv[1:])) + "\n"
    )
