"""Who may reach the server, and how: nobody beyond this machine without TLS.

The supervisor asks before anything is started. Tokens travel with each request: on an open
line whoever listens has them.
"""

import ipaddress
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from banyan.addresses import is_loopback
from banyan.client.trust import context_of
from banyan.config import knobs
from banyan.errors import BanyanError

_WHAT_TO_DO = (
    "say --tls auto; or give --tls-cert and --tls-key; or say --behind-proxy, where a proxy in "
    "front ends TLS and nobody else reaches this address; or let other machines in by `ssh -R`; "
    "or set BANYAN_ALLOW_PLAIN_HTTP=1 where you trust every machine on the way"
)
# Of TLS 1.2 what TLS 1.3 is like: keys that are gone after the talk, and nothing to pad.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_NOT_FOR_A_KEY = stat.S_IRWXO | stat.S_IWGRP  # a group may read it: Debian has one for keys


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate (with the chain above it) and its key, both PEM files.

    authority: who has signed it, where clients are to trust that one; None: the certificate.
    """

    certificate: Path
    key: Path
    authority: Path | None = None

    @property
    def trusted(self) -> Path:
        """Whom clients are to trust as this server."""
        return self.authority or self.certificate


def check(host: str, tls: Tls | None, behind_proxy: bool) -> None:
    """Errors: `usage` where requests could be read on the way, or the certificate is of no use."""
    if tls:
        context(tls)
    elif not (behind_proxy or is_loopback(host) or knobs().ALLOW_PLAIN_HTTP):
        message = f"{host} can be reached from other machines, and tokens would go there readable"
        raise BanyanError("usage", f"{message}: {_WHAT_TO_DO}")


def pair(certificate: Path | None, key: Path | None) -> Tls | None:
    """Both or none of the two files. Errors: `usage`."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise BanyanError("usage", "--tls-cert and --tls-key go together")
    return Tls(certificate.absolute(), key.absolute())


def context(tls: Tls) -> ssl.SSLContext:
    """What a server process answers with; TLS 1.2 at the least. Errors: `usage`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    try:
        made.load_cert_chain(tls.certificate, tls.key, password="")  # a key that asks is refused
    except (OSError, ValueError) as problem:
        files = f"{tls.certificate} with {tls.key}"
        raise BanyanError("usage", f"{files} cannot be used for TLS: {problem}") from None
    _check_mode(tls.key)
    return made


def _check_mode(key: Path) -> None:
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & _NOT_FOR_A_KEY:
        message = f"{key} can be read or changed by others (mode {mode:04o}): chmod o=,g-w {key}"
        raise BanyanError("usage", f"{message}; if it was so for long, make a new key")


def names(tls: Tls) -> list[str]:
    """The hosts that the certificate is for, those of this machine first. Errors: `usage`.

    A handshake with ourselves reads it, as a client would: so one that has expired, or is not
    for servers, is told here and not by each client.
    """
    told = _seen_by_a_client(tls).get("subjectAltName", ())
    found = [_plain(kind, name) for kind, name in told if kind in ("DNS", "IP Address")]
    found = [name for name in found if "*" not in name]
    if not found:
        message = f"{tls.certificate} names no host (subjectAltName) that clients could ask for"
        raise BanyanError("usage", message)
    return sorted(found, key=lambda name: not is_loopback(name))


def _plain(kind: str, name: str) -> str:
    """As people write it: OpenSSL spells out each zero of an IPv6 address."""
    return str(ipaddress.ip_address(name)) if kind == "IP Address" else name


def _seen_by_a_client(tls: Tls) -> dict[str, tuple[tuple[str, str], ...]]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = pinned(tls.trusted).wrap_bio(to_client, to_server)
    far = context(tls).wrap_bio(to_server, to_client, server_side=True)
    try:
        ended: set[ssl.SSLObject] = set()
        while len(ended) < 2:
            for end in {near, far} - ended:
                try:
                    end.do_handshake()
                    ended.add(end)
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLError as problem:
        raise BanyanError("usage", f"no client would trust {tls.certificate}: {problem}") from None
    found: dict[str, tuple[tuple[str, str], ...]] = near.getpeercert() or {}  # type: ignore[assignment]
    return found


def pinned(certificate: Path) -> ssl.SSLContext:
    """A client that trusts just this certificate, and that under whatever name."""
    made = context_of(str(certificate))
    made.check_hostname = False
    return made
