"""A file system in a file: one file, which can be opened and mapped, and never says what is in it.

`python silent_files.py MOUNT_POINT UID`: mounts it by FUSE (as root), then serves as this user. It
ends with whoever has started it: whoever waits for the file, or reads the memory of a process that
does, waits as long as this lives.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
import sys

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _INIT, _INTERRUPT = 1, 2, 3, 14, 15, 26, 36
_IN = struct.Struct("IIQQIIIHH")
_DIRECT, _KEEP = 1, 2  # reads pass by what the kernel has of the file; it is not thrown away
_ROOT = 1
_PR_SET_PDEATHSIG = 1


def mount(place: str) -> int:
    """The file through which the kernel asks. Errors: OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"silent", os.fsencode(place), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    return server


def attributes(node: int) -> bytes:
    kind = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o444
    return struct.pack("6Q10I", node, 4096, 8, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0)


def answer(opcode: int, node: int, flags: int) -> bytes | None:
    """None: it can't do that."""
    if opcode == _INIT:
        return struct.pack("IIIIHHIIHHI7I", 7, 31, 65536, 0, 1, 1, 65536, 1, 0, 0, 0, *[0] * 7)
    if opcode == _LOOKUP:
        return struct.pack("QQQQII", 2, 0, 1000, 1000, 0, 0) + attributes(2)
    if opcode == _GETATTR:
        return struct.pack("QII", 1000, 0, 0) + attributes(node)
    how = _KEEP | (_DIRECT if flags & os.O_DIRECT else 0)
    return struct.pack("QII", 0, how, 0) if opcode == _OPEN else None


def main() -> None:
    server = mount(sys.argv[1])
    os.setuid(int(sys.argv[2]))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.write(1, b"mounted\n")
    while True:
        request = os.read(server, 1 << 17)
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        if opcode in (_READ, _FORGET, _INTERRUPT):
            continue
        flags = int.from_bytes(request[_IN.size : _IN.size + 4], sys.byteorder)
        body = answer(opcode, node, flags)
        error = -errno.ENOSYS if body is None else 0
        body = body or b""
        os.write(server, struct.pack("IiQ", 16 + len(body), error, unique) + body)


if __name__ == "__main__":
    main()
