"""Processes that are forked from one that has imported what they need behave as ones of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests import forked


def test_a_command_has_its_own_output_and_exit_code(tmp_path):
    process = forked.start("lit_jax.main", ["--config=nowhere.py"], cwd=tmp_path)
    output, errors = process.communicate(60)
    assert (process.returncode, output) == (2, "") and errors.startswith("error: ") and "nowhere.py" in errors
    fresh = subprocess.run(
        [sys.executable, "-m", "lit_jax.main", "--config=nowhere.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(forked.ROOT)},
    )  # fmt: skip
    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (2, "", errors)


def test_code_has_its_own_arguments_folder_environment_and_devices(tmp_path):
    code = "import os, sys, jax; print(sys.argv, os.getcwd(), os.getpid(), 'tensorflow' in sys.modules, jax.devices())"
    flags = "--xla_force_host_platform_device_count=2"
    process = forked.start_code(code, ["a", 1], cwd=tmp_path, env={**os.environ, "XLA_FLAGS": flags})
    output, errors = process.communicate(60)
    assert output == f"['-c', 'a', '1'] {tmp_path} {process.pid} True [CpuDevice(id=0), CpuDevice(id=1)]\n", errors


def test_what_goes_wrong_is_told_as_by_python():
    process = forked.start_code("print('before', flush=True); raise KeyError('x')", stderr=subprocess.STDOUT)
    output, errors = process.communicate(60)
    assert process.returncode == 1 and output.startswith("before\nTraceback") and output.endswith("KeyError: 'x'\n")
    assert errors is None
    ends = forked.start_code("import atexit, sys; atexit.register(print, 'last'); sys.exit('no')")
    assert ends.communicate(60) == ("last\n", "no\n") and ends.returncode == 1


def test_signals_reach_the_process_itself():
    code = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
    with forked.start_code(code) as process:
        wait_for(process, "ready\n")
        assert process.poll() is None
        process.terminate()
        wait_for(process, "ready\ntold\n")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL and process.communicate() == ("ready\ntold\n", "")
        process.kill()  # whoever has its number by now


def wait_for(process, output):
    deadline = time.monotonic() + 60
    while process.stdout != output:
        assert time.monotonic() < deadline, process.stdout
        time.sleep(0.01)


def test_variables_that_are_read_at_import_cannot_be_changed():
    process = forked.start_code("print(1)", env={**os.environ, "JAX_ENABLE_X64": "1"})
    assert process.communicate(60) == (
        "",
        "JAX_ENABLE_X64: read at import, which has been; start a fresh Python with subprocess\n",
    )
