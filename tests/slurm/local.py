"""A Slurm of one node on loopback: munged, slurmctld and slurmd, for as long as a test needs them.

It takes root and Debian's packages ``slurmctld``, ``slurmd``, ``slurm-client`` and ``munge``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=requeue_delay=1,batch_sched_delay=1
MinJobAge=600
KillWait=30
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start the three daemons and yield the environment in which ``sbatch`` finds them.

    Raises:
        RuntimeError: A daemon does not start, or the node does not come up.
    """
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(
        CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(2), cpus=os.cpu_count())
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = {
        **os.environ,
        "SLURM_CONF": str(configuration),
        "PATH": os.pathsep.join([os.environ["PATH"], "/usr/sbin"]),
    }
    munged = ["munged", "--foreground", "--force", "--key-file", str(key)]
    munged += ["--socket", str(folder / "munge.socket"), "--pid-file", str(folder / "munged.pid")]
    munged += ["--log-file", str(folder / "munged.log"), "--seed-file", str(folder / "munged.seed")]
    with contextlib.ExitStack() as stack:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            log = stack.enter_context((folder / f"{command[0]}.out").open("w"))
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            time.sleep(1.0)
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {(folder / f'{command[0]}.out').read_text()}")
        end = time.monotonic() + 60
        while "idle" not in asked(environment, "sinfo", "--noheader", "--format", "%T"):
            if time.monotonic() > end:
                raise RuntimeError(
                    "the node does not come up: " + asked(environment, "scontrol", "show", "node")
                )
            time.sleep(0.5)
        yield environment


def asked(environment: dict[str, str], *command: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout
