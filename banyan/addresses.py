"""Addresses: which lead nowhere but to this machine, which are a socket's, what hosts are named.

The server asks before it listens, a client before it sends a token, a worker before it runs
others' tasks. It must never ask a name server: whoever runs that could say anything.
"""

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import NamedTuple

from banyan.errors import BanyanError

# What a worker may register as: people copy it into a shell's line, and "-" would be an option.
HOST_LENGTH_MAX = 253
HOST = rf"[A-Za-z0-9_.:][A-Za-z0-9_.:-]{{0,{HOST_LENGTH_MAX - 1}}}"

# Of other URLs parsers do not say the same host: some take `http://evil\@here` for `here`, others
# go to `evil`. So a token is only sent where nothing can be read in two ways.
_SERVER = re.compile(
    r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])(?::[0-9]{1,5})?"
    r"(?:/[A-Za-z0-9._~%/-]*)?",
    re.IGNORECASE,
)


class ServerUrl(NamedTuple):
    """What matters of a server's URL; `host` without brackets."""

    scheme: str
    host: str

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there can't leave this machine."""
        return is_loopback(self.host)


def server_url(url: str) -> ServerUrl:
    """Scheme and host of a server's URL; both in small letters.

    Errors: `usage` for what is none, or names a user, or has a query or a backslash.
    """
    found = _SERVER.fullmatch(url)
    if not found:
        shown = url.rpartition("@")[2]  # a password is told to nobody
        message = f"{shown!r} is not the URL of a server: http://HOST:PORT or https://HOST:PORT"
        raise BanyanError("usage", f"{message}, with a path or without; no user, no query")
    return ServerUrl(found[1].lower(), found[2].strip("[]").lower())


def is_loopback(host: str) -> bool:
    """Whether what is sent there can't leave this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def as_host(name: str) -> str:
    """A name that the machine has given itself, with what no host name is made of as "-"."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", name).lstrip("-")[:HOST_LENGTH_MAX] or "unnamed"


def own_addresses() -> list[str]:
    """The addresses of this machine that others may reach it by, as far as Linux lists them."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        last = ""
        for line in Path("/proc/net/fib_trie").read_text().splitlines():
            match line.split():
                case ["|--", address]:
                    last = address
                case [_, "host", "LOCAL"]:
                    found.append(last)
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    kept = [one for one in dict.fromkeys(found) if not is_loopback(one)]
    return [one for one in kept if not ipaddress.ip_address(one).is_link_local]


def socket_in(url: str) -> str:
    """The path in `unix:///run/server.sock`; empty where it is another kind of URL."""
    return url.removeprefix("unix://") if url.startswith("unix:///") else ""
