"""What the owner of a machine may say to its worker.

Built by the command line (`banyan worker`), or by a supervisor, and given to
`banyan.worker.agent.main`. Plain values only: nothing here looks at the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """How one worker is to run. None means: what the machine has.

    url:             of the server, e.g. `http://127.0.0.1:5100`.
    token_file:      a file with the worker's token alone, or the credentials file that
                     `banyan up` writes (then its "worker" token).
    tls_ca:          a PEM file with whom to trust as the server; empty: the machine's
                     certificate authorities.
    socket:          the path of the server's unix socket: the worker speaks to it by that, its
                     tasks by the URL. Empty: both by the URL.
    state_directory: where this worker keeps its launcher's socket and the output of
                     running tasks; the next worker on the same directory takes over what
                     this one left. One worker at a time. None: the first free place of
                     `$XDG_STATE_HOME/banyan/workers/`.
    cores, memory_bytes, gpu_count: less than the machine has (more is allowed, and
                     believed).
    disk_bytes, custom: counted things that cannot be found by looking; disk None: no limit.
    queues:          names of the queues it serves.
    labels:          what it offers to tasks that ask for labels.
    host:            the name under which it registers; None: the machine's own.
    shutdown_seconds: how long its tasks may take to end at the second signal.
    time_limit_seconds: after so long it has ended; it claims only what says that it ends
                     before, and what runs then is given back. None: without limit.
    idle_limit_seconds: it drains when it had nothing to do for so long. None: never.
    memory_enforcement: how tasks are held to the memory that they asked for: "cgroup",
                     "watch", "none", or "best", which is the first of these that works here.
    max_processes:   how many processes a task may have at one time; 0: as many as it likes.
    max_tasks:       how many tasks it runs at one time, also of those that ask for nothing; None:
                     16 a core, and 64 at least.
    reserve_cores, reserve_memory_bytes, reserve_memory_percent: what of all that is kept.
    polite:          leaves cores alone that other processes keep busy.
    nice:            the niceness of its tasks, 0 to 19.
    affinity:        binds each task to as many cores as it was granted.
    run_as:          the user as whom tasks run, by name or number; only root can name another
                     than itself. None: the worker's own, and root says so first.
    containers:      whether tasks under another user may make containers (Apptainer, Podman). With
                     these they can take memory that nothing bounds, and hold up starts.
    secrets_file:    JSON, name -> value, for tasks that name a secret; None: only those in
                     the worker's environment.
    """

    url: str
    token_file: Path
    tls_ca: str = ""
    socket: str = ""
    state_directory: Path | None = None
    cores: float | None = None
    memory_bytes: int | None = None
    gpu_count: int | None = None
    disk_bytes: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)
    queues: tuple[str, ...] = ("default",)
    labels: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    shutdown_seconds: float = 5.0
    time_limit_seconds: float | None = None
    idle_limit_seconds: float | None = None
    memory_enforcement: str = "best"
    max_processes: int = 4096
    max_tasks: int | None = None
    reserve_cores: float = 0.0
    reserve_memory_bytes: int = 0
    reserve_memory_percent: float = 0.0
    polite: bool = False
    nice: int = 0
    affinity: bool = False
    run_as: str | None = None
    containers: bool = False
    secrets_file: Path | None = None
