"""A file system that never answers: FUSE, mounted by hand, with nobody behind it."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_MNT_FORCE, _MNT_DETACH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """Whoever looks at what is below the directory waits until the end of this.

    Errors: OSError, where that can't be mounted here.
    """
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    try:
        if _libc.mount(b"nobody", os.fsencode(place), b"fuse", 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        try:
            yield place
        finally:
            _libc.umount2(os.fsencode(place), _MNT_FORCE | _MNT_DETACH)
    finally:
        os.close(server)  # whoever waits hears that nobody is there any more
