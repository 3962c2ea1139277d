"""`--run-as`: what an attempt leaves in shared memory goes with it, whatever it does to keep it.

Files in `/dev/shm`, POSIX message queues and System V objects: each attempt has its own.
"""

import ctypes
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.client.trust import for_other_user
from banyan.worker import forking, groups, identity, namespaces
from banyan.worker.cell import Cell
from banyan.worker.namespaces import Found
from banyan.worker.spawning import NOT_EXECUTABLE, NotStarted
from tests.harness import eventually
from tests.security.test_user_namespaces import as_root_of_another
from tests.worker.launched import Launched
from tests.worker.test_launcher_memory import NEEDS_CGROUP, cells_of, limits
from tests.worker.test_run_as import nobody, options

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
SHARED = Path("/dev/shm")  # noqa: S108 - where the attack leaves something
GIVEN = {"all_memory_bytes": 300 * MIB}
needs_own_memory = pytest.mark.skipif(
    os.geteuid() != 0 or not namespaces.found(groups.FIRST).of_memory or not SHARED.is_dir(),
    reason="needs root, as tasks are another user, mount namespaces and shared memory",
)
# All that outlives a process, under this name; the user's own group tells no more whose it is.
LEAVE = """
import ctypes, os, sys
name, group, mebibytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
place = "/dev/shm/" + name
with open(place + "-file", "wb") as file:
    for _ in range(mebibytes):
        file.write(bytes(1 << 20))
os.chown(place + "-file", -1, group)
os.mkdir(place + "-place")
os.chown(place + "-place", -1, group)
os.chmod(place + "-place", 0o2700)
open(place + "-place/file", "w").write("x")
libc = ctypes.CDLL(None)
assert libc.mq_open(b"/" + name.encode(), os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
key = int(name[-7:], 16)
made = libc.shmget(key, 4096, 0o1600), libc.msgget(key, 0o1600), libc.semget(key, 1, 0o1600)
assert -1 not in made, made
print("made", flush=True)
if "stay" in sys.argv:
    while True:
        pass
"""
# What of that somebody sees.
LOOK = """
import ctypes, os, sys
if ctypes.CDLL(None).mq_open(b"/" + sys.argv[1].encode(), os.O_RDONLY) >= 0:
    print("queue")
key = str(int(sys.argv[1][-7:], 16))
for kind in ("shm", "msg", "sem"):
    print(*[kind for line in open("/proc/sysvipc/" + kind) if line.split()[0] == key])
for path in ["/dev/shm", *sys.argv[2:]]:
    try:
        print(*[each for each in os.listdir(path) if each.startswith(sys.argv[1])])
    except OSError:
        pass
"""
# In a mount namespace that others see into, as those of systemd are.
APART = """
import ctypes, os, sys
from banyan.worker import namespaces
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000) == 0
assert libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None) == 0
assert libc.mount(b"none", b"/", None, ctypes.c_ulong(0x104000), None) == 0
place = sys.argv[1]
mounts = lambda: open("/proc/self/mounts").read()
"""


@pytest.fixture
def name() -> Iterator[str]:
    """For what tasks may leave behind."""
    unique = f"banyan-test-{uuid.uuid4().hex}"
    yield unique
    for path in SHARED.glob(f"{unique}*"):
        for each in [*path.rglob("*")] if path.is_dir() else []:
            each.unlink()
        path.rmdir() if path.is_dir() else path.unlink()
    ctypes.CDLL(None).mq_unlink(f"/{unique}".encode())
    for kind in "MQS":
        command = ["ipcrm", f"-{kind}", str(int(unique[-7:], 16))]
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


def leave(name: str, mebibytes: int = 1, *more: str) -> list[str]:
    return ["python3", "-c", LEAVE, name, str(nobody()["gid"]), str(mebibytes), *more]


def seen(launcher: Launched, name: str, *places: str) -> list[str]:
    attempt = launcher.start(["python3", "-c", LOOK, name, *places], user=nobody())
    assert launcher.ended(attempt)["code"] == 0
    return launcher.output(attempt).decode().split()


def on_the_machine(name: str) -> list[str]:
    """What is there of an attempt, seen by others."""
    key = str(int(name[-7:], 16))
    kinds = [Path("/proc/sysvipc", kind) for kind in ("shm", "msg", "sem")]
    lines = [line for kind in kinds for line in kind.read_text().splitlines()]
    objects = [line for line in lines if line.split()[0] == key]
    return objects + [path.name for path in SHARED.glob(f"{name}*")]


