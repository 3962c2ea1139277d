"""A process whose environment is not what it was started with, as any process may have it.

`python false_environment.py MEBIBYTES`: it shows so much memory that holds nothing, and says "x".
`python false_environment.py FILE`: it says "x", and its memory is closed to all who would read it,
for as long as the file's file system (see `silent_files`) says nothing.
`python false_environment.py FILE MEBIBYTES`: it uses so much memory before that.
"""

import contextlib
import ctypes
import mmap
import os
import select
import signal
import sys

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_NAMES = ["start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack"]
_NAMES += ["arg_start", "arg_end", "env_start", "env_end", "auxv"]


class _Map(ctypes.Structure):
    """What `prctl` wants: see its manual page."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in _NAMES),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    ]


def show(start: int, size: int) -> None:
    """Instead of its environment. Errors: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    with open("/proc/self/stat") as stat:
        said = [0, 0, 0, *map(int, stat.read().rpartition(")")[2].split()[1:])]
    at = {"start_code": 26, "end_code": 27, "start_stack": 28, "start_data": 45, "end_data": 46}
    at |= {"start_brk": 47, "arg_start": 48, "arg_end": 49}
    values = {name: said[number - 1] for name, number in at.items()}
    end = start + size
    made = _Map(**values, brk=libc.sbrk(0), env_start=start, env_end=end, exe_fd=0xFFFFFFFF)
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(made), ctypes.sizeof(made), 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_MM)")


def close(path: str, mebibytes: int = 0) -> None:
    """Maps a file while a page of it is being read: the kernel waits, and the memory with it."""
    reading = os.open(path, os.O_RDONLY)
    mapped = os.open(path, os.O_RDONLY | os.O_DIRECT)
    if os.fork() == 0:
        with contextlib.suppress(OSError):  # the file system has ended
            os.read(reading, 1)
        os._exit(0)
    select.select([], [], [], 0.2)  # until the kernel waits for it
    os.write(1, b"x")
    used = bytearray(mebibytes << 20)
    mmap.mmap(mapped, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)
    del used


def main() -> None:
    """Goes on until it is ended."""
    if sys.argv[1].isdigit():
        memory = mmap.mmap(-1, int(sys.argv[1]) << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        show(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory))
        os.write(1, b"x")
    else:
        close(sys.argv[1], *map(int, sys.argv[2:]))
    signal.pause()


if __name__ == "__main__":
    main()
