"""What is used of JAX that has no public name is where it was, and is done without where it is not."""

import inspect
import pathlib
import re

import jax
import pytest

from lit_jax.base import jax_internals
from lit_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_installed_jax_has_what_is_used_of_it():
    """Fails by name where a new version has moved something; then mend `lit_jax/base/jax_internals.py`."""
    from jax._src import clusters, distributed

    assert hasattr(distributed.global_state, "client"), f"JAX {jax.__version__} moved distributed.global_state.client"
    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    assert len(inspect.signature(detect).parameters) == 6, f"JAX {jax.__version__} detects clusters in another way"
    assert jax_internals.coordination_client() is None  # of a process that has joined nobody


def test_no_other_module_uses_what_has_no_public_name():
    users = {
        str(path.relative_to(ROOT))
        for folder in ("lit_jax", "data_prep", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"jax\._src|jaxlib\.(?!__version__)", path.read_text())
    }
    assert users == {"lit_jax/base/jax_internals.py"}


def test_a_jax_without_it_is_told_by_name_or_does_without(monkeypatch):
    from jax._src import clusters, distributed

    monkeypatch.delattr(distributed, "global_state")
    with pytest.raises(UserError, match=rf"JAX {jax.__version__}: found no jax._src.distributed.global_state.client"):
        jax_internals.coordination_client()
    monkeypatch.setattr(clusters.ClusterEnv, "auto_detect_unset_distributed_params", lambda one: one)
    assert jax_internals.detected_coordinator(1) == jax_internals.UNKNOWN
    monkeypatch.delattr(clusters.ClusterEnv, "auto_detect_unset_distributed_params")
    assert jax_internals.detected_coordinator(1) == jax_internals.UNKNOWN
