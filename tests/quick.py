"""What makes tracing quicker for all tests and changes nothing that they see."""

import gc

import numpy as np
from flax.core import meta
from flax.core.scope import Scope

_given: dict[tuple, tuple[int, ...]] = {}
"""The shape that an initializer gives, by itself and its arguments."""
_param = Scope.param


def _known_param(self, name, init_fn, *args, unbox=True, **options):
    """`Scope.param`, which traces the initializer of every parameter that it finds, to compare shapes.

    What the same initializer gives for the same arguments is looked up; the shapes are compared all the same.
    """
    # Those of the libraries are made anew for each layer, and give the shape they are asked for whatever they enclose.
    is_theirs = init_fn.__module__ in ("flax.linen.linear", "jax._src.nn.initializers")
    key = (init_fn.__code__ if is_theirs else init_fn, args, tuple(options.items()))
    if not self.has_variable("params", name) or not _is_key(key):
        return _param(self, name, init_fn, *args, unbox=unbox, **options)
    value = self.get_variable("params", name)
    if key not in _given or np.shape(value) != _given[key]:
        value = _param(self, name, init_fn, *args, unbox=unbox, **options)
        _given[key] = np.shape(value)
        return value
    self.reserve(name, "params")
    return meta.unbox(value) if unbox else value


def _is_key(key):
    try:
        hash(key)
    except TypeError:
        return False
    return True


def set_up():
    """For this process, once JAX and Flax are there."""
    Scope.param = _known_param
    # Tracing makes objects by the hundred thousand, of which few are garbage: a quarter of its time is the search for them.
    gc.set_threshold(100_000, 50, 100)
