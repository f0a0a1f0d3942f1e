"""A SLURM of two nodes on this machine, over loopback: for tests that need `slurm-wlm`, `munge` and root."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")
PORTS = (16817, 17001, 17002)
CONFIG = """
ClusterName=two
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=15
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=10
SlurmdTimeout=30
SchedulerParameters=requeue_setup_env_fail,bf_interval=5,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=4 RealMemory=8000
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    lacking = [name for name in NEEDED if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    return "" if os.geteuid() == 0 else "not root"


class Cluster:
    """A running one; its commands find it through the environment."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def run(self, *command: object) -> str:
        """The output of a command, which must succeed."""
        done = subprocess.run(list(map(str, command)), env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def submit(self, *arguments: object) -> str:
        """The number of a job that has been submitted."""
        return self.run("sbatch", "--parsable", *arguments).split(";")[0]

    def state(self, job: str) -> dict[str, str]:
        """What `scontrol` tells of a job."""
        told = self.run("scontrol", "show", "job", job)
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def wait(self, job: str, *, seconds: float) -> dict[str, str]:
        """The job's facts once it is over and does not come again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            facts = self.state(job)
            if facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"):
                return facts
            time.sleep(1)
        raise AssertionError((self.state(job), self.run("squeue")))

    def start_node(self, node: str) -> None:
        """Starts the daemon of a node, in the background."""
        subprocess.run(["slurmd", "-N", node, "-f", self.env["SLURM_CONF"]], env=self.env, check=True)

    def kill_node(self, node: str) -> None:
        """Kills a node's daemon and all processes of jobs on it at once, as a loss of power would."""
        subprocess.run(["pkill", "-KILL", "-f", f"slurmd -N {node} "], check=False)
        doomed = set()
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"SLURMD_NODENAME={node}\0".encode() in (folder / "environ").read_bytes():
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    daemon = (pathlib.Path("/proc") / str(parent) / "comm").read_text().strip() == "slurmstepd"
                    doomed |= {int(folder.name), *([parent] if daemon else [])}
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def cluster(folder: pathlib.Path) -> Iterator[Cluster]:
    """A cluster with its state in a folder, for the body."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slurm.conf").write_text(CONFIG.format(host=socket.gethostname(), folder=folder, ports=PORTS))
    names = pathlib.Path("/etc/hosts")
    if " n1 n2" not in names.read_text():
        with names.open("a") as file:
            file.write("127.0.0.1 n1 n2\n")
    pathlib.Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=False, capture_output=True)
    made = Cluster(folder)
    subprocess.run(["slurmctld", "-f", made.env["SLURM_CONF"]], env=made.env, check=True)
    try:
        for node in ("n1", "n2"):
            made.start_node(node)
        until = time.monotonic() + 60
        while "idle" not in made.run("sinfo", "-h", "-o", "%t") and time.monotonic() < until:
            time.sleep(0.5)
        yield made
    finally:
        subprocess.run(["pkill", "-KILL", "slurmstepd"], check=False)
        subprocess.run(["pkill", "-KILL", "slurmd"], check=False)
        subprocess.run(["pkill", "-KILL", "slurmctld"], check=False)
