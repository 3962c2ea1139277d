"""The data directory while it is served: whether its disk has room, and all is still there.

Asked by the stack now and then, in its main thread. A cleaner of old files may have emptied the
directory: what is small is made again from memory. The files of MongoDB cannot be. It must never
let an empty database take the place of one that was removed.
"""

import contextlib
import logging
import os
from pathlib import Path

from banyan import ownership
from banyan.errors import BanyanError
from banyan.server.directory import DirectoryLock
from banyan.server.mongo_home import MongoHome
from banyan.server.replica_set import answers
from banyan.socket_paths import short_path

_FULL_BYTES = 8 << 20  # of free space: MongoDB ends when it cannot write
_ANSWER_SECONDS = 1.0

logger = logging.getLogger(__name__)


def told_if_full(directory: Path) -> str:
    """A sentence where there is no room on its disk; else empty."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return ""
    blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail  # some are kept for root
    free_bytes = blocks * disk.f_frsize
    if free_bytes >= _FULL_BYTES:
        return ""
    return f"the disk under {directory} is full ({free_bytes >> 10:,} KiB free): free some space"


class DataWatch:
    """What is to be there, as it was when everything had started."""

    def __init__(self, lock: DirectoryLock, home: MongoHome | None, files: list[Path]) -> None:
        """home: of the private MongoDB; files: that can be made again, those of them that exist."""
        self._lock = lock
        self._home = home
        self._contents = {path: path.read_text() for path in files if path.exists()}
        self._told: set[str] = set()

    def look(self, sockets: list[Path]) -> list[Path]:
        """Makes again what is missing, and says so; those of the sockets that are missing.

        Errors: `data_directory_in_use` where somebody else serves the directory by now; `usage`
        where others could put something there.
        """
        missing = [path for path in self._contents if not os.path.lexists(path)]
        missing += [] if self._lock.is_there() else [self._lock.path]
        gone = [path for path in sockets if not os.path.lexists(path)]
        if self._home and self._home.socket in gone and _is_ending(self._home, gone):
            gone.remove(self._home.socket)
        if missing or gone:
            names = ", ".join(
                str(path.relative_to(self._lock.directory)) for path in missing + gone
            )
            self._tell(
                f"somebody has removed {names} from {self._lock.directory} while it is served: it "
                "is made again; keep cleaners of old files away from it"
            )
            with contextlib.suppress(OSError):  # a full disk, say: at the next look
                self._make_again(missing)
        if self._home and not self._home.has_files():
            self._tell(
                f"somebody has removed the files of the database from {self._home.data}: its tasks "
                "are lost when it ends; get what you need of them now"
            )
            gone = [path for path in gone if path not in self._home.sockets]
        return gone

    def _make_again(self, missing: list[Path]) -> None:
        ownership.make(self._lock.directory)
        self._lock.hold_again()
        for path in missing:
            ownership.make(path.parent)
            if path in self._contents:
                ownership.replace_text(path, self._contents[path])

    def _tell(self, sentence: str) -> None:
        """Once: who cannot mend it need not hear it each second."""
        if sentence not in self._told:
            self._told.add(sentence)
            logger.warning("%s", sentence)


def _is_ending(home: MongoHome, gone: list[Path]) -> bool:
    """A MongoDB that ends removes its socket, but not the entrance, and answers no more."""
    return home.entrance not in gone and not answers(short_path(home.entrance), _ANSWER_SECONDS)


def refuse_empty(home: MongoHome) -> None:
    """To be called before a MongoDB that had run is started again. Errors: `unavailable`."""
    if not home.has_files():
        raise BanyanError(
            "unavailable",
            f"somebody has removed the files of the database from {home.data} while it ran, and "
            "its tasks with them: put a backup back, or start anew with an empty queue",
        )
