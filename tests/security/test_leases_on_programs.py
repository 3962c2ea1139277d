"""A lease on a program's file: who starts it waits until the lease is given up."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.worker.launched import Launched

# A lease for writing (F_SETLEASE, F_WRLCK); the kernel's wish to have it back is not heard.
LEASE = """
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), 1024, 1)
print("leased", flush=True)
time.sleep(1000)
"""


def test_only_its_own_task_waits_for_it(launcher: Launched, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    holder = subprocess.Popen([sys.executable, "-c", LEASE, str(program)], stdout=subprocess.PIPE)
    assert holder.stdout
    try:
        assert holder.stdout.readline() == b"leased\n"
        waiting = launcher.start([str(program)])
        assert launcher.run("echo hello")[1] == b"hello\n"
        told = [each for each in launcher.heard if each.get("attempt") == waiting]
        assert not told, "its program is not there yet"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert launcher.ended(waiting)["code"] == 0
