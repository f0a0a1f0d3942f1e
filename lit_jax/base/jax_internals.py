"""What is used of JAX that has no public name: each in one place, and what to do in versions that lack it.

`tests/test_jax_internals.py` names what has changed where a new version of JAX moves one of them.
"""

from typing import Any

from lit_jax.errors import UserError

UNKNOWN = "unknown"


def coordination_client() -> Any:
    """The client of JAX's coordination service, of a process that has joined others by ``jax.distributed.initialize``.

    Raises:
        UserError: this version of JAX keeps it elsewhere.
    """
    try:
        from jax._src import distributed

        return distributed.global_state.client
    except (ImportError, AttributeError) as error:
        raise UserError(_moved("jax._src.distributed.global_state.client", error)) from None


def detected_coordinator(seconds: int) -> str | None:
    """Where the cluster around (SLURM, Open MPI, Kubernetes, a TPU pod) says that the first host is; None without one.

    Args:
        seconds: that JAX will wait for the other hosts.

    Returns:
        HOST:PORT; `UNKNOWN` in a version of JAX that keeps this elsewhere, where `jax.distributed.initialize` finds it.
    """
    try:
        from jax._src import clusters

        detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    except (ImportError, AttributeError):
        return UNKNOWN
    try:
        found = detect(None, None, None, None, None, seconds)
        return None if found[0] is None else str(found[0])
    except (RuntimeError, ValueError):
        return None
    except TypeError:  # it takes other arguments now
        return UNKNOWN


def _moved(name: str, error: Exception) -> str:
    import jax

    return (
        f"JAX {jax.__version__}: found no {name} ({error}), expected what hosts speak with each other by; install a "
        "version of JAX that constraints.txt names"
    )
