"""Commands as processes of their own that need not import JAX and TensorFlow: forked from one that has.

A fresh Python takes five seconds to import what a run needs. One process of a session of tests, the *parent*, imports it
once, when it is first asked, and starts nothing of it: no JAX backend, no thread. Each command is a fork of the parent, an
ordinary process with a pid, an environment, a working folder and an exit code of its own:

    process = forked.start("lit_jax.main", ["--config=x.py"])   # as `python -m lit_jax.main --config=x.py`
    process = forked.start_code("print(1)", [])                 # as `python -c "print(1)"`
    output, errors = process.communicate(timeout=60)

What is left of `subprocess.Popen` does the same here. Output goes to files, so nobody need read it for the process to go on.

A fork differs from a fresh Python in what is imported. Where that is the question, start a fresh one. Variables that are read
at import are those of the session: `JAX_...` and `TF_...` cannot be changed for one process, XLA_FLAGS can.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import types
import weakref
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
ADDRESS = "LIT_JAX_TESTS_FORKED"
"""The variable that tells the processes of a session where the parent listens."""
IMPORTED = (
    "lit_jax.training.loop", "lit_jax.training.experiment", "lit_jax.embed", "lit_jax.evaluate", "lit_jax.models",
    "tensorboardX", "matplotlib.figure", "sentencepiece", "tensorflow", "tensorflow_datasets",
    "jax.experimental.multihost_utils",
)  # fmt: skip
AT_IMPORT = ("JAX_", "TF_")
_NUMBER = struct.Struct("i")
"""The parent's answers: a pid, then the status that the process ended with."""


class Forked:
    """A running command, with what of `subprocess.Popen` tests use.

    Attributes:
        pid: of the process itself.
        returncode: None while it runs, minus the signal that ended it, else its exit code.
    """

    def __init__(self, request: dict, *, together: bool):
        self.returncode: int | None = None
        self._files = [_Output(), None if together else _Output()]
        self._parent = socket.socket(socket.AF_UNIX)
        self._parent.connect(os.environ[ADDRESS])
        written = [file.written for file in self._files if file]
        socket.send_fds(self._parent, [json.dumps(request).encode() + b"\n"], [written[0], written[-1]])
        for descriptor in written:
            os.close(descriptor)
        self.pid = _NUMBER.unpack(self._parent.recv(_NUMBER.size, socket.MSG_WAITALL))[0]

    @property
    def stdout(self) -> str:
        """All that it has written by now."""
        return self._files[0].text()

    @property
    def stderr(self) -> str | None:
        """Its errors by now; None where they go to `stdout`."""
        return self._files[1] and self._files[1].text()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; `subprocess.TimeoutExpired` after `timeout` seconds."""
        if self.returncode is None:
            self._parent.settimeout(timeout)
            try:
                answer = self._parent.recv(_NUMBER.size)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            # Nothing is answered where the session has ended, which kills.
            self.returncode = os.waitstatus_to_exitcode(*_NUMBER.unpack(answer)) if answer else -signal.SIGKILL
            self._parent.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Waits, and gives all that it wrote: output and errors, None for errors that went to the output."""
        self.wait(timeout)
        return self.stdout, self.stderr

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        self.wait()


class _Output:
    """A file without a name that a process writes and this one reads; `written` is to be closed."""

    def __init__(self):
        read, name = tempfile.mkstemp()
        self.written = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.unlink(name)
        self._read = read
        weakref.finalize(self, os.close, read)

    def text(self) -> str:
        return os.pread(self._read, os.fstat(self._read).st_size, 0).decode(errors="replace")


def start(
    module: str, argv: Sequence[object] = (), *, env: Mapping[str, str] | None = None, cwd: object = ROOT,
    stderr: int | None = None,
) -> Forked:  # fmt: skip
    """Starts `python -m module argv`, for a module with a `main`.

    Args:
        module: such as "lit_jax.main".
        argv: its arguments; each is made a string.
        env: the whole environment; that of this process if None.
        cwd: the folder that it works in.
        stderr: `subprocess.STDOUT` to have errors among the output.
    """
    return _started({"module": module}, argv, env, cwd, stderr)


