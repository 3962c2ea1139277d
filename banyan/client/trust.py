"""Whom a client trusts: the machine's certificate authorities, or one that is named.

Used by the transport, by the worker's connections, and by a server that looks at its own
certificate. It must never make a connection that does not check whom it speaks to.
"""

import contextlib
import os
import ssl
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter

from banyan.addresses import ServerUrl
from banyan.config import knobs
from banyan.errors import BanyanError


def context_of(file: str) -> ssl.SSLContext:
    """A new context that trusts the certificates of this PEM file, and nobody else.

    Any of them may be an end of the chain: a server's own certificate will do.
    Errors: `usage` where the file can't be read.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        made.load_verify_locations(file)
    except (OSError, ValueError) as problem:
        raise BanyanError("usage", f"--tls-ca {file}: {problem}") from None
    return made


_shared_context = cache(context_of)

_BEGINNING = "-----BEGIN CERTIFICATE-----"
_VARIABLE_LENGTH_MAX = 100_000  # Linux takes 128 KiB


class Adapter(HTTPAdapter):
    """HTTPS as `context_of` has it; without a file, as requests does it."""

    def __init__(self, tls_ca: str = "", **more: Any) -> None:
        self._context = _shared_context(tls_ca) if tls_ca else None
        super().__init__(**more)

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """The pool of connections."""
        if self._context:
            more["ssl_context"] = self._context
        super().init_poolmanager(*arguments, **more)


def refuse_to_tell(server: ServerUrl) -> None:
    """A token must not go over an open line. Errors: `usage`."""
    if server.scheme == "https" or server.is_loopback or knobs().ALLOW_PLAIN_HTTP:
        return
    message = (
        f"http://{server.host} is not encrypted, and whoever listens on the way would have the "
        "token: use https (--tls-ca FILE for a certificate of your own), or set "
        "BANYAN_ALLOW_PLAIN_HTTP=1 where you trust every machine on the way"
    )
    raise BanyanError("usage", message)


def lasting(file: str) -> str:
    """What `readable` takes in a process that has another directory, or that outlives this one."""
    if not file or file.startswith(_BEGINNING):
        return file
    return str(Path(file).absolute())


def readable(file: str) -> str:
    """The file's absolute name, as a process with another directory can use it.

    Certificates themselves (PEM) become a file of this process, which goes with it; a fork asks
    again, and has its own.
    """
    return _kept(file, os.getpid()) if file.startswith(_BEGINNING) else lasting(file)


def for_other_user(file: str) -> str:
    """What stands for the file in the environment of another user: its text, if that is closed.

    So is what lies in shared memory, of which a task of another user has its own.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):  # who connects tells what is wrong
        path = Path(file).resolve()
        text = path.read_text() if file and not _is_open_to_all(path) else ""
        start = text.find(_BEGINNING)
        if start >= 0 and len(text) < _VARIABLE_LENGTH_MAX:
            return text[start:]
    return file


def _is_open_to_all(path: Path) -> bool:
    if path.is_relative_to("/dev/shm"):  # noqa: S108 - nothing is put there
        return False
    ways = all(above.stat().st_mode & stat.S_IXOTH for above in path.parents)
    return ways and bool(path.stat().st_mode & stat.S_IROTH)


@cache
def _kept(text: str, owner: int) -> str:
    from multiprocessing.util import Finalize  # which takes as long as a short command

    file, name = tempfile.mkstemp(prefix="banyan-ca-", suffix=".pem")
    with open(file, "w") as made:
        made.write(text)
    # At the end of this process, also if `multiprocessing` began it; not at that of its forks.
    Finalize(None, _remove, [name], exitpriority=0)
    return name


def _remove(name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name)
