"""`banyan down`: ends the stack that `banyan up` started.

It goes by the lock of the data directory alone, and asks no server: one that hangs is ended, too.
"""

from pathlib import Path

import click

from banyan import profiles, stacks
from banyan.cli.output import as_json, print_json, say, tell
from banyan.cli.words import duration_seconds
from banyan.errors import EXIT_OK, EXIT_UNAVAILABLE

_TOLD_SECONDS = 1.0


@click.command("down")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help='Its data directory. [default: that of the profile "local"]',
)
@click.option(
    "--timeout",
    metavar="TIME",
    default="2 minutes",
    show_default=True,
    help="Wait so long for its end (code 75); it goes on ending.",
)
@as_json
def down_command(data: Path | None, timeout: str, as_json: bool) -> int:
    """End what 'banyan up' or 'banyan server' started here: worker, server and database.

    Tasks that run get 5 s to end, and run again after the next start, which goes on from there.

    \b
    Example:
      banyan down
    """
    seconds = duration_seconds(timeout, "--timeout")
    home = (data or profiles.local_data()).absolute()
    found = stacks.supervisor(home)
    ended = found is None
    if found is not None:
        found.end()
        ended = _awaited(found, home, seconds)
        found.close()
    process = found.process if found else None
    if as_json:
        print_json({"data": str(home), "process": process, "ended": ended})
    elif not ended:
        say(f"banyan: process {process} has not ended after {timeout}; it goes on ending")
    else:
        tell(f"{home}: ended, it was process {process}" if process else f"{home}: nothing runs")
    return EXIT_OK if ended else EXIT_UNAVAILABLE


def _awaited(found: stacks.Supervisor, home: Path, seconds: float) -> bool:
    if found.has_ended(min(seconds, _TOLD_SECONDS)):
        return True
    say(f"{home}: process {found.process} is ending, with all that it started")
    return found.has_ended(max(0.0, seconds - _TOLD_SECONDS))
