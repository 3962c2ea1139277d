"""`banyan config show`: the settings that are in force here, and where each comes from."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from banyan import profiles
from banyan.cli.output import as_json, print_json, say
from banyan.cli.tables import print_table
from banyan.config import data_directory, knobs, settings_path
from banyan.errors import BanyanError

_PAGE = "settings.py"

Setting = tuple[str, str, str]  # name, value, origin


@click.group("config")
def config_command() -> None:
    """Which settings are in force, and where they come from."""


@config_command.command("show", short_help="Show the settings that are in force.")
@click.option("--origin", is_flag=True, help="And where each comes from.")
@as_json
def show_command(origin: bool, as_json: bool) -> None:
    """Show the settings: environment before profile before settings.py; never a token.

    \b
    Example:
      banyan config show --origin
    """
    found = [*_access(), *_directories(), *_knobs()]
    if as_json:
        print_json({name: {"value": value, "origin": where} for name, value, where in found})
    elif origin:
        page = str(settings_path())
        shown = [(name, value, _PAGE if where == page else where) for name, value, where in found]
        print_table(("SETTING", "VALUE", "ORIGIN"), shown)
        say(f"{_PAGE} is {page}")
    else:
        print_table(("SETTING", "VALUE"), [(name, value) for name, value, _ in found])


def _access() -> Iterator[Setting]:
    """Which server and token a command would take."""
    stored = profiles.load()
    named = os.environ.get("BANYAN_PROFILE")
    name = named or stored.default
    chosen = stored.profiles.get(name)
    file = _path(profiles.path)
    yield "profile", name or "(none)", "BANYAN_PROFILE" if named else file
    if os.environ.get("BANYAN_URL"):
        yield "url", os.environ["BANYAN_URL"], "BANYAN_URL"
    elif chosen:
        yield "url", chosen.url, f"{file} [profile.{name}]"
        if chosen.socket:
            yield "socket", chosen.socket, f"{file} [profile.{name}]"
    else:
        yield "url", "(none)", "start a server with 'banyan up', or 'banyan login URL'"
    if os.environ.get("BANYAN_TOKEN"):
        yield "token", "(set)", "BANYAN_TOKEN"
    elif chosen and chosen.token:
        yield "token", "(set)", f"{file} [profile.{name}]"
    elif chosen:
        yield "token", "(in a file)", chosen.credentials
    else:
        yield "token", "(none)", ""


def _directories() -> Iterator[Setting]:
    origin = next((one for one in ("BANYAN_DATA", "XDG_DATA_HOME") if os.environ.get(one)), "HOME")
    yield "data", _path(data_directory), origin


def _path(find: Callable[[], Path]) -> str:
    try:
        return str(find())
    except BanyanError as error:  # there is no home directory
        return f"(none: {error.message})"


def _knobs() -> Iterator[Setting]:
    page = str(settings_path())
    for name, value in vars(knobs()).items():
        variable = f"BANYAN_{name}"
        if str(value).startswith("banyan."):
            continue  # where the page's own rows find their functions
        secret = name == "MONGO_URI" or name.endswith("_TOKEN")  # an address may hold a password
        shown = "(set)" if secret and value else str(value)
        yield name, shown, variable if variable in os.environ else page