def start_code(
    code: str, argv: Sequence[object] = (), *, env: Mapping[str, str] | None = None, cwd: object = ROOT,
    stderr: int | None = None,
) -> Forked:  # fmt: skip
    """Starts `python -c code argv`; see `start`."""
    return _started({"code": code}, argv, env, cwd, stderr)


def _started(what, argv, env, cwd, stderr) -> Forked:
    env = dict(os.environ if env is None else env)
    request = {**what, "argv": [str(one) for one in argv], "env": env, "cwd": str(cwd)}
    return Forked(request, together=stderr == subprocess.STDOUT)


# The session's side.


@contextlib.contextmanager
def parent():
    """Starts the parent, whose address is in the environment until the body ends; the parent then ends with its forks."""
    with tempfile.TemporaryDirectory(prefix="forked") as folder:
        os.environ[ADDRESS] = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.environ[ADDRESS])
            listening.listen(64)
            # More threads than one cannot be forked, and each test has one core.
            env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "tests.forked", str(listening.fileno())]
            process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[listening.fileno()], stdin=subprocess.PIPE)
        try:
            yield
        finally:
            del os.environ[ADDRESS]
            process.stdin.close()
            process.wait()


# The parent.

ENVIRONMENT = dict(os.environ)
"""As it was before libraries were imported, some of which add to it."""


@dataclasses.dataclass
class _Asked:
    """A fork that goes on: what it is to do, and the files of its output and its errors."""

    request: dict
    outputs: list[int]


def _serve(listening: socket.socket) -> _Asked | None:
    """Forks for each who asks; returns in the fork, or None when the session has ended."""
    who: dict[int, socket.socket] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the session, which ends this
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    with selectors.DefaultSelector() as ready:
        for one in (listening, woken, sys.stdin.fileno()):
            ready.register(one, selectors.EVENT_READ)
        while True:
            readable = [key.fileobj for key, _ in ready.select()]
            if sys.stdin.fileno() in readable:
                for pid in who:
                    os.kill(pid, signal.SIGKILL)
                return None
            if woken in readable:
                os.read(woken, 4096)
                _tell_who_waits(who)
            if listening in readable:
                client = listening.accept()[0]
                asked = _asked(client)
                _import()
                pid = os.fork()
                if pid == 0:
                    for one in (client, *who.values()):
                        one.close()
                    return asked
                for descriptor in asked.outputs:
                    os.close(descriptor)
                who[pid] = client
                client.sendall(_NUMBER.pack(pid))


def _asked(client: socket.socket) -> _Asked:
    data, outputs, *_ = socket.recv_fds(client, 1 << 16, 2)
    while not data.endswith(b"\n"):
        data += client.recv(1 << 16)
    return _Asked(json.loads(data), outputs)


def _tell_who_waits(who: dict[int, socket.socket]) -> None:
    for pid in list(who):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with who.pop(pid) as client, contextlib.suppress(BrokenPipeError):
                client.sendall(_NUMBER.pack(status))


def _import() -> None:
    """What commands need, at the first of them; forks then share the memory."""
    if not all(name in sys.modules for name in IMPORTED):
        for name in IMPORTED:
            importlib.import_module(name)
        importlib.import_module("tests.quick").set_up()
        gc.collect()
        gc.freeze()
        tasks = pathlib.Path("/proc/self/task")
        assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "a thread would be lost in the fork"


def _become(asked: _Asked) -> None:
    """Does in a fork what Python does with its command line, and leaves it as that does."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, *asked.outputs)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    request = asked.request
    env = request["env"]
    late = [n for n in sorted({*env, *ENVIRONMENT}) if n.startswith(AT_IMPORT) and env.get(n) != ENVIRONMENT.get(n)]
    if late:
        sys.exit(f"{', '.join(late)}: read at import, which has been; start a fresh Python with subprocess")
    for name in {*ENVIRONMENT} - {*env}:
        os.environ.pop(name, None)
    os.environ.update(env)
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"] if "module" in request else ""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main  # what processes that this one spawns look for
    sys.argv = [request.get("module", "-c"), *request["argv"]]
    if "module" in request:
        importlib.import_module(request["module"]).main()
    else:
        exec(compile(request["code"], "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as listening:
        asked = _serve(listening)
    if asked:
        _become(asked)
