"""Memory beyond what was granted ends an attempt, by a cgroup or by looking."""

import os
import signal
from pathlib import Path

import pytest

from banyan.worker import cells, cgroups, memory, process_reader, tree
from banyan.worker.process_reader import ProcessReader
from tests.harness import eventually
from tests.worker.launched import Launched, alive, carrying

MIB = 1 << 20
NEEDS_CGROUP = pytest.mark.skipif(not cells.available(), reason="no writable memory cgroup here")
BY = pytest.mark.parametrize("by", ["watch", pytest.param("cgroup", marks=NEEDS_CGROUP)])

HOARD = "x = bytearray({} << 20); print('full', flush=True); import time; time.sleep(1000)"
# Away from its parent, out of its session, with nothing in its environment.
UNKNOWN = """
import os, sys, time
if os.fork():
    os.wait(); time.sleep(0.2); sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
os.setsid() if os.getpid() != os.getsid(0) else None
script = f"echo $$ > {sys.argv[1]}.new; mv {sys.argv[1]}.new {sys.argv[1]}; exec sleep 1000"
os.execve("/bin/sh", ["sh", "-c", script], {"PATH": os.environ["PATH"]})
"""


def cells_of(launcher: Launched) -> Path:
    """The cgroup in which those of its attempts are."""
    return Path((launcher.state_directory / cells.NOTE).read_text().splitlines()[0])


def limits(by: str, mebibytes: int) -> dict[str, object]:
    return {"memory_bytes": mebibytes * MIB, "enforcement": by, "nice": 0, "cpus": []}


@BY
def test_too_much_memory_is_the_end(launcher: Launched, by: str):
    attempt = launcher.start(["python3", "-c", HOARD.format(120)], limits=limits(by, 64))
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["signal"]) == ("oom", 9)
    assert "64 MiB" in ended["reason"]


@BY
def test_too_much_memory_in_a_child_ends_all_of_the_attempt(launcher: Launched, by: str):
    script = f'python3 -c "{HOARD.format(120)}" & sleep 1000 & wait; sleep 1000'
    attempt = launcher.shell(script, limits=limits(by, 64))
    assert launcher.ended(attempt)["why"] == "oom"
    assert carrying("BANYAN_ATTEMPT", attempt) == []


@BY
def test_many_small_processes_count_together(launcher: Launched, by: str):
    script = f'for i in 1 2 3; do python3 -c "{HOARD.format(30)}" & done; wait; sleep 1000'
    attempt = launcher.shell(script, limits=limits(by, 64))
    assert launcher.ended(attempt)["why"] == "oom"


@BY
def test_what_is_shared_counts_once(launcher: Launched, by: str):
    """Eight processes with the same 40 MiB: 320 MiB by the sum of what is resident."""
    script = """
import os, time
x = bytearray(40 << 20)
for _ in range(7):
    if os.fork() == 0:
        break
time.sleep(1.5)
"""
    attempt = launcher.start(["python3", "-c", script], limits=limits(by, 128))
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["code"]) == (None, 0)
    assert 40 * MIB < ended["peak_memory_bytes"] < 128 * MIB


READ = """
import mmap, os, sys, time
with open(sys.argv[1], "r+b") as file:
    data = mmap.mmap(file.fileno(), 0, *eval(sys.argv[2]))
total = sum(data[i] for i in range(0, len(data), 4096))
for _ in range(2):
    os.fork()
time.sleep(0.8)
{}
"""
GROW = """
data.close()
x = bytearray(120 << 20)
time.sleep(1000)
"""


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A file of 120 MiB that may be mapped."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b"x" * (120 * MIB))
    return str(path)


@BY
@pytest.mark.parametrize("how", ["mmap.MAP_SHARED, mmap.PROT_READ", "mmap.MAP_PRIVATE"])
def test_pages_of_a_mapped_file_are_no_memory_of_the_task(
    launcher: Launched, by: str, how: str, large: str
):
    argv = ["python3", "-c", READ.format(""), large, f"({how},)"]
    attempt = launcher.start(argv, limits=limits(by, 96))
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["code"]) == (None, 0)


