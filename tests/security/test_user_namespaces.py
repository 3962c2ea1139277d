"""`--run-as`: a task that makes a user namespace does not open itself to others of its user.

So do containers without root: Apptainer, Podman, bwrap. Who makes a namespace owns it, by the user
number alone; without another one around it, the group of its own would not close an attempt.
"""

import errno
import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from banyan.worker import forking, groups, identity, namespaces
from banyan.worker.identity import user_for
from banyan.worker.namespaces import Found
from banyan.worker.spawning import NotStarted
from tests.harness import eventually
from tests.security.test_tasks_apart import LOOK
from tests.worker.launched import Launched, alive
from tests.worker.test_run_as import nobody, options

ROOT = Path(__file__).parents[2]
NS_GET_OWNER_UID = 0xB704
SHOWN = ("the secret", "read environ", "read mem", "read cwd", "read fd/0")
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not namespaces.found(groups.FIRST).of_users,
    reason="needs root, as tasks are another user, and user namespaces",
)


def contained(launcher: Launched, user: dict[str, Any]) -> tuple[str, int]:
    """A task with a secret, whose process has made a namespace: (its attempt, that process)."""
    script = "unshare -Ur sleep 1000 & echo $!; wait"
    attempt = launcher.shell(script, user=user, env={"SECRET": "of-the-other"})
    launcher.says(attempt, b"\n")
    pid = int(launcher.output(attempt))
    eventually(lambda: maps_root_alone(pid), 20)
    return attempt, pid


def maps_root_alone(pid: int) -> bool:
    return Path(f"/proc/{pid}/uid_map").read_text().split()[::2] == ["0", "1"]


def owner_of(pid: int) -> int:
    """Of the user namespace in which a process is."""
    told = bytearray(4)
    with open(f"/proc/{pid}/ns/user", "rb") as namespace:
        fcntl.ioctl(namespace, NS_GET_OWNER_UID, told)
    return int.from_bytes(told, sys.byteorder)


def seen_by(launcher: Launched, pid: int, user: dict[str, Any]) -> str:
    return launcher.run(LOOK.format(pids=pid), user=user)[1].decode()


def as_root_of_another(script: str) -> None:
    """In a process of its own, in a namespace with all users and groups, as in a container."""
    first = "import os, sys\nfrom banyan.worker import namespaces\n"
    leaving = f"{first}assert namespaces.leave(2_100_000_001, True)\n"
    leaving += "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", leaving, first + script]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


# --- Who looks in -------------------------------------------------------------------------


@needs_namespaces
def test_other_tasks_of_the_user_do_not_see_into_it(launcher: Launched) -> None:
    _, pid = contained(launcher, nobody())
    assert seen_by(launcher, pid, nobody()) == "looked\n"
    assert seen_by(launcher, pid, {**nobody(), "own_namespaces": False}) == "looked\n"


@needs_namespaces
def test_nor_does_one_that_is_in_a_namespace_itself(launcher: Launched) -> None:
    _, pid = contained(launcher, nobody())
    script = f"unshare -Urm sh -c '{LOOK.format(pids=pid)}'"
    assert launcher.run(script, user={**nobody(), "containers": True})[1] == b"looked\n"


