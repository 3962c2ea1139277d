"""What a process shows as its environment is read in bounded parts, and holds nobody up.

Any process may show other memory there: of any size, or of files that never answer. The same keeps
others from its memory, so that what it shares is not told either.
"""

import ctypes
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banyan.worker import groups, launching, marks, memory, orphans, starting, tree
from banyan.worker.identity import users_of_tasks
from banyan.worker.marks import Mark, Marks
from banyan.worker.process_reader import HELD_MAX, ProcessReader
from banyan.worker.sweep import sweep
from tests.harness import eventually
from tests.security import false_environment, silent_files
from tests.security.others import NOBODY
from tests.worker.launched import Launched, carrying
from tests.worker.test_launcher_memory import limits
from tests.worker.test_run_as import needs_root, options

MIB = 1 << 20
Starts = Callable[..., "subprocess.Popen[bytes]"]
# Away from its parent and out of its session at once: only its environment says whose it is.
DAEMONS = """
import os, sys, time
for number in range({}):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.setpgid(0, 0)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    os.wait()
time.sleep(1000)
"""


@pytest.fixture
def start() -> Iterator[Starts]:
    """Starts processes that are ended with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(argv: list[str], **more: Any) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/", **more))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.fixture
def reader() -> Iterator[ProcessReader]:
    made = ProcessReader()
    yield made
    made.close()


@pytest.fixture
def own(reader: ProcessReader) -> Marks:
    return Marks(reader)


class Silent:
    """A file that can be mapped, and then never says what is in it, until the end of this."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._place = place
        self.file = place / "f"
        argv = [sys.executable, silent_files.__file__, place, "0"]
        self._files = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._files.stdout
        self.is_there = self._files.stdout.readline() == b"mounted\n"

    def end(self) -> None:
        self._files.kill()
        self._files.wait()
        assert self._files.stdout
        self._files.stdout.close()
        ctypes.CDLL(None).umount2(os.fsencode(self._place), 2)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Silent]:
    made = Silent(tmp_path / "files")
    try:
        if not made.is_there:
            pytest.skip("no file system can be mounted by FUSE here")
        yield made
    finally:
        made.end()


def closed(start: Starts, silent: Silent) -> int:
    """A process whose memory nobody can read."""
    pid = showing(silent.file, start)
    eventually(lambda: tree.cannot_be_interrupted(pid))
    return pid


def showing(what: object, start: Starts, **more: Any) -> int:
    """A process that shows this in place of its environment."""
    process = start(closing(what), **more)
    assert process.stdout
    assert process.stdout.read(1) == b"x"
    return process.pid


def closing(what: object, *more: object) -> list[str]:
    """The command line of that."""
    return [sys.executable, false_environment.__file__, str(what), *map(str, more)]


