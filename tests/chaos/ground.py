"""Where the parts of a stage stand: each in a network of its own, or all on loopback.

With networks of their own (root only) any direction between two parts can be cut. The base
network routes between them; all of it is inside a network namespace of this process, which
goes with it, and so do the file systems that are mounted here.
"""

import contextlib
import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.harness import Processes, eventually

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

Undo = Callable[[], None]


class Loopback:
    """One network for all: nothing can be cut, nothing is mounted, no root is needed."""

    apart = False

    def add(self, place: str) -> None:
        """A place for one part."""

    def command(self, place: str, arguments: Sequence[str]) -> list[str]:
        """The command that starts a program at that place."""
        return list(arguments)

    def address(self, place: str) -> str:
        """Under which the others find what listens at that place."""
        return "127.0.0.1"

    @contextlib.contextmanager
    def inside(self, place: str) -> Iterator[None]:
        """What this thread opens, and threads that it starts, belongs to that place."""
        yield

    def disk(self, directory: Path, size_bytes: int) -> None:
        """A file system of that size, where one can be mounted."""
        directory.mkdir(parents=True, exist_ok=True)

    def fill(self, directory: Path) -> Undo:
        """Takes all that is free of the file system that was mounted there."""
        raise NotImplementedError("nothing is mounted here")

    def cut(self, sender: str, receiver: str) -> Undo:
        """Nothing that `sender` sends arrives at `receiver`; the other direction is left."""
        raise NotImplementedError("all is one network here")


class Namespaces(Loopback):
    """A network namespace for each place, with a cable to the base, which routes."""

    apart = True

    def __init__(self, processes: Processes) -> None:
        if _libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "no namespaces for us")
        self._processes = processes
        self._holders: dict[str, int] = {}
        self._sizes: dict[Path, int] = {}
        _ip("link", "set", "lo", "up")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def add(self, place: str) -> None:
        """A namespace, kept by a process that does nothing else."""
        number = len(self._holders) + 1
        holder = self._processes.start(["unshare", "-n", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own)
        self._holders[place] = holder.pid
        cable = ["link", "add", "name", f"to{number}", "type", "veth", "peer", "name", "eth0"]
        _ip(*cable, "netns", str(holder.pid))
        _ip("addr", "add", f"10.77.{number}.1/24", "dev", f"to{number}")
        _ip("link", "set", f"to{number}", "up")
        for line in (
            "link set lo up",
            f"addr add 10.77.{number}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via 10.77.{number}.1",
        ):
            subprocess.run(self.command(place, ["ip", *line.split()]), check=True)

    def command(self, place: str, arguments: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self._holders[place]), "-n", *arguments]

    def address(self, place: str) -> str:
        return f"10.77.{list(self._holders).index(place) + 1}.2"

    @contextlib.contextmanager
    def inside(self, place: str) -> Iterator[None]:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self._holders[place]}/ns/net", os.O_RDONLY)
        try:
            _set_network(there)
            try:
                yield
            finally:
                _set_network(before)
        finally:
            os.close(before)
            os.close(there)

    def disk(self, directory: Path, size_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        how = f"mode=0700,size={size_bytes}"
        arguments = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(directory)]
        subprocess.run(arguments, check=True)
        self._sizes[directory] = size_bytes

    def fill(self, directory: Path) -> Undo:
        eventually(lambda: self._resize(directory, _used_bytes(directory)))  # it may grow meanwhile
        return lambda: self._resize(directory, self._sizes[directory]) and None

    def _resize(self, directory: Path, size_bytes: int) -> bool:
        arguments = ["mount", "-o", f"remount,size={size_bytes}", str(directory)]
        return subprocess.run(arguments, capture_output=True, check=False).returncode == 0

    def cut(self, sender: str, receiver: str) -> Undo:
        rule = ["from", self.address(sender), "to", self.address(receiver), "blackhole"]
        _ip("rule", "add", *rule)
        return lambda: _ip("rule", "del", *rule)


def _used_bytes(directory: Path) -> int:
    disk = os.statvfs(directory)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def why_not_apart() -> str | None:
    """Why there can be no networks of our own on this machine; None where there can."""
    if os.geteuid() != 0:
        return "needs root, for namespaces of its own"
    with tempfile.TemporaryDirectory() as directory:
        probe = (
            "ip link add name probe0 type veth peer name probe1 && "
            "ip rule add from 10.77.1.2 blackhole && "
            f"mount -t tmpfs tmpfs {directory} && umount {directory}"
        )
        probing = ["unshare", "-n", "-m", "sh", "-ec", probe]
        try:
            done = subprocess.run(probing, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "needs the program unshare"
    return done.stderr.strip() or "namespaces are refused here" if done.returncode else None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _set_network(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
