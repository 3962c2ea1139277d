"""The names of launchers' cgroups: each tells its launcher from all others, of whatever time.

The number of a process comes again. So a name has the boot and the moment of the start, too: what
it names was never another launcher's. Standard library only.
"""

from pathlib import Path

from banyan.worker import cgroups, tree

PREFIX = "banyan-"


def name_of(pid: int) -> str:
    """Of a living process, for what comes behind the prefix: BOOT-TICKS-PID."""
    return f"{_boot()}-{tree.birth_of(pid).ticks}-{pid}"


def is_of_dead(name: str) -> bool:
    """Whether the launcher of a cgroup of this name is dead, or at least killed; else it is left.

    A name of an earlier version has the number alone. It is believed where no process has that:
    whose ever it was, there is no launcher any more.
    """
    *_, boot, ticks, pid = ["", "", *name.removeprefix(PREFIX).split("-")]
    if not name.startswith(PREFIX) or not pid.isdecimal():
        return False
    if tree.ended(int(pid)) or tree.is_killed(int(pid)):
        return boot in ("", _boot())
    return boot == _boot() and ticks.isdecimal() and tree.birth_of(int(pid)).ticks != int(ticks)


def _boot() -> str:
    return cgroups.text(Path("/proc/sys/kernel/random/boot_id")).replace("-", "")