def as_root(script: str, *arguments: object) -> None:
    command = [sys.executable, "-c", APART + script, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


# --- What it leaves -----------------------------------------------------------------------


@needs_own_memory
@pytest.mark.parametrize("end", ["exit", "timeout", "cancel"])
def test_nothing_stays_of_it_however_it_ends(launcher: Launched, name: str, end: str) -> None:
    more = {"timeout_seconds": 2, "grace_seconds": 0} if end == "timeout" else {}
    argv = leave(name, 1, *([] if end == "exit" else ["stay"]))
    attempt = launcher.start(argv, user=nobody(), **more)
    launcher.until("started", attempt)
    if end == "cancel":
        launcher.says(attempt, b"made")
        launcher.stop(attempt, grace_seconds=0)
    ended = launcher.ended(attempt)
    assert launcher.output(attempt) == b"made\n"
    assert ended["why"] == {"exit": None, "timeout": "timeout", "cancel": "cancelled"}[end]
    assert on_the_machine(name) == []
    assert seen(launcher, name) == []


@needs_own_memory
@NEEDS_CGROUP
def test_its_memory_is_free_again(launcher: Launched, name: str) -> None:
    """Else the fourth had no room, and no other after it."""
    for _ in range(5):
        argv = leave(name, 110)
        attempt = launcher.start(argv, user=nobody(), limits=limits("cgroup", 200), **GIVEN)
        told = launcher.ended(attempt)
        assert (told["why"], told["code"]) == (None, 0), told
    cell = Cell(str(cells_of(launcher)))
    eventually(lambda: cell.held_bytes(cell.usage_bytes()) < 50 * MIB)


@needs_own_memory
def test_without_namespaces_it_stays(launcher: Launched, name: str) -> None:
    """That the other tests look properly."""
    user = {**nobody(), "own_memory": False}
    ended = launcher.ended(launcher.start(leave(name), user=user))
    assert ended["code"] == 0
    assert len(on_the_machine(name)) == 5
    other = launcher.start(["python3", "-c", LOOK, name], user=user)
    launcher.ended(other)
    assert launcher.output(other).decode().split()[:4] == ["queue", "shm", "msg", "sem"]


# --- Who sees it --------------------------------------------------------------------------


@needs_own_memory
def test_two_attempts_of_a_user_do_not_see_each_others(launcher: Launched, name: str) -> None:
    attempt = launcher.start(leave(name, 1, "stay"), user=nobody())
    launcher.says(attempt, b"made")
    pid = launcher.until("started", attempt)["pid"]
    through = [f"/proc/{each}/root/dev/shm" for each in (pid, launcher.process.pid)]
    assert seen(launcher, name, *through) == []
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)


@needs_own_memory
def test_what_others_have_there_is_neither_seen_nor_touched(launcher: Launched, name: str) -> None:
    of_root, of_the_user = SHARED / f"{name}-root", SHARED / f"{name}-user"
    for path in (of_root, of_the_user):
        path.write_text("theirs")
    os.chown(of_the_user, nobody()["uid"], nobody()["gid"])
    assert seen(launcher, name) == []
    script = f"rm -f /dev/shm/{name}*; echo mine > {of_the_user} && cat {of_the_user}"
    _, output = launcher.run(script, user=nobody())
    assert output == b"mine\n"
    assert [path.read_text() for path in (of_root, of_the_user)] == ["theirs"] * 2


@needs_own_memory
@pytest.mark.parametrize("own_namespaces", [True, False])
@pytest.mark.parametrize(
    "way",
    [
        "umount /dev/shm; ls /dev/shm",
        "umount -l /dev/shm; ls /dev/shm",
        "mount --move /dev/shm /mnt; ls /dev/shm",
        "mount --bind /dev /mnt; ls /mnt/shm",
        "mount --rbind /dev /mnt; umount /mnt/shm; ls /mnt/shm",
        "mount --bind / /mnt; ls /mnt/dev/shm",
        "mount --rbind / /mnt; umount -l /mnt/dev/shm; ls /mnt/dev/shm",
        "mount -o remount,size=1 /dev/shm; unshare -r -m umount /dev/shm; ls /dev/shm",
    ],
)
def test_a_namespace_of_its_own_does_not_uncover_the_machines(
    launcher: Launched, name: str, way: str, own_namespaces: bool
) -> None:
    user = {**nobody(), "own_namespaces": own_namespaces, "containers": True}
    (SHARED / f"{name}-root").touch()
    script = f"""
        touch /dev/shm/{name[::-1]}
        unshare -r -m sh -c '{way}; echo; mount -t tmpfs x /mnt' 2>&1 && echo mounted
        ls /dev/shm
    """
    ended, output = launcher.run(script, user=user)
    assert ended["code"] == 0, output
    assert name.encode() not in output
    own = name[::-1].encode()
    assert output.endswith(b"mounted\n" + own + b"\n"), (
        "it may mount, and what it has is there still"
    )


# --- What it has, and the machine goes on to have -----------------------------------------


