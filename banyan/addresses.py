"""Which addresses lead nowhere but to this machine, and which are a socket's.

The server asks before it listens, a client before it sends a token, a worker before it runs
others' tasks. It must never ask a name server: whoever runs that could say anything.
"""

import ipaddress


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


def socket_in(url: str) -> str:
    """The path in `unix:///run/server.sock`; empty where it is another kind of URL."""
    return url.removeprefix("unix://") if url.startswith("unix:///") else ""
