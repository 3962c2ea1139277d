"""Every fault by its name, and the rows of the matrix that are shown elsewhere."""

from collections.abc import Iterable

from banyan.errors import BanyanError
from tests.chaos.faults import (
    Fault,
    clock,
    database,
    disks,
    elsewhere,
    network,
    processes,
    races,
    replies,
    shortage,
)

_FILES = (processes, network, replies, database, disks, shortage, clock, races, elsewhere)
ALL: dict[str, Fault] = {one.name: one for file in _FILES for one in file.FAULTS}


def chosen(names: str) -> list[Fault]:
    """The faults with these names, or of these rows; all that this machine can do for "all"."""
    if names == "all":
        return [fault for fault in ALL.values() if fault.why_not() is None]
    found: list[Fault] = []
    for name in names.split(","):
        of_row = [fault for fault in ALL.values() if name in (fault.name, fault.row)]
        if not of_row:
            raise BanyanError("usage", f"there is no fault {name!r}; --list shows all")
        found += [fault for fault in of_row if fault not in found]
    for fault in found:
        if why := fault.why_not():
            raise BanyanError("usage", f"{fault.name}: {why}")
    return found


def listed(faults: Iterable[Fault]) -> str:
    """The table that `--list` prints."""
    lines = []
    for fault in sorted(faults, key=lambda one: (int(one.row[1:]), one.name)):
        why = fault.why_not()
        told = f"{fault.what}; not in a run here: {why}" if why else fault.what
        lines.append(f"{fault.row:4} {fault.name:22} {told}")
    return "\n".join(lines)
