"""Slurm on one node: munged, slurmctld and slurmd of its own, as root.

The node is said to have 64 CPUs: with two, what is measured would be the second that its
scheduler rests between two looks at the queue.
"""

import os
import socket
import subprocess
from pathlib import Path

from tests.bench.peers.base import Peer, main
from tests.bench.until import until, until_true

_SETTINGS = """
ClusterName=bench
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
SlurmctldPort=27817
SlurmdPort=27818
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
JobCompType=jobcomp/filetxt
JobCompLoc={place}/ended
MaxArraySize=20001
MaxJobCount=30000
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} CPUs=64 State=UNKNOWN
PartitionName=bench Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm(Peer):
    """One array for many tasks; output to /dev/null; no accounting database."""

    name = "Slurm (array)"
    durability = "state files, written every 5 s; what runs outlives a restart"
    needs = ("slurmctld", "slurmd", "munged", "sbatch")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        os.environ["SLURM_CONF"] = f"{directory}/slurm.conf"
        self._ended, self._read = 0, 0

    def start(self) -> None:
        place, host = self.directory, socket.gethostname().split(".")[0]
        (place / "slurm.conf").write_text(_SETTINGS.format(place=place, host=host))
        (place / "state").mkdir()
        (place / "spool").mkdir()
        (place / "ended").touch()
        (place / "munge.key").write_bytes(os.urandom(1024))
        (place / "munge.key").chmod(0o400)
        files = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid"}
        named = [f"--{option}={place}/munge.{end}" for option, end in files.items()]
        self.run(["munged", "-F", "--force", *named, f"--seed-file={place}/munge.seed"])
        until_true((place / "munge.socket").exists)
        self.run(["slurmctld", "-D"])
        self.run(["slurmd", "-D", "-N", host])
        until_true(lambda: "idle" in self._say("sinfo", "-h", "-o", "%t"))
        self.version = self._say("sinfo", "--version").split()[-1]

    def stop(self) -> None:
        self._say("scancel", "-u", "root")

    def _say(self, *words: str) -> str:
        return subprocess.check_output(words, text=True, cwd=self.directory)

    def _batch(self, *more: str) -> str:
        plain = ["--parsable", "-o", "/dev/null", "--wrap", "/bin/true"]
        return self._say("sbatch", *plain, *more).strip()

    def submit(self, count: int) -> None:
        self._batch(f"--array=1-{count}")

    def done(self) -> int:
        with (self.directory / "ended").open() as lines:
            lines.seek(self._read)
            self._ended += lines.read().count("JobState=COMPLETED")
            self._read = lines.tell()
        return self._ended

    def one(self) -> None:
        before = self.done()
        self._batch()
        until(self.done, before + 1)

    def layers(self, depth: int, width: int) -> None:
        before, gate = self.done(), []
        for _ in range(depth):
            layer = self._batch(f"--array=1-{width}", *gate)
            gate = [f"--dependency=afterok:{self._batch(f'--dependency=afterok:{layer}')}"]
        until(self.done, before + depth * (width + 1))


if __name__ == "__main__":
    main(Slurm)
