"""Namespaces of its own for each attempt under `--run-as`: of users, and of shared memory.

Used by `forking`; `identity` asks whether there can be such. Standard library only.

In its user namespace users and groups are what they were outside. Who owns one may look into all
processes in it, and its owner is the user that made it, of whatever group: a task that makes one
(`unshare -r`, Apptainer, Podman, bwrap) would be open to all its user's processes. But they only
own what was made below their own namespace. So each attempt begins in one that nobody has who runs
anything.

Its owner is a number of the attempt's own, and not root: what the kernel counts for each user
(namespaces, inotify, pending signals) it counts for the owner, too, who may run out of it.

Files in shared memory (`/dev/shm`), POSIX message queues and System V objects outlive the processes
that made them. So each attempt has places of its own for them, which the kernel removes with the
last process that can see them. It uncovers the machine's nowhere: what covers them belongs to a
user namespace above its own.
"""

import ctypes
import errno
import functools
import os
import signal
from collections.abc import Callable
from typing import NamedTuple

_CLONE_VM = 0x100
_CLONE_NEWNS = 0x2_0000
_CLONE_NEWIPC = 0x800_0000
_CLONE_NEWUSER = 0x1000_0000
_SECONDS_MAX = 5  # should this process die meanwhile
_WAIT_ALL = 0x4000_0000  # also for a child that sends no signal when it ends
_STACK_BYTES = 1 << 14
_STACK_ALIGNMENT = 64
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_SLAVE = 0x4000, 0x8_0000
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - none of ours is put there
_MESSAGE_QUEUES = "/dev/mqueue"
# How many there may be in the user namespace that one is in, and below.
_BOUNDS = ("/proc/sys/user/max_mnt_namespaces", "/proc/sys/user/max_net_namespaces")


class Found(NamedTuple):
    """Which namespaces there can be."""

    of_users: bool
    of_memory: bool
    none_of_tasks: bool  # tasks can be kept from making those that containers need


class _Mount(NamedTuple):
    """Arguments of mount(2)."""

    source: bytes
    target: bytes
    kind: bytes | None
    flags: int
    data: bytes | None


def _same(name: str) -> bytes:
    """Whom this process knows, each as itself; empty where the kernel has no namespaces."""
    try:
        with open(f"/proc/self/{name}") as file:
            lines = [line.split() for line in file]
    except OSError:
        return b""
    return "".join(f"{first} {first} {count}\n" for first, _, count in lines).encode()


def _mounts() -> list[_Mount]:
    """What gives a process that has left the machine's mounts shared memory of its own.

    As large as the machine's, where the machine has such. Whatever is mounted later on the machine
    still arrives, and nothing goes back.
    """
    made = [_Mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None)]
    place = os.path.realpath(_SHARED_MEMORY)
    if os.path.isdir(place):
        there = os.statvfs(place)
        size = there.f_blocks * there.f_frsize
        flags = _MS_NOSUID | _MS_NODEV | (there.f_flag & os.ST_NOEXEC and _MS_NOEXEC)
        data = f"mode=1777,size={size}".encode()
        made.append(_Mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, data))
    if os.path.isdir(_MESSAGE_QUEUES):
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        made.append(_Mount(b"mqueue", os.fsencode(_MESSAGE_QUEUES), b"mqueue", flags, None))
    return made


# All of it is made before there are children, in each of which a changed page is a copied one.
_libc = ctypes.CDLL(None, use_errno=True)
_clone, _sleep, _setns = _libc.clone, _libc.sleep, _libc.setns
_unshare, _mount = _libc.unshare, _libc.mount
_clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
_stack = ctypes.create_string_buffer(_STACK_BYTES)
_top = (ctypes.addressof(_stack) + _STACK_BYTES) & -_STACK_ALIGNMENT
_maps = {name: _same(name) for name in ("uid_map", "gid_map")}
_all_mounts = _mounts()


def own_memory() -> None:
    """Gives this process, root's, shared memory of its own. Called before `leave`.

    Errors: OSError; then some of it may be done.
    """
    _check(_unshare(_CLONE_NEWNS | _CLONE_NEWIPC))
    for source, target, kind, flags, data in _all_mounts:
        _check(_mount(source, target, kind, ctypes.c_ulong(flags), data))


def leave(owner: int, with_containers: bool = False) -> bool:
    """Takes this process, root's and of one thread, into a new one.

    False where the machine allows none: then nobody else makes any, either.
    owner:           a user that nobody is.
    with_containers: whether there may be namespaces of mounts and networks below it.
    Errors: OSError, where it can't be done for another reason.
    """
    try:
        namespace = _make(owner)
        _check(_setns(namespace, _CLONE_NEWUSER))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    os.close(namespace)
    if not with_containers:
        _forbid_containers()
    return True


def _forbid_containers() -> bool:
    """False where `/proc/sys` cannot be written.

    Root of a network can have memory from the kernel that no cgroup is charged for. Who mounts can
    keep all others waiting that do so on the machine: for the start of each task, too.
    """
    for bound in _BOUNDS:
        try:
            file = os.open(bound, os.O_WRONLY)
            os.write(file, b"0")
            os.close(file)
        except OSError:
            return False
    return True


@functools.cache
def found(owner: int) -> Found:
    """What a child of this process can do: `leave`, have its `own_memory`, forbid containers."""
    return Found(
        _child_can(lambda: leave(owner)),
        _child_can(own_memory),
        _child_can(lambda: leave(owner) and _forbid_containers()),
    )


def _child_can(do: Callable[[], object]) -> bool:
    """Whether it does it without an error, and does not say that it has not."""
    pid = os.fork()
    if pid == 0:
        done = False
        try:
            done = do() is not False
        finally:
            os._exit(not done)
    return os.waitpid(pid, 0)[1] == 0


def _make(owner: int) -> int:
    """A file that stands for it. A process begins in it, and is ended when the file is there.

    That process shares our memory, as in a vfork, but runs nothing of ours.
    """
    os.setresuid(-1, owner, -1)
    try:
        sleeper = _check(_clone(_sleep, _top, _CLONE_VM | _CLONE_NEWUSER, _SECONDS_MAX))
    finally:
        os.setresuid(-1, 0, -1)
    try:
        for name, same in _maps.items():
            file = os.open(f"/proc/{sleeper}/{name}", os.O_WRONLY)
            os.write(file, same)
            os.close(file)
        return os.open(f"/proc/{sleeper}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(sleeper, signal.SIGKILL)
        os.waitpid(sleeper, _WAIT_ALL)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
