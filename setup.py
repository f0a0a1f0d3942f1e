"""Puts `configs/` into the wheel as `lit_jax/configs`; all else of the build is in pyproject.toml.

A mapping of package to folder there would do the same, but would turn an editable install into a finder of modules.
"""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """Copies the configs beside the package's own files."""

    def run(self) -> None:
        """As it is, and then the configs, unless the install is a path to this folder."""
        super().run()
        if not self.editable_mode:
            into = pathlib.Path(self.build_lib) / "lit_jax" / "configs"
            shutil.copytree("configs", into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": WithConfigs})
