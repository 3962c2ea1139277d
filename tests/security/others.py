"""Files of another user, among which a test puts ours."""

import os
from pathlib import Path

NOBODY = 65534


def give(*paths: Path) -> None:
    """Makes them the other user's; links themselves, not what they lead to. Root alone can."""
    for path in paths:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def give_away(place: Path) -> None:
    """The same, of a directory with all that is in it."""
    give(place, *place.rglob("*"))
