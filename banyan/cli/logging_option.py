"""`--log-format`, the option of the commands that serve: `up`, `server` and `worker`."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from banyan.config import knobs
from banyan.logs import FORMATS

Command = TypeVar("Command", bound=Callable[..., Any])


def log_format(command: Command) -> Command:
    """Gives the command the option."""
    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        callback=_choose,
        expose_value=False,
        help="Of what is said on standard error. [default: text]",
    )(command)


def _choose(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """As a knob in the environment, where the processes that are started find it as well."""
    if value:
        os.environ["BANYAN_LOG_FORMAT"] = value
        knobs.cache_clear()
