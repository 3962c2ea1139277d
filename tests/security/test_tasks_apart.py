"""`--run-as`: what a task may not see, of root and of the same user's other tasks."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.errors import EXIT_OK, EXIT_USAGE, BanyanError
from banyan.worker import answers, identity, launching
from banyan.worker.environment import base_environment
from banyan.worker.identity import User
from tests.harness import Processes, eventually
from tests.worker.launched import Launched
from tests.worker.test_run_as import needs_root, nobody, options

SECRET = "SECRET=of-the-other"
# The leader, a child, and a daemon out of its session whose parent is gone; then a file says so.
FAMILY = """
import os, sys, time
def wait():
    time.sleep(1000); os._exit(0)
pids = [os.getpid()]
child = os.fork()
if child == 0:
    wait()
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(writing, str(os.getpid()).encode())
    wait()
print(os.getpid(), child, os.read(reading, 99).decode(), flush=True)
wait()
"""
LOOK = """
for pid in {pids}; do
    for file in environ mem maps fd/0; do
        (: < /proc/$pid/$file) 2>/dev/null && echo read $file of $pid
    done
    grep -qas SECRET /proc/$pid/environ && echo the secret of $pid
    for link in cwd root exe fd/1; do
        readlink /proc/$pid/$link >/dev/null && echo read $link of $pid
    done
done
echo looked
"""


@pytest.fixture
def closed() -> Iterator[Path]:
    """A directory that only root may enter; below it one that is open, and a file."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        inner = Path(directory, "closed", "inner")
        inner.mkdir(parents=True, mode=0o755)
        (inner / "secret").write_text("ROOT-ONLY")
        program = inner / "tool"
        program.write_text("#!/bin/sh\necho hello\n")
        for file, mode in ((inner.parent, 0o700), (inner, 0o755), (program, 0o755)):
            file.chmod(mode)
        yield inner


# --- What root may enter ------------------------------------------------------------------


@needs_root
def test_a_directory_below_a_closed_one_is_not_entered(launcher: Launched, closed: Path) -> None:
    ended, output = launcher.run("cat secret", cwd=str(closed), user=nobody())
    assert (ended["code"], output) == (126, b"")
    assert ended["reason"] == f"cwd {str(closed)!r}: Permission denied"
    closed.parent.chmod(0o755)
    assert launcher.run("cat secret", cwd=str(closed), user=nobody())[1] == b"ROOT-ONLY"


@needs_root
def test_nothing_is_told_of_what_the_user_cannot_see(launcher: Launched, closed: Path) -> None:
    def told(name: str, **more: Any) -> tuple[object, str]:
        ended = launcher.ended(launcher.start([name], user=nobody(), **more))
        return ended["code"], ended["reason"]

    def reasons(*places: Path) -> set[tuple[object, str]]:
        found = set()
        for place in places:
            for code, reason in (
                told("true", cwd=str(place)),
                told(str(place)),
                told(place.name, env={"PATH": str(place.parent)}),
            ):
                found.add((code, reason.replace(place.name, "NAME")))
        return found

    assert len(reasons(closed / "tool", closed / "nothing", closed / "secret")) == 3


# --- The other tasks of the user ------------------------------------------------------------


def family(launcher: Launched, user: dict[str, Any]) -> tuple[str, str]:
    """A task with a secret; (its attempt, its processes)."""
    environment = {"SECRET": SECRET.partition("=")[2]}
    attempt = launcher.start(["python3", "-c", FAMILY], user=user, env=environment)
    launcher.says(attempt, b"\n")
    return attempt, launcher.output(attempt).decode().strip()


@needs_root
def test_tasks_of_one_user_cannot_look_into_each_other(launcher: Launched) -> None:
    attempt, pids = family(launcher, nobody())
    assert len(pids.split()) == 3
    _, output = launcher.run(LOOK.format(pids=pids), user=nobody())
    assert output == b"looked\n"
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)


@needs_root
def test_without_a_group_of_its_own_they_could(launcher: Launched) -> None:
    """That the other test looks properly."""
    user = {**nobody(), "own_groups": False, "own_namespaces": False}
    attempt, pids = family(launcher, user)
    _, output = launcher.run(LOOK.format(pids=pids), user=user)
    for pid in pids.split():
        for what in ("the secret", "read environ", "read mem", "read cwd", "read fd/0"):
            assert f"{what} of {pid}" in output.decode()
    launcher.stop(attempt, grace_seconds=0)
    launcher.ended(attempt)


@needs_root
def test_the_group_of_its_own_cannot_be_changed_for_another(launcher: Launched) -> None:
    script = """
import os
own = os.getgid()
for change in (os.setgid, os.setegid, lambda group: os.setgroups([group])):
    for group in (own + 1, 0, os.getgroups()[0]):
        try:
            change(group)
            print("changed")
        except PermissionError:
            pass
print(os.getresgid() == (own, own, own))
"""
    attempt = launcher.start(["python3", "-c", script], user=nobody())
    assert launcher.ended(attempt)["code"] == 0
    assert launcher.output(attempt) == b"True\n"


