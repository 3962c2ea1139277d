"""The order of the tests, and which of them are quick: by what they ask for, not by a list.

Each file is run by one process. Where the longest come first, none of the processes is still
busy with one when the others have nothing left.
"""

from collections import defaultdict

import pytest

# Roughly, on a machine of two cores.
SECONDS = {
    "processes": 4.0,
    "launcher": 1.0,
    "fresh_database": 0.7,
    "members": 2.0,  # of a replica set
    "server": 0.2,
    "mongo": 0.2,
}
OTHERS_SECONDS = 0.05
OF_A_TIMEOUT = 0.1  # who asks for more time than usual takes long
# Of these, what has no server and no database of its own takes long in other ways.
SLOW_FOLDERS = {"chaos", "e2e", "packaging", "security"}


def seconds(item: pytest.Item) -> float:
    """How long the test takes, by guess."""
    asked = getattr(item, "fixturenames", ())
    found = [guess for name, guess in SECONDS.items() if name in asked]
    marker = item.get_closest_marker("timeout")
    patience = float(marker.args[0]) * OF_A_TIMEOUT if marker and marker.args else 0.0
    return max([OTHERS_SECONDS, patience, *found])


def put_longest_files_first(items: list[pytest.Item]) -> None:
    """Change the order of files, and within a file nothing."""
    of_file: defaultdict[str, float] = defaultdict(float)
    for item in items:
        of_file[str(item.path)] += seconds(item)
    items.sort(key=lambda item: (-of_file[str(item.path)], str(item.path)))


def is_quick(item: pytest.Item) -> bool:
    """Whether it starts nothing and needs no database."""
    return SECONDS.keys().isdisjoint(getattr(item, "fixturenames", ()))
