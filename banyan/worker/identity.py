"""As whom tasks run: as the worker itself, or (`--run-as`) as another user of the machine.

Asked by the agent, which tells the launcher; `forking` there starts processes so. A
worker that is root must never run others' tasks as root without having been told to.
"""

import logging
import os
import pwd
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from banyan.addresses import server_url
from banyan.errors import BanyanError
from banyan.worker import groups, namespaces
from banyan.worker.options import Options

_ROOT = 0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class User:
    """Another user than the worker's own."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    own_groups: bool = True  # each attempt gets a group of its own, which closes it to the others
    own_namespaces: bool = True  # and a user namespace, which closes those that it makes itself
    own_memory: bool = True  # and shared memory, which goes with it
    containers: bool = False  # tasks may make namespaces of mounts and networks

    def to_json(self) -> dict[str, Any]:
        """For the way to the launcher."""
        return asdict(self)

    def environment(self) -> dict[str, str]:
        """What a login would say of the user."""
        own = {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}
        return {name: value for name, value in own.items() if value}

    def directory(self) -> str:
        """Where the user's tasks start that name no directory."""
        return self.home if os.path.isdir(self.home) else "/"


def user_for(options: Options) -> User | None:
    """As whom tasks run; None: as the worker itself.

    Errors: `usage` for a user that is not there or that this worker can't become.
    """
    if options.run_as is None:
        return None
    user = _find(options.run_as)
    if user.uid == os.geteuid():
        return None
    if os.geteuid() != _ROOT:
        raise BanyanError("usage", f"--run-as {options.run_as}: only root can do that")
    found = namespaces.found(groups.FIRST)
    of_users = user.own_groups and found.of_users
    return replace(
        user,
        own_namespaces=of_users,
        own_memory=found.of_memory,
        containers=options.containers,
    )


def users_of_tasks(options: Options) -> tuple[int, ...] | None:
    """As whom the tasks of this worker can run; None: as anybody, as tasks of root can.

    Errors: as `user_for`.
    """
    user = user_for(options)
    if user is None and os.geteuid() == _ROOT:
        return None
    return (user.uid if user else os.geteuid(),)


def check(options: Options) -> None:
    """Before the first task: whether this worker may do what it would do.

    Root is refused where other machines reach the server; at one that only this machine
    reaches it is warned, as the server's users could be anybody here.
    Errors: `usage`, also as `user_for`, and for a URL that is none.
    """
    user = user_for(options)
    if user and not user.own_groups:
        _log.warning("tasks can look into each other: this container lacks the group ids for that")
    elif user and not user.own_namespaces:
        _log.warning("tasks can look into what makes a user namespace: the worker can make none")
    if user and not user.own_memory:
        _log.warning(
            "what tasks leave in shared memory stays: the worker can make no namespaces for it"
        )
    if user and user.own_namespaces and not _keeps_its_word(user):
        _log.warning("tasks can make containers without --containers: /proc/sys is read-only here")
    if options.run_as is not None or os.geteuid() != _ROOT:
        return
    message = "everybody's tasks would run as root: name a user with --run-as, or say --run-as root"
    if not server_url(options.url).is_loopback:
        raise BanyanError("usage", message)
    _log.warning("%s", message)


def _keeps_its_word(user: User) -> bool:
    """Whether tasks that may make no containers can make none."""
    return user.containers or namespaces.found(groups.FIRST).none_of_tasks


def _find(name: str) -> User:
    try:
        found = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise BanyanError("usage", f"--run-as {name}: there is no such user here") from None
    groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
    home, shell = found.pw_dir, found.pw_shell
    return User(found.pw_name, found.pw_uid, found.pw_gid, groups, home, shell, _has_own_groups())


def _has_own_groups() -> bool:
    """Whether this user namespace has the groups that attempts are to get."""
    try:
        lines = Path("/proc/self/gid_map").read_text().splitlines()
    except OSError:
        return False
    for first, _, count in (map(int, line.split()) for line in lines):
        if first <= groups.FIRST and first + count >= groups.FIRST + groups.COUNT:
            return True
    return False
