"""A user namespace for each attempt under `--run-as`, in which users and groups are what they were.

Used by `forking`; `identity` asks whether there can be such. Standard library only.

Who owns a user namespace may look into all processes in it. Its owner is the user that made it,
of whatever group: a task that makes one (`unshare -r`, Apptainer, Podman, bwrap) would be open to
all its user's processes. But they only own what was made below their own namespace. So each attempt
begins in one that nobody has who runs anything.

Its owner is a number of the attempt's own, and not root: what the kernel counts for each user
(namespaces, inotify, pending signals) it counts for the owner, too, who may run out of it.
"""

import ctypes
import errno
import os
import signal

_CLONE_VM = 0x100
_CLONE_NEWUSER = 0x1000_0000
_SECONDS_MAX = 5  # should this process die meanwhile
_WAIT_ALL = 0x4000_0000  # also for a child that sends no signal when it ends
_STACK_BYTES = 1 << 14
_STACK_ALIGNMENT = 64


def _same(name: str) -> bytes:
    """Whom this process knows, each as itself; empty where the kernel has no namespaces."""
    try:
        with open(f"/proc/self/{name}") as file:
            lines = [line.split() for line in file]
    except OSError:
        return b""
    return "".join(f"{first} {first} {count}\n" for first, _, count in lines).encode()


# All of it is made before there are children, in each of which a changed page is a copied one.
_libc = ctypes.CDLL(None, use_errno=True)
_clone, _sleep, _setns = _libc.clone, _libc.sleep, _libc.setns
_clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
_stack = ctypes.create_string_buffer(_STACK_BYTES)
_top = (ctypes.addressof(_stack) + _STACK_BYTES) & -_STACK_ALIGNMENT
_maps = {name: _same(name) for name in ("uid_map", "gid_map")}


def leave(owner: int) -> bool:
    """Takes this process, root's and of one thread, into a new one.

    False where the machine allows none: then nobody else makes any, either.
    owner: a user that nobody is.
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
    return True


def are_there(owner: int) -> bool:
    """Whether a child of this process can `leave`."""
    pid = os.fork()
    if pid == 0:
        left = False
        try:
            left = leave(owner)
        finally:
            os._exit(not left)
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
