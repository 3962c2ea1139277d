"""Banyan: a distributed job queue with a hypermedia REST API.

`from banyan import Client, Executor` is for programs; what they need is loaded when it is named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from banyan.client.api import Client
    from banyan.client.executor import Executor
    from banyan.client.futures import TaskFailed
    from banyan.errors import BanyanError

__version__ = "0.1.0"
__all__ = ["BanyanError", "Client", "Executor", "TaskFailed", "__version__"]

_PLACES = {
    "BanyanError": "banyan.errors",
    "Client": "banyan.client.api",
    "Executor": "banyan.client.executor",
    "TaskFailed": "banyan.client.futures",
}


def __dir__() -> list[str]:
    """With what is loaded only when it is named, so that `help(banyan)` shows it."""
    return [*globals(), *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'banyan' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