@BY
def test_nor_do_they_hide_what_the_task_takes_in_their_place(
    launcher: Launched, by: str, large: str
):
    argv = ["python3", "-c", READ.format(GROW), large, "(mmap.MAP_PRIVATE,)"]
    attempt = launcher.start(argv, limits=limits(by, 96))
    assert launcher.ended(attempt)["why"] == "oom"


@BY
def test_shared_memory_and_changed_private_pages_are(launcher: Launched, by: str, large: str):
    shared = "import mmap, time; data = mmap.mmap(-1, 120 << 20)"
    changed = READ.partition("total")[0]
    for script in (shared, changed):
        script += "\nfor i in range(0, len(data), 4096): data[i] = 1\ntime.sleep(1000)"
        argv = ["python3", "-c", script, large]
        attempt = launcher.start([*argv, "(mmap.MAP_PRIVATE,)"], limits=limits(by, 96))
        assert launcher.ended(attempt)["why"] == "oom"


@pytest.mark.parametrize(
    ("said", "bytes_held"),
    [
        ("Pss: 90 kB\nPss_Anon: 50 kB\nPss_File: 30 kB\nPss_Shmem: 10 kB\nSwapPss: 5 kB\n", 65),
        ("Rss: 99 kB\nPss: 90 kB\nSwapPss: 5 kB\n", 70),
        ("Rss: 40 kB\nPss: 30 kB\nSwapPss: 5 kB\n", 35),
        ("", 0),
    ],
)
def test_kernels_that_do_not_tell_files_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, bytes_held: int
):
    file = tmp_path / "smaps_rollup"
    file.write_text(f"55a1740e2000-7ffd1a8e6000 ---p 00000000 00:00 0      [rollup]\n{said}")
    monkeypatch.setattr(
        process_reader, "open", lambda path, *more, **how: file.open("rb", buffering=0),
        raising=False,
    )  # fmt: skip
    held = process_reader._told_proportional(1, most=70 * 1024)
    assert held == bytes_held * 1024


@pytest.mark.parametrize("by", ["none", "watch"])
def test_without_a_bound_nothing_is_ended(launcher: Launched, by: str):
    script = "x = bytearray(100 << 20); import time; time.sleep(0.8)"
    bound = limits(by, 64 if by == "none" else 0)
    attempt = launcher.start(["python3", "-c", script], limits=bound)
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["code"]) == (None, 0)
    assert ended["peak_memory_bytes"] > 100 * MIB


@NEEDS_CGROUP
def test_a_process_that_nobody_could_place_goes_with_its_own_task(
    launcher: Launched, tmp_path: Path
):
    other = launcher.shell("exec sleep 1000", limits=limits("cgroup", 64))
    pid_file = tmp_path / "pid"
    attempt = launcher.start(["python3", "-c", UNKNOWN, str(pid_file)], limits=limits("cgroup", 64))
    pid = int(eventually(lambda: pid_file.exists() and pid_file.read_text()))
    assert launcher.ended(attempt)["code"] == 0
    assert not alive(pid)
    assert alive(launcher.until("started", other)["pid"])
    launcher.stop(other)
    launcher.ended(other)


@NEEDS_CGROUP
def test_a_cgroup_serves_one_attempt_after_another(launcher: Launched):
    for bound in (64, 64, 65, 64):
        attempt = launcher.shell("exit 3", limits=limits("cgroup", bound))
        assert launcher.ended(attempt)["code"] == 3
    root = cells_of(launcher)
    assert len([path for path in root.iterdir() if path.is_dir()]) == 2
    assert all(not cells.Cell(str(path)).pids() for path in root.iterdir() if path.is_dir())


@NEEDS_CGROUP
def test_a_cgroup_in_which_the_kernel_has_killed_serves_nobody_else(launcher: Launched):
    for _ in range(2):
        hoard = launcher.start(["python3", "-c", HOARD.format(120)], limits=limits("cgroup", 64))
        assert launcher.ended(hoard)["why"] == "oom"
        good = launcher.shell("exit 0", limits=limits("cgroup", 64))
        assert (launcher.ended(good)["why"], launcher.ended(good)["code"]) == (None, 0)


