"""An application in this process, whose commands to the database are counted."""

import threading
from collections import Counter
from typing import Any

from pymongo import monitoring

from tests.server.worlds import Item, World

_IGNORED = {"hello", "ismaster", "ping", "saslStart", "saslContinue", "endSessions", "killCursors"}


class Watch(monitoring.CommandListener):
    """Counts commands by name, of all clients that are made after it was registered."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.commands: list[Any] = []
        self._lock = threading.Lock()

    def reset(self) -> None:
        with self._lock:
            self.counts.clear()
            self.commands.clear()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _IGNORED:
            with self._lock:
                self.counts[event.command_name] += 1
                self.commands.append(event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Counted when it began."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Counted when it began."""


WATCH = Watch()
monitoring.register(WATCH)


def send(world: World, who: str, method: str, path: str, body: Any = None) -> Any:
    """A request by its own client, so that threads may send some at once."""
    headers = {"Authorization": f"Bearer {world.tokens[who]}"}
    client = world.client.application.test_client()
    return client.open(path, method=method, json=body, headers=headers)


def submit(world: World, who: str, tasks: list[Item]) -> None:
    """New tasks, a thousand in a request."""
    for start in range(0, len(tasks), 1000):
        answer = send(world, who, "POST", "/tasks", tasks[start : start + 1000])
        assert answer.status_code == 201, answer.text[:1000]
