"""The directory `mongo/` of a data directory: the files of the private MongoDB, one user's alone.

Used by `banyan.server.embedded`. Whoever can put files here is the database: the key is
everybody's password, and the socket is where passwords go. So nothing in it is believed
unless it belongs to this user, in a directory that nobody else can write to.
"""

import fcntl
import os
import secrets
import stat
import time
from pathlib import Path

from banyan.errors import BanyanError

SOCKET = "mongod.sock"
_ENTRANCE = "primary.sock"
_LOG_BYTES_MAX = 8 * 1024 * 1024
_FREE_SECONDS = 3.0  # a mongod that was killed a moment ago may still be going
_POLL_SECONDS = 0.05
_OTHERS_WRITE = 0o022
_OTHERS = 0o077


class MongoHome:
    """The paths, and what has to be true of them.

    path, data, log, errors, socket, entrance, key: absolute.
    socket:   where mongod listens from its start.
    entrance: where the servers find it, as long as it takes writes; the same socket. A driver that
              met it on its way up would keep a connection on which it makes no transaction.
    """

    def __init__(self, data_directory: Path) -> None:
        self.path = data_directory.absolute() / "mongo"
        self.data = self.path / "data"
        self.log = self.path / "log"
        self.errors = self.path / "stderr"  # of the last one; where it breaks down it says much
        self.socket = self.path / SOCKET
        self.entrance = self.path / _ENTRANCE
        self.sockets = [self.socket, self.entrance]  # of one that runs
        self.key = self.path / "key"

    def prepare(self) -> str:
        """Make what is missing; the content of the key file.

        Errors: `usage` where another user could have put something here.
        """
        for directory in (self.path, self.data):
            _make_directory(directory)
        if not os.path.lexists(self.key):
            self._make_key()
        (self.path / "port").unlink(missing_ok=True)  # of versions that listened on TCP
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.replace(self.path / "log.old")
        return _read_secret(self.key, os.geteuid())

    def has_files(self) -> bool:
        """Whether there is a database."""
        return (self.data / "WiredTiger").exists()

    def find(self) -> str | None:
        """The content of the key file where one was started here, and was not ended in order.

        Root may look at what another user runs.
        Errors: `usage` where key or socket are not those of the directory's owner.
        """
        if not (os.path.lexists(self.key) and os.path.lexists(self.socket)):
            return None
        owner = self.path.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise _refusal(self.path, f"belongs to user {owner}")
        self.check_socket(owner)
        return _read_secret(self.key, owner)

    def check_socket(self, owner: int | None = None) -> None:
        """Errors: `usage` where the socket is none, or not of this user (default: our own)."""
        found = self.socket.lstat()
        if not stat.S_ISSOCK(found.st_mode):
            raise _refusal(self.socket, "is no socket")
        if found.st_uid != (os.geteuid() if owner is None else owner):
            raise _refusal(self.socket, f"belongs to user {found.st_uid}")

    def open_entrance(self) -> None:
        """Let the servers in."""
        new = self.path / f"{_ENTRANCE}.new"
        new.unlink(missing_ok=True)
        os.link(self.socket, new)
        new.rename(self.entrance)

    def close_entrance(self) -> None:
        """Who comes from now on finds nobody, and comes again."""
        self.entrance.unlink(missing_ok=True)

    def wait_until_free(self) -> None:
        """Return when no mongod uses the files. Errors: `data_directory_in_use`.

        A second mongod would be refused by the files too, but only after it has taken away
        the socket of the first.
        """
        deadline = time.monotonic() + _FREE_SECONDS
        while self._in_use():
            if time.monotonic() > deadline:
                raise BanyanError(
                    "data_directory_in_use",
                    f"another mongod uses {self.path}: end it, or name another --data",
                )
            time.sleep(_POLL_SECONDS)

    def _in_use(self) -> bool:
        """Whether a mongod holds its own lock, which it takes before anything else."""
        try:
            file = os.open(self.data / "mongod.lock", os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    def _make_key(self) -> None:
        draft = self.path / "key.new"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(64))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.key)  # whole or not at all: half a key would lock everybody out


def _make_directory(path: Path) -> None:
    """Make it, or see to it that it is ours alone. A link that we made ourselves may lead there."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except FileExistsError:
        raise _refusal(path, "is no directory") from None
    for found in (path.lstat(), path.stat()):
        if found.st_uid != os.geteuid():
            raise _refusal(path, f"belongs to user {found.st_uid}")
    if found.st_mode & _OTHERS_WRITE:
        raise _refusal(path, f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})")
    if found.st_mode & _OTHERS:
        path.chmod(0o700)


def _read_secret(path: Path, owner: int) -> str:
    """The content of a file that only this user can read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _refusal(path, f"can't be opened as a file ({error.strerror})") from None
    with os.fdopen(file) as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _refusal(path, "is no file")
        if found.st_uid != owner:
            raise _refusal(path, f"belongs to user {found.st_uid}")
        if found.st_mode & _OTHERS:
            raise _refusal(path, f"can be read by others (mode {stat.S_IMODE(found.st_mode):04o})")
        return opened.read()


def _refusal(path: Path, fault: str) -> BanyanError:
    return BanyanError(
        "usage",
        f"{path} {fault}; it has to be user {os.geteuid()}'s alone, as whoever has it has the "
        "database. If nobody else could reach it until now, mend that with chown and chmod go=; "
        "else put back a backup, and remove mongo/key, which is made again",
    )