@needs_root
def test_what_the_users_group_may_do_a_task_may_too(launcher: Launched) -> None:
    user = nobody()
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, 0, user["gid"])
        Path(directory).chmod(0o770)
        ended, _ = launcher.run(
            f"echo x > shared && chgrp {user['gid']} shared", cwd=directory, user=user
        )
        assert ended["code"] == 0
        assert Path(directory, "shared").stat().st_gid == user["gid"]


def test_a_container_without_so_many_groups_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    user = User("x", 1000, 1000, (1000,), "/", "/bin/sh", own_groups=False)
    monkeypatch.setattr(identity, "user_for", lambda given: user)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    identity.check(options())
    assert "look into each other" in caplog.text


# --- Its streams and its environment ---------------------------------------------------------


@needs_root
def test_it_may_open_its_own_output(launcher: Launched) -> None:
    ended, output = launcher.run(
        "echo one > /dev/stdout; echo two > /dev/stderr; cat < /dev/stdin", user=nobody()
    )
    assert ended["code"] == 0
    assert sorted(output.split()) == [b"one", b"two"]


def test_nothing_of_roots_environment_reaches_the_user() -> None:
    names = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "MAIL"]
    own = {**dict.fromkeys(names, "/root"), "LANG": "C", "TZ": "UTC", "LC_ALL": "C"}
    user = User("x", 1000, 1000, (1000,), "", "")  # of whom the machine knows no more
    assert base_environment(own, user) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "USER": "x",
        "LOGNAME": "x",
        "LANG": "C",
        "TZ": "UTC",
        "LC_ALL": "C",
    }


# --- The process before the program is there --------------------------------------------------


@needs_root
def test_a_launcher_that_dies_takes_along_what_has_not_begun(
    launcher: Launched, tmp_path: Path
) -> None:
    """It has no mark yet by which the next one would find it."""
    from tests.security import hanging

    place = tmp_path / "silent"
    place.mkdir()
    try:
        with hanging.mounted(place):
            launcher.shell("true", cwd=str(place))
            launcher.run("true")
            [waiting] = (
                Path(f"/proc/{launcher.process.pid}/task/{launcher.process.pid}/children")
                .read_text()
                .split()
            )
            launcher.process.kill()
            launcher.process.wait()
            eventually(lambda: not Path(f"/proc/{waiting}/fd/0").exists())
    except OSError as problem:
        pytest.skip(f"no FUSE here: {problem}")


@needs_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of its system calls")
def test_roots_keys_are_not_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.syscall(250, 1, None) > 0
assert libc.syscall(248, b"user", b"canary", b"x", 1, -3) > 0
os.execv(sys.argv[1], sys.argv[1:])
"""
    look = """
import ctypes
print(ctypes.CDLL(None).syscall(250, 10, -3, b"user", b"canary", 0) > 0)
"""
    state = tmp_path / "state"
    state.mkdir()
    python = launching._python()
    monkeypatch.setattr(launching, "_python", lambda: [python[0], "-c", plant, *python])
    launcher = Launched(state)
    found = []
    for user in (None, nobody()):
        attempt = launcher.start(["python3", "-c", look], user=user)
        launcher.ended(attempt)
        found.append(launcher.output(attempt))
    launcher.end()
    assert found == [b"True\n", b"False\n"]


# --- Names that a false server makes up --------------------------------------------------------


@pytest.mark.parametrize("attempt", ["../lock", "/etc/cron.d/x", "", "a/b", "a\n", "."])
def test_an_attempt_is_a_name_and_no_path(attempt: str) -> None:
    """Its output goes to a file of that name, written by root."""
    with pytest.raises(BanyanError) as raised:
        answers.claimed({"_items": [{"_id": "0" * 24, "attempt_id": attempt, "token": "t"}]})
    assert raised.value.word == "internal"


@needs_root
def test_a_run_without_a_server_writes_where_only_root_may(
    processes: Processes, tmp_path: Path
) -> None:
    file, output = tmp_path / "tasks.jsonl", tmp_path / "output"
    file.write_text('{"name": "a", "command": "echo forged"}\n')
    (output / ".banyan").mkdir(parents=True)
    command = ["worker", "--standalone", str(file), "--output", str(output)]
    for stranger in (output, output / ".banyan"):
        os.chown(stranger, nobody()["uid"], -1)
        worker = processes.banyan(*command)
        assert worker.wait(20) == EXIT_USAGE
        assert "belongs to nobody" in worker.stderr
        assert "--output DIR names another" in worker.stderr
        os.chown(stranger, 0, -1)
    assert list(output.iterdir()) == [output / ".banyan"]


@pytest.mark.parametrize("name", ["a.out", "journal.jsonl"])
def test_a_run_without_a_server_follows_no_link(
    processes: Processes, tmp_path: Path, name: str
) -> None:
    """In a directory like /tmp, where others can put one."""
    file, output, else_where = (tmp_path / each for each in ("tasks.jsonl", "output", "elsewhere"))
    script = f"ln -s {else_where} {output}/a.out; echo forged"
    file.write_text(json.dumps({"name": "a", "command": script}) + "\n")
    output.mkdir()
    if name != "a.out":
        (output / name).symlink_to(else_where)
    worker = processes.banyan("worker", "--standalone", str(file), "--output", str(output))
    assert worker.wait(30) == (EXIT_OK if name == "a.out" else EXIT_USAGE)
    assert not else_where.exists()
