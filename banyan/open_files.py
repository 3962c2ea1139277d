"""Whether an open file is still the one that its path leads to.

Asked by whoever keeps a lock or a spool in a directory that a cleaner may empty. Standard library
only.
"""

import os


def is_at(path: str | os.PathLike[str], file: int) -> bool:
    """Whether this is still the path of an open file. Errors: OSError, but for a missing one."""
    try:
        found, wanted = os.lstat(path), os.fstat(file)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
