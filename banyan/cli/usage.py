"""`banyan usage`: what each account has used, in hours."""

from collections.abc import Mapping
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.output import as_json, print_json, say
from banyan.cli.tables import print_table
from banyan.client.api import Client

_HOUR = 3600
_GIB_HOUR = 3600 * 1024**3


@click.command("usage")
@with_client()
@click.option(
    "--window", default="30 days", show_default=True, metavar="DURATION", help="How far back."
)
@as_json
def usage_command(client: Client, window: str, as_json: bool) -> None:
    """Which account has used how much: an operator sees all, others see themselves.

    Hours of cores, memory and GPUs are of what was granted while tasks ran, those that run now
    among them; CPU hours are what ended attempts really used.

    \b
    Example:
      banyan usage --window "7 days"
    """
    used = client.usage(window=window)
    if as_json:
        print_json(used)
        return
    say(f"since {used['window']['from']}")
    print_table(
        ("OWNER", "ATTEMPTS", "FAILED", "CPU h", "CORE h", "GiB h", "GPU h"),
        [_row(item) for item in used["_items"]],
    )


def _row(item: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(item["owner"]),
        str(item["attempts"]),
        str(item["failed"]),
        _hours(item["cpu_seconds"] / _HOUR),
        _hours(item["core_seconds"] / _HOUR),
        _hours(item["memory_byte_seconds"] / _GIB_HOUR),
        _hours(item["gpu_seconds"] / _HOUR),
    )


def _hours(amount: float) -> str:
    return f"{amount:,.2f}"