@NEEDS_CGROUP
def test_a_narrow_bound_never_ends_the_launcher_itself(launcher: Launched):
    """It stands in the task's cgroup while it starts the task."""
    for _ in range(5):
        attempt = launcher.start(["python3", "-c", HOARD.format(20)], limits=limits("cgroup", 1))
        assert launcher.ended(attempt)["why"] == "oom"
    assert launcher.process.poll() is None


@NEEDS_CGROUP
def test_the_cgroups_of_a_dead_launcher_are_cleared_by_any_other(
    launcher: Launched, tmp_path: Path
):
    """Agent and launcher are killed, and no worker starts on that state directory again."""
    attempt = launcher.shell("exec sleep 1000", limits=limits("cgroup", 64))
    pid = launcher.until("started", attempt)["pid"]
    root = cells_of(launcher)
    launcher.process.kill()
    launcher.process.wait()
    another_starts_and_ends(tmp_path / "second")
    assert cells.Cell(f"{root}/1").pids() == [pid], "what is not empty is left alone"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    another_starts_and_ends(tmp_path / "third")
    assert not root.exists()


def another_starts_and_ends(directory: Path) -> None:
    directory.mkdir()
    Launched(directory).end()


@NEEDS_CGROUP
def test_cgroups_are_gone_with_their_launcher(launcher: Launched):
    attempt = launcher.shell("exec sleep 1000", limits=limits("cgroup", 64))
    pid = launcher.until("started", attempt)["pid"]
    root = cells_of(launcher)
    assert [cells.Cell(str(path)).pids() for path in root.iterdir() if path.is_dir()] == [[pid]]
    launcher.end()
    assert not root.exists()
    assert not (launcher.state_directory / cells.NOTE).exists()


@NEEDS_CGROUP
def test_what_a_killed_launcher_has_confined_is_cleared(launcher: Launched):
    """Even what has nothing in its environment to know it by."""
    attempt = launcher.start(
        ["/usr/bin/env", "-i", "/bin/sleep", "1000"], limits=limits("cgroup", 64)
    )
    pid = launcher.until("started", attempt)["pid"]
    eventually(lambda: not tree.variables_of(pid, ["PATH"])[0])
    root = cells_of(launcher)
    launcher.process.kill()
    launcher.process.wait()
    assert alive(pid)
    assert cells.clear(launcher.state_directory)
    assert not alive(pid)
    assert not root.exists()
    assert cells.clear(launcher.state_directory), "once more, with nothing there"


def test_a_cell_of_version_2_is_killed_at_one_stroke(launcher: Launched):
    """Where the machine has version 2, with the memory controller or without."""
    mounted = [path for path in cgroups.own("memory") if (path / "cgroup.kill").exists()]
    mounted += [path for path in [Path("/sys/fs/cgroup/unified")] if path.is_dir()]
    if not mounted or not os.access(mounted[0], os.W_OK):
        pytest.skip("no writable cgroup of version 2 here")
    cell = cells.Cell(f"{mounted[0]}/banyan-test-{os.getpid()}")
    os.mkdir(cell.path)
    attempt = launcher.shell("exec sleep 1000")
    pid = launcher.until("started", attempt)["pid"]
    cell.add(pid)
    assert cell.pids() == [pid]
    cell.kill()
    assert launcher.ended(attempt)["signal"] == 9
    assert eventually(cell.remove)
    assert cell.remove(), "once more"


def test_memory_is_read_of_processes_and_not_of_what_is_gone():
    pids = [os.getpid()]
    resident = memory.resident_bytes(pids)
    held = memory.held_bytes(pids)
    seen, whole = memory.Looks(ProcessReader()).at("self", pids)
    assert whole
    assert 0 < seen <= held * 1.1 < resident * 1.1
    assert memory.virtual_bytes(pids) > resident
    assert memory.cpu_seconds(pids) > 0
    gone = [1 << 22]
    assert (memory.resident_bytes(gone), memory.largest_bytes(gone)) == (0, (0, 0))
    assert memory.Looks(ProcessReader()).at("gone", gone) == (0, True)
    assert memory.cpu_seconds(gone) == 0
