"""`--tls auto`: a key and certificates that the server makes itself.

Called by the stack, which holds the lock of the data directory. Clients pin `ca.pem`, which is
made once and lasts for ten years. The server's own certificate is made anew at each start, for
the names that this machine has by then, so that no client must be told of a change.
"""

import ipaddress
import logging
import os
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from banyan import ownership
from banyan.addresses import own_addresses
from banyan.errors import BanyanError
from banyan.server.exposure import Tls

logger = logging.getLogger(__name__)

_LASTS = timedelta(days=3653)
_WARNED_BEFORE = timedelta(days=180)
_CLOCKS_DIFFER = timedelta(days=1)
_NAME_LENGTH_MAX = 64  # of a common name
_ANYWHERE = {"0.0.0.0", "::", ""}  # noqa: S104 - these are no names


def ensure(data: Path, host: str) -> Tls:
    """The key and the certificates in `data`/tls, made where they are missing.

    host: the address that is listened on, for which the certificate is too.
    Errors: `usage` where what is there can't be used.
    """
    directory = data / "tls"
    ownership.claim(directory)
    key = _key(directory / "key.pem")
    authority = _authority(key, directory / "ca.pem")
    names = _names(host)
    made = _certificate(key, authority, names)
    chain = made.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM)
    ownership.replace_text(directory / "server.pem", chain.decode())
    return Tls(directory / "server.pem", directory / "key.pem", directory / "ca.pem")


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        ownership.replace_text(path, text.decode())
        return made
    if stat.S_IMODE(path.stat().st_mode) & 0o077 or path.stat().st_uid != os.geteuid():
        raise _useless(path, "others may have read it")
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as problem:
        raise _useless(path, str(problem)) from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise _useless(path, "it is of another kind")
    return found


def _authority(key: ec.EllipticCurvePrivateKey, path: Path) -> x509.Certificate:
    """What clients pin: it vouches for the key, and for each certificate that the key signs."""
    if not path.exists():
        name = _name(f"Banyan of {socket.gethostname()}")
        key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        made = (
            _begun(key, name, name, datetime.now(UTC) + _LASTS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(key_id, critical=False)
            .sign(key, hashes.SHA256())
        )
        ownership.replace_text(path, made.public_bytes(Encoding.PEM).decode())
        return made
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise _useless(path, str(problem)) from None
    if found.public_key() != key.public_key():
        raise _useless(path, "it is for another key")
    _heed_its_end(found.not_valid_after_utc, path)
    return found


def _heed_its_end(end: datetime, path: Path) -> None:
    left = end - datetime.now(UTC)
    if left < timedelta():
        raise _useless(path, f"it has expired on {end:%Y-%m-%d}")
    if left < _WARNED_BEFORE:
        logger.warning("%s", _useless(path, f"it expires on {end:%Y-%m-%d}").message)


def _certificate(
    key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, names: list[x509.GeneralName]
) -> x509.Certificate:
    """The server's own, for these names; it ends with the authority."""
    own = _name(socket.gethostname())
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return (
        _begun(key, own, authority.subject, authority.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(server, critical=False)
        .add_extension(by, critical=False)
        .sign(key, hashes.SHA256())
    )


def _begun(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _CLOCKS_DIFFER)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_NAME_LENGTH_MAX])])


def _names(host: str) -> list[x509.GeneralName]:
    """What clients may call this machine, here and elsewhere."""
    known = [socket.gethostname(), socket.getfqdn(), "localhost", "127.0.0.1", "::1"]
    known += own_addresses() + ([] if host in _ANYWHERE else [host])
    return [_general_name(one) for one in dict.fromkeys(known) if one.isascii()]


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _useless(path: Path, why: str) -> BanyanError:
    todo = f"remove {path.parent}, start again, and invite the workers of other machines anew"
    return BanyanError("usage", f"{path}: {why}: {todo}")
