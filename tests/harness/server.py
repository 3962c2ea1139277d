"""A real server as its own processes: `banyan server` on any free port."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.harness.api import Api
from tests.harness.processes import Processes, Started


class Server:
    """A server that is ready; `admin`, `provider`, `worker`, `operator` speak to it."""

    def __init__(self, started: Started, url: str, credentials: Path) -> None:
        self.started = started
        self.url = url
        self.credentials = credentials
        self.tokens: dict[str, str] = json.loads(credentials.read_text())

    @cached_property
    def admin(self) -> Api:
        return Api(self.url, self.tokens["admin"])

    @cached_property
    def provider(self) -> Api:
        return Api(self.url, self.tokens["provider"])

    @cached_property
    def worker(self) -> Api:
        return Api(self.url, self.tokens["worker"])

    @cached_property
    def operator(self) -> Api:
        return self.account("operator")

    @cached_property
    def anonymous(self) -> Api:
        return Api(self.url)

    def account(self, *roles: str, name: str = "test") -> Api:
        """A new account with these roles."""
        made = self.admin.post("accounts", {"name": name, "roles": list(roles)})
        assert made.status_code == 201, made.text
        return Api(self.url, made.json()["token"])


def start_server(
    processes: Processes,
    data: Path,
    mongo_uri: str,
    *,
    server_processes: int = 1,
    port: int = 0,
    options: Sequence[str] = (),
    **knobs: Any,
) -> Server:
    """Start `banyan server` and return once it is ready.

    options: further ones of its command line.
    knobs: `LEASE_SECONDS=2` becomes `BANYAN_LEASE_SECONDS=2` in its environment.
    """
    arguments = ["--data", str(data), "--port", str(port), "--processes", str(server_processes)]
    arguments += options
    # The address of the database holds its password, and arguments are everybody's to read.
    environment = {"BANYAN_MONGO_URI": mongo_uri, **as_environment(knobs)}
    started = processes.banyan("server", "--json", *arguments, environment=environment)
    ready = json.loads(started.line())
    return Server(started, ready["url"], Path(ready["credentials"]))


def as_environment(knobs: Mapping[str, Any]) -> dict[str, str]:
    """Knobs of `settings.py` as environment variables."""
    return {f"BANYAN_{name}": str(value) for name, value in knobs.items()}
