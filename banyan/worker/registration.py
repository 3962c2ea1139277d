"""The worker as the server knows it: who it is, its beats and its claims.

Owned by the agent's loop. A registration whose lease has lapsed is dead; the next one has
another id, and threads of its own.
"""

from collections.abc import Callable
from typing import Any

from banyan.worker.claims import Claims, Wish
from banyan.worker.connection import Connection
from banyan.worker.leases import Beats
from banyan.worker.mailbox import Mailbox


class Registration:
    """One registration at work."""

    def __init__(
        self,
        worker: str,
        lease_seconds: float,
        connect: Callable[[], Connection],
        mailbox: Mailbox,
        attempts: Callable[[], list[str]],
        used: Callable[[], dict[str, Any]],
        left_seconds: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Starts to beat at once, and to claim when something is wanted.

        left_seconds: what a task may take that is claimed now, as `Claims` wants it.
        """
        self.worker = worker
        self.lease_seconds = lease_seconds
        self._beats = Beats(
            connect(),
            worker,
            lease_seconds,
            mailbox,
            attempts,
            lambda: self._claims.unanswered,
            used,
        )
        self._claims = Claims(
            connect(), worker, lease_seconds, mailbox, left_seconds, self._beats.list_soon
        )
        self._heard = 0
        self._beats.start()
        self._claims.start()

    def want(self, wish: Wish | None) -> float | None:
        """What is to be claimed; in how many seconds that is to be said again, if it is."""
        return self._claims.want(wish, self._heard)

    def renewed(self, lease_seconds: float) -> None:
        """The server may have been started again with other leases."""
        self.lease_seconds = lease_seconds
        self._claims.lease_seconds = lease_seconds

    def heard(self) -> None:
        """The tasks of one answer are taken into account."""
        self._heard += 1

    def reported(self) -> None:
        """Ends are recorded at the server."""
        self._claims.reported()

    def stop(self) -> None:
        """Neither beats nor claims any more."""
        self._beats.stop()
        self._claims.stop()
