"""A process started by a fork: what must not hold up the launcher, and what only the user may do.

Called by `spawning.Spawner` for tasks of another user (`--run-as`), and for a directory or a
program that may lie where nobody answers. The launcher goes on at once: the child itself becomes
the user, enters the directory and looks for the program, and says through a pipe what it could
not do. So it sees what the user sees, and if it waits, it waits alone. Standard library only.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from banyan.worker import namespaces, programs
from banyan.worker.spawning import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    SIGNALS_RESET,
    NotStarted,
    enter,
    find,
    not_started,
)

UMASK = 0o077

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_REASON_LENGTH_MAX = 600  # so that the pipe takes and gives it in one piece
_TOLD_BYTES_MAX = 1 << 14
_libc = ctypes.CDLL(None, use_errno=True)


class Order(NamedTuple):
    """What is to be started.

    user:       as whom (`User.to_json`), with the `group` of its own; None: as the launcher itself.
    files:      its input, output and error output.
    open_files: its limits of open files.
    others:     files that it has under the numbers that they have here; nothing else is open in it.
    """

    argv: list[str]
    env: Mapping[str, str]
    cwd: str
    user: Mapping[str, Any] | None
    files: tuple[int, int, int]
    open_files: tuple[int, int]
    others: Sequence[int] = ()


def fork(order: Order) -> tuple[int, int]:
    """The process id, and a pipe that ends when the program is there; see `failure_in`.

    Errors: OSError, where there can be no further process.
    """
    reading, writing = os.pipe()  # both are closed by an exec
    launcher = os.getpid()
    # What is sent to the child before it has signals of its own waits, and is not ignored.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_RESET)
    try:
        pid = os.fork()
        if pid == 0:
            _be(order, writing, launcher)
    except OSError:
        os.close(reading)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
    return pid, reading


def failure_in(read: Callable[[int, int], bytes], pipe: int) -> NotStarted | None:
    """What a readable pipe of `fork` tells: why there is no program; None: there is."""
    told = read(pipe, _TOLD_BYTES_MAX)
    return _heard(told) if told else None


def _heard(told: bytes) -> NotStarted:
    """As `_tell` says it, but the child is the task's user by then, and may say anything."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        exit_code, reason = json.loads(told)
        if exit_code in (None, NOT_FOUND, NOT_EXECUTABLE) and isinstance(reason, str):
            plain = reason[:_REASON_LENGTH_MAX].encode(errors="replace").decode()
            return NotStarted(exit_code and int(exit_code), plain)
    return NotStarted(NOT_EXECUTABLE, "it could not be started, and did not say why")


def _be(order: Order, pipe: int, launcher: int) -> NoReturn:
    """The child. Whatever happens in it, it must never go on as a second launcher."""
    try:
        _let_go(order, pipe)
        if order.user:
            _become(order.user)
        _die_with(launcher)
        enter(order.cwd)
        program = find(order.argv[0] if order.argv else "", order.env.get("PATH", os.defpath))
        _prctl(_PR_SET_PDEATHSIG, 0)
        _exec(program, order)
    except NotStarted as failure:
        _tell(pipe, failure)
    except BaseException as problem:
        _tell(pipe, NotStarted(NOT_EXECUTABLE, f"it could not be started: {problem}"))
    finally:
        os._exit(NOT_EXECUTABLE)


def _let_go(order: Order, pipe: int) -> None:
    """A session, files and signals of its own: nothing of the launcher's is held while it waits."""
    for each in SIGNALS_RESET:
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.setsid()
    for number, file in enumerate(order.files):
        os.dup2(file, number)
    last = 2
    for file in sorted({pipe, *order.others, 1 + max(map(int, os.listdir("/proc/self/fd")))}):
        os.closerange(last + 1, file)
        last = file
    resource.setrlimit(resource.RLIMIT_NOFILE, order.open_files)


def _become(user: Mapping[str, Any]) -> None:
    """The user, with no way back.

    The kernel lets a process look into another (its environment, its memory, its open files)
    where both the user and the group are the same. With a group of its own an attempt is closed
    to the user's other attempts; what the user's group may do it may by its further groups.
    """
    group = user["group"] if user["own_groups"] else user["gid"]
    _leave_keyring()
    if user["own_memory"]:
        _leave_shared_memory()
    if user["own_namespaces"]:
        _leave_namespace(group, user["containers"])
    others = [each for each in user["groups"] if each != user["gid"]]
    os.setgroups([user["gid"], *others])
    os.setresgid(group, group, group)
    os.setresuid(user["uid"], user["uid"], user["uid"])
    os.umask(UMASK)
    # Neither sudo nor any file with a set-user-id bit leads back to root.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _leave_shared_memory() -> None:
    """What the attempt leaves in it is to go with its last process.

    Errors: NotStarted, no fault of the task.
    """
    try:
        namespaces.own_memory()
    except OSError as error:
        told = f"the worker can't give it shared memory of its own: {error}"
        raise NotStarted(None, told) from error


def _leave_namespace(group: int, with_containers: bool) -> None:
    """Its owner is the user with the number of the attempt's group: there is none.

    Errors: NotStarted, no fault of the task.
    """
    try:
        namespaces.leave(group, with_containers)
    except OSError as error:
        raise NotStarted(None, f"the worker can't make a user namespace: {error}") from error


def _leave_keyring() -> None:
    """Root's keys of this session (Kerberos, encrypted disks) are no user's; where there are any.

    Called while still root, whose keyrings are not counted against the user's few.
    """
    if number := _SYS_KEYCTL.get(os.uname().machine):
        _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)


def _die_with(launcher: int) -> None:
    """Until the program is there it bears no mark by which the next launcher would find it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(NOT_EXECUTABLE)


def _exec(program: str, order: Order) -> NoReturn:
    """As a shell does it: a text without a `#!` line is for the shell."""
    try:
        try:
            os.execve(program, order.argv, order.env)  # noqa: S606 - what the task asked for
        except OSError as error:
            if not (by_shell := programs.by_shell(program, order.argv, error)):
                raise
            os.execve(by_shell[0], by_shell, order.env)  # noqa: S606
    except (OSError, ValueError) as error:
        raise not_started(order.argv[0] if order.argv else "", error, program) from error


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _tell(pipe: int, failure: NotStarted) -> None:
    told = [failure.exit_code, failure.reason[:_REASON_LENGTH_MAX]]
    os.write(pipe, json.dumps(told, ensure_ascii=False).encode(errors="replace"))