def marked(worker: str, attempt: str = "a", filling: int = 0) -> dict[str, str]:
    """An environment with marks behind so much else."""
    more = {f"FILL{number}": "x" * 100_000 for number in range(filling // 100_000)}
    return {**more, tree.WORKER_VARIABLE: worker, tree.ATTEMPT_VARIABLE: attempt}


# --- How much is read ----------------------------------------------------------------------------


def test_no_more_is_read_than_a_process_can_be_started_with(start: Starts) -> None:
    pid = showing(500, start)
    found, spent = tree.variables_of(pid, [tree.WORKER_VARIABLE])
    assert (found, spent) == ({}, tree.ENVIRONMENT_BYTES_MAX)


def test_all_of_them_together_have_a_bound(
    start: Starts, own: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    spare = own._spare
    monkeypatch.setattr(own, "_spare", lambda: asked.append(spare()) or asked[-1])
    other = start(["sleep", "1000"], env=marked("w")).pid
    eventually(lambda: own.of(other) == Mark("w", "a"))  # the kernel shows it a moment later
    asked.clear()
    monkeypatch.setattr(own, "_spare_since", float("inf"))  # all of it within a second
    pid = showing(100, start)
    for _ in range(30):
        assert own.of(pid) == Mark()
    assert asked[0] == marks._SPARE_BYTES
    assert asked[-1] == 0
    assert own.of(other) == Mark("w", "a")


@pytest.mark.parametrize("filling", [0, 100_000, 1_000_000])
def test_a_mark_is_found_wherever_it_stands(start: Starts, own: Marks, filling: int) -> None:
    worker = uuid.uuid4().hex
    process = start(["sleep", "1000"], env=marked(worker, filling=filling))
    eventually(lambda: own.of(process.pid) == Mark(worker, "a"))
    assert own.of(os.getpid()) == Mark()
    process.kill()
    process.wait()
    assert own.of(process.pid) == Mark()


def test_marks_at_the_ends_of_what_is_read_together_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = b"A=" + b"x" * 100 + b"\0ATTEMPT=a\0WORKER=" + b"w" * 20 + b"\0B=y\0"
    for size in range(1, 60):
        parts = [whole[at : at + size] for at in range(0, len(whole), size)]
        monkeypatch.setattr(tree, "_environment", lambda pid, most, said=parts: iter([*said, b""]))
        found, _ = tree.variables_of(os.getpid(), ["ATTEMPT", "WORKER"])
        assert found == {"ATTEMPT": b"a", "WORKER": b"w" * 20}


def test_a_value_that_is_no_mark_is_not_carried_about(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [b"WORKER=" + b"w" * 10_000 + b"\0"]
    monkeypatch.setattr(tree, "_environment", lambda pid, most: iter(said))
    assert tree.variables_of(os.getpid(), ["WORKER"]) == ({}, len(said[0]))


# --- Who does not answer -------------------------------------------------------------------------


@needs_root
def test_who_cannot_be_read_has_no_mark_and_holds_nobody(
    start: Starts, own: Marks, reader: ProcessReader, silent: Silent
) -> None:
    pids = [closed(start, silent) for _ in range(2 * HELD_MAX)]
    other = start(["sleep", "1000"], env=marked("w"))
    for _ in range(2):
        assert own.of(pids[0]) == Mark()
        assert own.of(other.pid) == Mark("w", "a"), "another reader has its place"
    assert len(reader._held) == 1, "it is not asked again"
    for pid in pids:
        assert own.of(pid) == Mark()
    assert len(reader._held) == HELD_MAX, "so many and no more wait for them"
    assert own.of(other.pid) == Mark()


@needs_root
def test_a_sweep_passes_over_them(start: Starts, silent: Silent) -> None:
    worker = uuid.uuid4().hex
    pid = closed(start, silent)
    left = start(["sleep", "1000"], env=marked(worker))
    eventually(lambda: carrying_mark(left.pid) == worker)
    assert sweep({worker}) == []
    assert left.wait(20) == -9
    assert not tree.ended(pid)


def carrying_mark(pid: int) -> str:
    found, _ = tree.variables_of(pid, [tree.WORKER_VARIABLE])
    return found.get(tree.WORKER_VARIABLE, b"").decode()


@needs_root
def test_an_orphan_that_cannot_be_read_may_be_of_anybody(
    start: Starts, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = closed(start, silent)
    monkeypatch.setattr(tree, "own_children", lambda: [pid])
    reader = ProcessReader()
    known = orphans.Orphans(lambda pid: None, reader)
    known.look({}, {"a", "b"}, False)
    assert known.unsure({"a", "b"}) == [(frozenset({"a", "b"}), [pid])]
    assert reader.is_unreadable(pid)
    reader.close()


def test_readers_are_gone_with_their_launcher(launcher: Launched) -> None:
    mark = uuid.uuid4().hex
    argv = ["python3", "-c", DAEMONS.format(3), "-c", "import time; time.sleep(1000)"]
    attempt = launcher.start(argv, limits=limits("watch", 256), env={"MARK": mark})
    launcher.until("started", attempt)
    eventually(lambda: len(carrying("MARK", mark)) == 4)
    launcher.run("echo hello", limits=limits("watch", 256))
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)
    assert carrying("MARK", mark) == []
    children = tree.children(launcher.process.pid)
    launcher.end()
    eventually(lambda: all(map(tree.ended, children)))


# --- Whose memory cannot be read -----------------------------------------------------------------


@needs_root
def test_a_task_that_closes_its_memory_holds_up_no_other(
    launcher: Launched, silent: Silent
) -> None:
    bound = limits("watch", 256)
    holder = launcher.start(closing(silent.file), limits=bound)
    launcher.says(holder, b"x")
    pid = launcher.until("started", holder)["pid"]
    eventually(lambda: tree.cannot_be_interrupted(pid))
    since = time.time()
    told = launcher.until("sample", holder, seconds=30, having=lambda it: it["time"] > since)
    assert told["resident_memory_bytes"] >= MIB
    assert launcher.run("echo hello", limits=bound)[1] == b"hello\n"
    silent.end()  # and what it has held can end
    launcher.stop(holder, grace_seconds=0)
    launcher.ended(holder)


@needs_root
def test_nor_does_that_hide_how_much_it_uses(launcher: Launched, silent: Silent) -> None:
    hoarder = launcher.start(closing(silent.file, 120), limits=limits("watch", 64))
    assert launcher.ended(hoarder, seconds=40)["why"] == "oom"


@needs_root
def test_who_closes_its_memory_is_counted_with_all_that_it_shares(
    start: Starts, reader: ProcessReader, silent: Silent
) -> None:
    pids = [closed(start, silent) for _ in range(2)]
    seen = whole(reader, [*pids, os.getpid()])
    own_size = whole(reader, [os.getpid()])
    assert seen >= memory.resident_bytes(pids) + 0.9 * own_size
    assert len(reader._held) == 2


@needs_root
def test_those_who_cannot_be_asked_for_that_are_not_charged_with_it(
    start: Starts, reader: ProcessReader, silent: Silent
) -> None:
    others = [start(["sleep", "1000"]).pid for _ in range(8)]
    for _ in range(HELD_MAX):
        whole(reader, [closed(start, silent)])
    assert whole(reader, others) == memory.largest_bytes(others)[0] > 0


def whole(reader: ProcessReader, pids: list[int]) -> int:
    looks = memory.Looks(reader)
    while True:
        looks.begin_turn()
        seen = looks.at("these", pids)
        if seen.whole:
            return seen.size
        looks._rest_until = 0.0


def test_a_reader_is_started_when_it_has_something_to_read(
    start: Starts, own: Marks, reader: ProcessReader
) -> None:
    assert whole(reader, [1 << 22]) == 0
    assert reader.readers == set()
    pid = start(["sleep", "1000"], env=marked("w")).pid
    assert whole(reader, [pid, os.getpid()]) > 0
    assert eventually(lambda: own.of(pid) == Mark("w", "a"))
    assert len(reader.readers) == 1, "the same for both"


# --- Who is read ---------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes whose environment somebody wants to have read."""
    pids: list[int] = []
    monkeypatch.setattr(Marks, "of", lambda self, pid: pids.append(pid) or Mark())
    return pids


@needs_root
def test_a_sweep_reads_none_that_can_be_no_task(start: Starts, asked: list[int]) -> None:
    theirs = start(["sleep", "1000"], user=NOBODY)
    of_root = start(["sleep", "1000"])
    of_an_attempt = start(["sleep", "1000"], user=1, group=groups.FIRST + 7)
    assert sweep({"w"}, users=[NOBODY]) == []
    assert {theirs.pid, of_an_attempt.pid} <= set(asked)
    assert of_root.pid not in asked
    asked.clear()
    assert sweep({"w"}) == []
    assert of_root.pid in asked


def test_it_knows_as_whom_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert users_of_tasks(options()) is None
    assert users_of_tasks(options(run_as="nobody")) == (NOBODY,)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert users_of_tasks(options()) == (1000,)


def test_where_a_cgroup_or_a_group_tells_nothing_is_read(
    asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "Spawner", lambda: None)
    monkeypatch.setattr(tree, "own_children", lambda: [1 << 30, 1 << 29])
    known = orphans.Orphans(lambda pid: "a", ProcessReader())
    cells: Any = SimpleNamespace(path_of=lambda pid: "/cell")
    starter = starting.Starter(cells, (), known)
    assert starter._escaped("a", 7, set()) == [7]
    cells.path_of = lambda pid: ""
    assert starter._escaped("a", 7, set()) == [7, 1 << 30, 1 << 29], "all others have cgroups"
    group = known.groups.draw("b")
    monkeypatch.setattr(tree, "user_group_of", lambda pid: group)
    starter._all_confined = False
    assert starter._escaped("a", 7, set()) == [7]
    assert starter._escaped("b", 7, set()) == [7, 1 << 30, 1 << 29]
    known.look({}, {"a", "b"}, True)
    assert asked == []


# --- Who is a launcher ---------------------------------------------------------------------------


def test_the_launcher_is_known_without_a_look_at_its_memory(
    start: Starts, launcher: Launched, tmp_path: Path
) -> None:
    place = tmp_path / "other"
    place.mkdir()
    # Its command line is as a launcher's.
    planted = start(["/bin/sh", "-c", "read x; exit 3", os.fspath(place)], stdin=subprocess.PIPE)
    for note in (f"{planted.pid}", f"{planted.pid} 1 x", "-5 0 x", "x", ""):
        (place / "launcher.pid").write_text(note)
        launching.kill(place)
    assert planted.stdin
    planted.stdin.write(b"\n")
    planted.stdin.close()
    assert planted.wait(20) == 3
    launching.kill(launcher.state_directory)
    assert launcher.process.wait(20) == -9