@needs_namespaces
def test_nor_do_processes_of_the_user_that_are_no_tasks(launcher: Launched) -> None:
    user = nobody()
    _, pid = contained(launcher, user)
    told = subprocess.run(
        ["/bin/sh", "-c", LOOK.format(pids=pid)], user=user["uid"], group=user["gid"],
        extra_groups=[], stdout=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    assert told.stdout == b"looked\n"


@needs_namespaces
def test_without_one_around_it_they_would(launcher: Launched) -> None:
    """That the other tests look properly."""
    user = {**nobody(), "own_namespaces": False}
    _, pid = contained(launcher, user)
    told = seen_by(launcher, pid, user)
    assert [f"{what} of {pid}" in told for what in SHOWN] == [True] * len(SHOWN)


@needs_namespaces
def test_each_belongs_to_somebody_who_is_nobody(launcher: Launched) -> None:
    """Not to root: what is counted for each user is counted for the owner, too."""
    pids = []
    for _ in range(2):
        attempt = launcher.shell("echo $$; exec sleep 1000", user=nobody())
        launcher.says(attempt, b"\n")
        pids.append(int(launcher.output(attempt)))
    owners = [owner_of(pid) for pid in pids]
    assert len({*owners, owner_of(os.getpid()), nobody()["uid"]}) == 4
    for pid, owner in zip(pids, owners, strict=True):
        assert groups.FIRST <= owner < groups.FIRST + groups.COUNT
        assert f"\nGid:\t{owner}\t" in Path(f"/proc/{pid}/status").read_text()


# --- What goes on as before ---------------------------------------------------------------


@needs_namespaces
def test_everybody_in_it_is_who_they_were(launcher: Launched, tmp_path: Path) -> None:
    def told(user: dict[str, Any]) -> str:
        script = "id -u; id -G | cut -d' ' -f2-; stat -c '%u %g' / /dev/null; ulimit -a; umask"
        return launcher.run(f"{script}; cat /proc/self/?id_map", user=user)[1].decode()

    assert told(nobody()) == told({**nobody(), "own_namespaces": False})


@needs_namespaces
def test_a_task_makes_namespaces_and_looks_into_itself(launcher: Launched) -> None:
    script = """
        unshare -Urm sh -c 'id -u; mount -t tmpfs none /mnt && unshare -Ur id -u'
        sleep 1000 & cat /proc/$!/environ /proc/$!/maps > /dev/null && echo seen
        unshare -Ur sleep 1000 & sleep 0.1; cat /proc/$!/environ > /dev/null && echo seen
        grep -E 'NoNewPrivs|Cap(Eff|Prm|Amb)' /proc/self/status | tr -d '\\t0\\n'
    """
    ended, output = launcher.run(script, user={**nobody(), "containers": True})
    assert output == b"0\n0\nseen\nseen\nCapPrm:CapEff:CapAmb:NoNewPrivs:1"
    assert ended["code"] == 0


@needs_namespaces
@pytest.mark.parametrize(("option", "kind"), [("n", "net"), ("m", "mnt")])
def test_containers_are_made_only_where_the_worker_lets_them(
    launcher: Launched, option: str, kind: str
) -> None:
    """Root of a network takes memory that no cgroup is charged for; who mounts holds up others."""
    bound = Path(f"/proc/sys/user/max_{kind}_namespaces")
    before = bound.read_text()
    for script in (
        f"unshare -Ur{option} true",
        f"unshare -Ur unshare -{option} true",
        f"unshare -Ur unshare -Ur{option} true",
        f"unshare -Ur sh -c 'echo 9 > {bound}; unshare -{option} true'",
    ):
        ended, _ = launcher.run(script, user=nobody())
        assert ended["code"] != 0, script
        ended, _ = launcher.run(script, user={**nobody(), "containers": True})
        assert ended["code"] == 0, script
    assert bound.read_text() == before
    assert user_for(replace(options(run_as="nobody"), containers=True)) != user_for(
        options(run_as="nobody")
    )


@needs_namespaces
def test_the_launcher_ends_what_is_in_it(launcher: Launched) -> None:
    attempt, pid = contained(launcher, nobody())
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)
    eventually(lambda: not alive(pid), 20)


@needs_namespaces
def test_who_has_left_is_alone_and_still_root() -> None:
    as_root_of_another("""
before = os.readlink("/proc/self/ns/user")
files = os.listdir("/proc/self/fd")
assert namespaces.leave(2_100_000_002)
assert os.readlink("/proc/self/ns/user") != before
assert os.getresuid() == (0, 0, 0)
assert open("/proc/self/uid_map").read().split() == ["0", "0", str(2**32 - 1)]
assert os.listdir("/proc/self/fd") == files
try:
    os.waitpid(-1, 0x4000_0000)
    raise AssertionError("a child is left")
except ChildProcessError:
    pass
""")


# --- Where there are none -----------------------------------------------------------------


@needs_namespaces
def test_without_them_tasks_run_as_they_did() -> None:
    as_root_of_another("""
with open("/proc/sys/user/max_user_namespaces", "w") as most:  # of this namespace alone
    most.write("0")
assert not namespaces.found(2_100_000_002).of_users
assert not namespaces.leave(2_100_000_002)
assert os.getresuid() == (0, 0, 0)
""")


def test_then_the_worker_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "found", lambda owner: Found(False, True, False))
    identity.check(options(run_as="nobody"))
    assert "user namespace" in caplog.text
    monkeypatch.setattr(namespaces, "found", lambda owner: Found(True, True, True))
    caplog.clear()
    identity.check(options(run_as="nobody"))
    assert not caplog.records


@needs_namespaces
@pytest.mark.parametrize("way", ["ro", "rw"])
def test_whether_containers_can_be_forbidden_is_tried(way: str) -> None:
    """In some containers /proc/sys is read-only, for who may make namespaces too."""
    script = (
        "from banyan.worker import namespaces; print(namespaces.found(2_100_000_001).none_of_tasks)"
    )
    mounts = f"mount --bind /proc/sys /proc/sys && mount -o remount,bind,{way} /proc/sys"
    command = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    command += [sys.executable, "-c", script]
    told = subprocess.run(command, cwd=ROOT, check=True, timeout=60, stdout=subprocess.PIPE)
    assert told.stdout.decode().strip() == str(way == "rw")


@pytest.mark.parametrize(("containers", "warned"), [(False, True), (True, False)])
def test_of_containers_that_cannot_be_forbidden_the_worker_warns(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    containers: bool,
    warned: bool,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "found", lambda owner: Found(True, True, False))
    identity.check(replace(options(run_as="nobody"), containers=containers))
    assert ("containers" in caplog.text) == warned


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EPERM])
def test_where_it_fails_only_now_the_task_is_not_started(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where others could look into it. It is no fault of its own."""

    def make(owner: int) -> int:
        raise OSError(number, "not now")

    monkeypatch.setattr(namespaces, "_make", make)
    with pytest.raises(NotStarted, match="not now") as failure:
        forking._leave_namespace(groups.FIRST, False)
    assert failure.value.exit_code is None
