"""`banyan doctor`: looks for what is wrong in a living database, and mends what can be mended.

For whoever runs a server: it goes to the database itself, not through the API. The checks are
those of `banyan.server.doctor`; here they are only asked for and told.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from banyan import ownership, profiles
from banyan.config import data_directory, knobs
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED
from banyan.printable import harmless

if TYPE_CHECKING:
    from banyan.server.doctor import Finding

_SHOWN_MAX = 100  # of one check; JSON has them all


@click.command("doctor")
@click.option("--mongo", metavar="URI", help="The server's MongoDB.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Of a running `banyan up` with a MongoDB of its own. [default: the one that runs here]",
)
@click.option("--repair", is_flag=True, help="Mend what the server's own rules can mend.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def doctor_command(mongo: str | None, data: Path | None, repair: bool, as_json: bool) -> int:
    """Check a living database: attempts, leases, dependencies, edges, states, orphans, indexes,
    and whether its MongoDB is one that leaks what it holds.

    Servers and workers may go on meanwhile: changes that are still under way are not reported.
    Set the knobs (BANYAN_LEASE_SECONDS, …) as they are set for the server. Ends with 0 where
    nothing is wrong, or all of it was mended; else with 1.

    \b
    Example:
      banyan doctor --repair
    """
    from banyan.server import doctor
    from banyan.server.embedded import running_uri

    uri = mongo or (knobs().MONGO_URI if data is None else "")
    private = not uri
    if private:
        home = (data or _home()).absolute()
        ownership.check_above(home / "mongo" / "key")
        uri = running_uri(home)
    with doctor.database(uri) as store:
        found = doctor.examine(store)
        left = doctor.repair(store, found) if repair else found
        notes = doctor.notes(store, private=private)
    if as_json:
        answer = {
            "found": [one.to_json() for one in found],
            "left": [one.to_json() for one in left],
            "notes": notes,
        }
        click.echo(json.dumps(answer))
    else:
        _tell(found, left)
        for note in notes:
            click.echo(harmless(f"note: {note}"))
    return EXIT_TASK_FAILED if left else EXIT_OK


def _home() -> Path:
    """Where `banyan up` is at work, if with a MongoDB of its own; else the usual place."""
    home = profiles.local_data()
    return home if (home / "mongo").is_dir() else data_directory()


def _tell(found: Sequence["Finding"], left: Sequence["Finding"]) -> None:
    if not found:
        click.echo("nothing is wrong")
        return
    for check in dict.fromkeys(one.check for one in found):
        of_check = [one for one in found if one.check == check]
        for one in of_check[:_SHOWN_MAX]:
            click.echo(harmless(f"{one.check}  {one.subject}  {one.message}"))
            click.echo(harmless(f"    {one.advice if one in left else 'mended'}"))
        if len(of_check) > _SHOWN_MAX:
            click.echo(f"{check}: {len(of_check) - _SHOWN_MAX:,} more; --json has them all")
    mended = f", {len(found) - len(left):,} mended" if len(left) < len(found) else ""
    click.echo(f"{len(found):,} found{mended}")
