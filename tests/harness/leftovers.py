"""What workers leave after an orderly end: nothing but a lock."""

from collections.abc import Iterable
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_ALLOWED = frozenset({"lock"})


def files(state_directories: Iterable[Path]) -> list[str]:
    """Files that should not be there."""
    return [
        f"{path} ({path.stat().st_size} bytes)"
        for directory in state_directories
        for path in directory.rglob("*")
        if path.is_file() and str(path.relative_to(directory)) not in _ALLOWED
    ]


def cgroups() -> set[str]:
    """The cgroups of attempts that exist on this machine now, whosever they are."""
    if not _CGROUPS.exists():
        return set()
    return {str(path) for path in _CGROUPS.rglob("banyan-*") if path.is_dir()}
