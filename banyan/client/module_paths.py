"""Where a Python callable finds modules: at its task as in the program that submitted it.

Used by `new_tasks` there and by `call` here. The directory in which a task starts may be one
where others write. So a task's Python looks there only if the submitting one did, and last:
nothing in it stands in for a module of Banyan, of what Banyan needs, or of the library.
"""

import os
import site
import sys
import sysconfig

VARIABLE = "BANYAN_CALL_PATH"
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


def add(told: str) -> None:
    """What `of_program` said there, put last: whatever has a name already keeps it."""
    sys.path += [each for each in told.split(os.pathsep) if each and each not in sys.path]
