"""Which MongoDB it is, and what of its known leaks is open."""

from banyan.server.leaks import known_leaks
from banyan.server.store.mongo import Store


def version(store: Store) -> str:
    """Of the member that takes writes, like `6.0.27`."""
    return str(store.client.server_info()["version"])


def open_leaks(store: Store) -> list[str]:
    """Those that whoever can connect to that member can use, without a password."""
    leaks = known_leaks(version(store))
    return leaks if leaks and _takes_zlib(store) else []


def _takes_zlib(store: Store) -> bool:
    """Whether it would take messages that are compressed in this way. None is sent."""
    hello = store.client.admin.command("hello", compression=["zlib"])
    return "zlib" in hello.get("compression", ())
