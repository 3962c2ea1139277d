"""Holds the lock of a pipe, for as long as this lives: a splice into a socket that nobody reads.

`own LAUNCHER`:           that of its own output; then it closes all that it has of it.
`give SOCKET`:            sends both ends of its own output there, and stays.
`take SOCKET LAUNCHER`:   that of which both ends are sent there.
LAUNCHER:  a process that stands still until the pipe is held; 0: none. Says "held" on its error
output then. Standard library only: a task runs it, too.
"""

import array
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

_MOST = 60_000


def full_socket() -> socket.socket:
    full, kept = socket.socketpair()
    full.setblocking(False)
    for size in (1 << 16, 1):
        try:
            while True:
                full.send(bytes(size))
        except BlockingIOError:
            pass
    full.setblocking(True)
    _kept.append(kept)
    return full


_kept: list[socket.socket] = []


def hold(reading: int, writing: int, launcher: int) -> None:
    """Returns once it is held."""
    full, never = full_socket(), threading.Event()
    threads: list[int] = []

    def splice() -> None:
        threads.append(threading.get_native_id())
        ctypes.CDLL(None).splice(reading, None, full.fileno(), None, _MOST, 0)
        full.close()

    def held(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if threads and "sock" in Path(f"/proc/self/task/{threads[0]}/wchan").read_text():
                return True
            never.wait(0.01)
        return False

    threading.Thread(target=splice, daemon=True).start()
    for _ in range(60):  # the launcher may be faster, where another holder lets it go on
        if launcher:
            os.kill(launcher, signal.SIGSTOP)
        os.write(writing, bytes(_MOST // 2))
        if held(0.5):
            break
    if launcher:
        os.kill(launcher, signal.SIGCONT)


def main() -> None:
    what, *more = sys.argv[1:]
    own = os.open("/proc/self/fd/1", os.O_RDONLY) if what in ("own", "give") else -1
    if what == "own":
        hold(own, 1, int(more[0]) or os.getppid())
        for each in (own, 1, 2):
            os.close(each)  # the last may wait, too
    elif what == "give":
        with socket.socket(socket.AF_UNIX) as to:
            to.connect(more[0])
            ends = array.array("i", [own, 1])
            to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)])
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(more[0])
            listener.listen()
            os.write(2, b"listens\n")
            line, _ = listener.accept()
            _, [(_, _, sent)], *_ = line.recvmsg(1, 100)
            hold(*array.array("i", sent), int(more[1]))
            os.write(2, b"held\n")
    signal.pause()


if __name__ == "__main__":
    main()
