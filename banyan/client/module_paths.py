"""Where a Python callable finds modules: at its task as in the program that submitted it.

Used by `new_tasks` there and by `call` here. The directory in which a task starts may be one
where others write. So a task's Python looks there only if the submitting one did, and last:
nothing in it stands in for a module of Banyan, of what Banyan needs, or of the library. Unless the
submitting program has it from there itself: those names are told.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

VARIABLE = "BANYAN_CALL_PATH"
NAMES_VARIABLE = "BANYAN_CALL_MODULES"
_OF_A_PYTHON = {"site-packages", "dist-packages", "lib-dynload"}


def of_environment() -> list[str]:
    """PYTHONPATH, absolute. An empty entry means the current directory, mostly by mistake."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [os.path.abspath(each) for each in given if each]


def of_program() -> list[str]:
    """What this program has besides: its script's directory, the current one, what it added."""
    known = {*of_environment(), *sysconfig.get_paths().values(), site.getusersitepackages()}
    found = dict.fromkeys(os.path.abspath(each) for each in sys.path if isinstance(each, str))
    return [
        each
        for each in found
        if each not in known
        and os.path.basename(each) not in _OF_A_PYTHON
        and os.pathsep not in each
        and os.path.exists(each)
    ]


def names_in(places: Sequence[str]) -> list[str]:
    """The modules that this program has from there, the packages by their names alone."""
    return list(_names_in(tuple(places), len(sys.modules)))


@lru_cache(maxsize=4)
def _names_in(places: tuple[str, ...], count: int) -> tuple[str, ...]:
    """count: of all modules: with each further one it may be another answer."""
    found = {name: _place_of(module) for name, module in list(sys.modules.items())}
    return tuple(name for name, place in found.items() if place in places and "." not in name)


def _place_of(module: ModuleType) -> str:
    """The directory in which it was found; empty where there is none."""
    spec = getattr(module, "__spec__", None)
    if not isinstance(spec, ModuleSpec):  # something that stands in for one
        return ""
    inside = [*(spec.submodule_search_locations or [])]
    file = inside[0] if inside else spec.origin if spec.has_location else None
    return os.path.dirname(os.path.abspath(file)) if file else ""


def add(told: str, names: str) -> None:
    """What `of_program` said there, put last: whatever has a name already keeps it.

    names: as `names_in` said them there: these are looked for there first.
    """
    places = [each for each in told.split(os.pathsep) if each and each not in sys.path]
    sys.path += places
    sys.meta_path.insert(0, _Finder(places, names.split(os.pathsep)))


class _Finder:
    def __init__(self, places: list[str], names: list[str]) -> None:
        self._places = places
        self._names = frozenset(names)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, self._places) if name in self._names else None
