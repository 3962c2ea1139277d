"""Where a setting comes from: `BANYAN_*` in the environment, else `settings.py`.

`settings.py` is the operator's page at the root of the project; a wheel carries it
inside the package. It is loaded by path, so that no module of that common name has to
be importable; `BANYAN_SETTINGS` names another file to use in its place.
"""

import os
import pwd
import runpy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from banyan import ownership
from banyan.errors import BanyanError

_PACKAGE = Path(__file__).resolve().parent


def settings_path() -> Path:
    """The settings page in force: named by the environment, packaged, or of the checkout."""
    named = os.environ.get("BANYAN_SETTINGS")
    if named:
        return Path(named)
    packaged = _PACKAGE / "settings.py"
    return packaged if packaged.exists() else _PACKAGE.parent / "settings.py"


@cache
def settings() -> Mapping[str, Any]:
    """Every name in capitals on the settings page, before the environment has its say.

    Errors: `usage` where another page is named that others could have written.
    """
    page = runpy.run_path(str(_believed(settings_path())))
    return {name: value for name, value in page.items() if name.isupper()}


def _believed(page: Path) -> Path:
    """One that is named is code of ours or root's, as the program itself is. Errors: `usage`."""
    if os.environ.get("BANYAN_SETTINGS"):
        try:
            ownership.check_file(page)
        except OSError as problem:
            message = f"BANYAN_SETTINGS={page}: {problem.strerror}"
            raise BanyanError("usage", message) from None
        if not page.is_file():
            raise BanyanError("usage", f"BANYAN_SETTINGS={page} is no file")
    return page


@cache
def knobs() -> SimpleNamespace:
    """The scalar settings, each overridden by `BANYAN_<NAME>` where that is set.

    Errors: a value that has not the type of its default ends with the word `usage`.
    """
    scalars = {
        name: value
        for name, value in settings().items()
        if isinstance(value, bool | int | float | str)
    }
    return SimpleNamespace(**{name: _override(name, value) for name, value in scalars.items()})


def _override(name: str, default: bool | int | float | str) -> bool | int | float | str:
    text = os.environ.get(f"BANYAN_{name}")
    if text is None:
        return default
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise BanyanError("usage", f"BANYAN_{name}={text!r} is not a valid {kind}") from None


def data_directory() -> Path:
    """Where `banyan up` keeps its database and tokens: `BANYAN_DATA`, else the XDG place."""
    named = os.environ.get("BANYAN_DATA")
    if named:
        return Path(named)
    return user_directory("XDG_DATA_HOME", ".local/share", "--data DIR")


def user_directory(variable: str, usual: str, instead: str) -> Path:
    """Banyan's own below a directory of the user's, by the XDG rules.

    variable: names that directory; usual: where it is below the home directory else; instead: how
    to do without. Errors: `usage` where there is no home directory, as in some containers.
    """
    named = os.environ.get(variable)
    return (Path(named) if named else _home(instead) / usual) / "banyan"


def _home(instead: str) -> Path:
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            message = f"user {os.getuid()} has no home directory: set HOME, or give {instead}"
            raise BanyanError("usage", message) from None
    return Path(home)
