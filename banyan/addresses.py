"""Which addresses lead nowhere but to this machine, and what names of machines are made of.

The server asks before it listens, a client before it sends a token, a worker before it runs
others' tasks. It must never ask a name server: whoever runs that could say anything.
"""

import ipaddress
import re

# What a worker may register as: people copy it into a shell's line, and "-" would be an option.
HOST_LENGTH_MAX = 253
HOST = rf"[A-Za-z0-9_.:][A-Za-z0-9_.:-]{{0,{HOST_LENGTH_MAX - 1}}}"


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
