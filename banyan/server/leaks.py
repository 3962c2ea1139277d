"""Versions of MongoDB that are known to hand out what is in their memory.

Pure. Used at the start of a server and by `banyan doctor`. A leak belongs here when whoever
can connect needs no password for it: memory holds tokens, secrets and commands.
"""

import re
from collections.abc import Mapping

# By the messages that are compressed with zlib: which release of a series was the first without it.
_FIXED: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "CVE-2025-14847": ((4, 4, 30), (5, 0, 32), (6, 0, 27), (7, 0, 28), (8, 0, 17), (8, 2, 3)),
}


ADVICE = (
    "take MongoDB 6.0.27, 7.0.28, 8.0.17, 8.2.3 or a later one of these; until then start "
    "each member with --networkMessageCompressors disabled"
)


def known_leaks(version: str) -> list[str]:
    """The names of the leaks of this version, like `6.0.5`; what can't be read has none.

    A series between those that were mended was never mended, a later one never had the leak.
    """
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not numbers:
        return []
    found = (int(numbers[1]), int(numbers[2]), int(numbers[3]))
    return [name for name, fixed in _FIXED.items() if not _is_mended(found, fixed)]


def _is_mended(found: tuple[int, int, int], fixed: tuple[tuple[int, int, int], ...]) -> bool:
    series = [one for one in fixed if one[:2] == found[:2]]
    return found >= series[0] if series else found > fixed[-1]
