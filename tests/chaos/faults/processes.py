"""Processes that are killed, frozen, or started anew."""

import signal
import time
from collections.abc import Callable, Iterable
from random import Random

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.stage import Post, Stage, signal_all

LEASE = (9, 12)  # longer than a lease and its margin
Pids = Callable[[Stage, Random], Iterable[int]]


def _agent(stage: Stage, chance: Random) -> list[int]:
    agent = stage.post(chance).agent
    return [agent.pid] if agent else []


def _launcher(stage: Stage, chance: Random) -> list[int]:
    launcher = stage.post(chance).launcher
    return [launcher] if launcher else []


def _task(stage: Stage, chance: Random) -> list[int]:
    running = [pid for post in stage.posts for pid in post.tasks()]
    return [chance.choice(running)] if running else []


def _server(stage: Stage, chance: Random) -> list[int]:
    found = stage.server_processes()
    return [chance.choice(found)] if found else []


def _servers(stage: Stage, chance: Random) -> list[int]:
    return stage.server_processes()


def _supervisor(stage: Stage, chance: Random) -> list[int]:
    return [stage.server.pid] if stage.server else []


def _primary(stage: Stage, chance: Random) -> list[int]:
    primary = stage.members.primary()
    return [primary.pid] if primary else []


def _secondary(stage: Stage, chance: Random) -> list[int]:
    primary = stage.members.primary()
    return [chance.choice([one.pid for one in stage.members.members if one is not primary])]


def _mongods(stage: Stage, chance: Random) -> list[int]:
    return [one.pid for one in stage.members.members]


def kill(pids: Pids) -> Strike:
    """SIGKILL; the stage starts again what has died."""

    def strike(stage: Stage, chance: Random) -> None:
        signal_all(pids(stage, chance), signal.SIGKILL)

    return strike


def freeze(pids: Pids) -> Strike:
    """SIGSTOP, and SIGCONT when it heals."""

    def strike(stage: Stage, chance: Random) -> Heal:
        frozen = signal_all(pids(stage, chance), signal.SIGSTOP)
        return lambda: signal_all(frozen, signal.SIGCONT) and None

    return strike


def kill_worker(stage: Stage, chance: Random) -> None:
    """Agent and launcher at one time; the next worker there clears away what they left."""
    signal_all(_pair(stage.post(chance)), signal.SIGKILL)


def freeze_worker(stage: Stage, chance: Random) -> Heal:
    """Agent and launcher both: the one case in which a task may run beside its next attempt."""
    post = stage.post(chance)
    begun = time.time()
    frozen = signal_all(_pair(post), signal.SIGSTOP)

    def heal() -> None:
        signal_all(frozen, signal.SIGCONT)
        stage.admitted.append((post.name, begun, time.time()))

    return heal


def _pair(post: Post) -> list[int]:
    # The launcher first, so that it can't notice the agent's end.
    pids = [post.launcher, post.agent.pid if post.agent else None]
    return [pid for pid in pids if pid is not None]


def restart_servers(stage: Stage, chance: Random) -> None:
    """SIGTERM to each server process in turn; the supervisor starts the next."""
    for pid in stage.server_processes():
        signal_all([pid], signal.SIGTERM)


FAULTS = [
    Fault("kill-agent", "F1", "kill -9 of a worker's agent", kill(_agent)),
    Fault("kill-launcher", "F2", "kill -9 of a worker's launcher", kill(_launcher)),
    Fault("kill-task", "F2", "kill -9 of the first process of a task", kill(_task)),
    Fault("kill-worker", "F1", "kill -9 of agent and launcher", kill_worker),
    Fault("freeze-agent", "F3", "SIGSTOP of an agent, longer than a lease", freeze(_agent), LEASE),
    Fault("freeze-launcher", "F3", "SIGSTOP of a launcher", freeze(_launcher), LEASE),
    Fault("freeze-task", "F3", "SIGSTOP of the first process of a task", freeze(_task), LEASE),
    Fault("freeze-worker", "F4", "SIGSTOP of agent and launcher", freeze_worker, LEASE),
    Fault("kill-server", "F5", "kill -9 of a server process", kill(_server)),
    Fault("kill-servers", "F5", "kill -9 of all server processes", kill(_servers)),
    Fault("kill-supervisor", "F5", "kill -9 of the servers' supervisor", kill(_supervisor)),
    Fault("freeze-server", "F5", "SIGSTOP of a server process", freeze(_server), LEASE),
    Fault("restart-servers", "F6", "SIGTERM of every server process", restart_servers),
    Fault("kill-primary", "F7", "kill -9 of the primary mongod", kill(_primary)),
    Fault("kill-secondary", "F7", "kill -9 of a secondary mongod", kill(_secondary)),
    Fault("freeze-primary", "F9", "SIGSTOP of the primary mongod", freeze(_primary), LEASE),
    Fault("kill-mongods", "F10", "kill -9 of all mongods", kill(_mongods)),
    Fault("freeze-mongods", "F9", "SIGSTOP of all mongods", freeze(_mongods), (2, 6)),
]
