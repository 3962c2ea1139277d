"""What `banyan up` and `banyan server` were asked for, as the supervisor gets it."""

from dataclasses import dataclass, field
from pathlib import Path

from banyan.server.exposure import Tls


@dataclass(frozen=True)
class Options:
    """The command line, read.

    data:           the data directory (database, credentials, lock).
    mongo_uri:      an existing MongoDB; None or empty: a private one in `data`.
    port:           0 takes any free port.
    tls:            certificate and key that it answers https with; None: http.
    tls_auto:       it makes a certificate of its own in `data`, and answers https with that.
    behind_proxy:   a proxy in front ends TLS, and says whom it speaks for.
    with_worker:    also start one worker on this machine (`banyan up` without `--no-worker`).
    json_line:      print `{"url", "credentials"}` when ready, and nothing else.
    worker_options: further arguments for `banyan worker`, e.g. `["--cores", "2"]`.
    """

    data: Path
    mongo_uri: str | None = None
    host: str = "127.0.0.1"
    port: int = 5100
    processes: int = 1
    tls: Tls | None = None
    tls_auto: bool = False
    behind_proxy: bool = False
    with_worker: bool = False
    json_line: bool = False
    worker_options: list[str] = field(default_factory=list)