@needs_own_memory
def test_it_has_as_much_as_the_machine(launcher: Launched) -> None:
    script = "stat -c %a /dev/shm; stat -f -c '%b %S' /dev/shm; grep ' /dev/shm ' /proc/mounts"
    _, output = launcher.run(script, user=nobody())
    mode, size, *mounts = output.decode().splitlines()
    there = os.statvfs(SHARED)
    assert mode == "1777"
    assert size == f"{there.f_blocks} {there.f_frsize}"
    assert {"rw", "nosuid", "nodev"} <= {*mounts[-1].split()[3].split(",")}


@needs_own_memory
def test_a_program_and_a_directory_there_are_the_tasks_own(launcher: Launched, name: str) -> None:
    ended = launcher.ended(launcher.start(["true"], cwd=f"{SHARED}/{name}", user=nobody()))
    assert ended["code"] == NOT_EXECUTABLE
    assert f"{SHARED}/{name}" in ended["reason"]
    script = f"cp /bin/true /dev/shm/{name} && /dev/shm/{name}"
    assert launcher.run(script, user=nobody())[0]["code"] == 0


@needs_own_memory
def test_whom_it_trusts_it_is_told_where_that_file_is_not_seen(name: str) -> None:
    text = "-----BEGIN CERTIFICATE-----\nx\n"
    path = SHARED / f"{name}.pem"
    path.write_text(text)
    path.chmod(0o644)
    assert for_other_user(str(path)) == text


@needs_own_memory
def test_mounts_arrive_from_the_machine_and_none_go_there(tmp_path: Path) -> None:
    as_root(
        """
before = mounts()
(here, there), (told, tell) = os.pipe(), os.pipe()
if os.fork() == 0:
    namespaces.own_memory()
    assert mounts() != before
    os.write(there, b"x")
    os.read(told, 1)
    os._exit(os.listdir(place) != ["arrived"])
os.read(here, 1)
assert mounts() == before
assert libc.mount(b"none", place.encode(), b"tmpfs", ctypes.c_ulong(0), None) == 0
open(place + "/arrived", "w").close()
os.write(tell, b"x")
assert os.wait()[1] == 0
""",
        tmp_path,
    )


@needs_own_memory
def test_queues_of_others_are_not_among_its_files(tmp_path: Path, name: str) -> None:
    """Where the machine shows queues as files."""
    as_root(
        """
name = sys.argv[2].encode()
assert libc.mount(b"mqueue", place.encode(), b"mqueue", ctypes.c_ulong(0), None) == 0
assert libc.mq_open(b"/" + name, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
assert os.listdir(place) == [name.decode()]
namespaces._MESSAGE_QUEUES = place
namespaces._all_mounts = namespaces._mounts()
namespaces.own_memory()
assert os.listdir(place) == []
assert libc.mq_open(b"/own", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0
assert os.listdir(place) == ["own"]
""",
        tmp_path,
        name,
    )


@needs_own_memory
def test_where_the_place_is_a_link_or_is_not_there(tmp_path: Path) -> None:
    as_root(
        """
os.mkdir(place + "/real")
os.symlink("real", place + "/link")
open(place + "/real/theirs", "w").close()
for namespaces._SHARED_MEMORY in (place + "/link", place + "/none"):
    namespaces._all_mounts = namespaces._mounts()
    namespaces.own_memory()
    assert os.listdir(place + "/real") == []
""",
        tmp_path,
    )


# --- Where there are none -----------------------------------------------------------------


@needs_own_memory
@pytest.mark.parametrize(
    ("kind", "found"), [("mnt", (True, False)), ("ipc", (True, False)), ("user", (False, True))]
)
def test_each_kind_of_namespace_is_looked_for(kind: str, found: tuple[bool, bool]) -> None:
    as_root_of_another(f"""
with open("/proc/sys/user/max_{kind}_namespaces", "w") as most:  # of this namespace alone
    most.write("0")
assert namespaces.found(2_100_000_002)[:2] == {found}
""")


def test_then_the_worker_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "found", lambda owner: Found(True, False, True))
    identity.check(options(run_as="nobody"))
    assert [record.message for record in caplog.records] == [
        "what tasks leave in shared memory stays: the worker can make no namespaces for it"
    ]
    user = identity.user_for(options(run_as="nobody"))
    assert user
    assert (user.own_namespaces, user.own_memory) == (True, False)


def test_where_it_fails_only_now_the_task_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def own_memory() -> None:
        raise OSError(28, "not now")

    monkeypatch.setattr(namespaces, "own_memory", own_memory)
    monkeypatch.setattr(forking, "_leave_keyring", lambda: None)
    user: dict[str, Any] = {"own_groups": True, "group": groups.FIRST, "own_memory": True}
    with pytest.raises(NotStarted, match="not now") as failure:
        forking._become(user)
    assert failure.value.exit_code is None
