"""A server that is killed before its n-th command to the database: `python -m tests.harness.dying`.

Reads a file of requests, one JSON object a line. Each is answered by a server process of
its own, which gets SIGKILL just before it would send its n-th command, n counting up from
1 with the line; the end of the first process that lives to answer is the end of the list.
Where a request says `"alone": true`, what the one before has left open is over first.
Prints one JSON line for each: `{"status": 200}`, or `{"status": null}` where it was killed.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from pymongo import MongoClient, UpdateOne, monitoring

from banyan.server.app import create_app


class Death(monitoring.CommandListener):
    """Kills this very process before the n-th command that follows `armed`."""

    def __init__(self) -> None:
        self.left: int | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing: only the start of a command counts."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing: only the start of a command counts."""


def answer(request: dict[str, Any], commands: int) -> int:
    """The status of the answer, where the process lives to see it."""
    death = Death()
    monitoring.register(death)
    client = create_app(os.environ["BANYAN_MONGO_URI"]).test_client()
    client.get("/readyz")
    if request.get("alone"):
        until_nothing_is_held()
    death.left = commands
    response = client.open(
        request["path"],
        method=request["method"],
        json=request["body"],
        headers={"Authorization": f"Bearer {request['token']}"},
    )
    death.left = None
    return int(response.status_code)


def until_nothing_is_held() -> None:
    """Waits for the end of what the one killed before has left open: it would be in the way."""
    mongo: MongoClient[dict[str, Any]] = MongoClient(os.environ["BANYAN_MONGO_URI"])
    with mongo, mongo.start_session() as session:
        store = mongo.get_default_database("banyan")
        touch = {"$inc": {"version": 1}}
        all_of_them = [
            UpdateOne({"_id": f"edges of {owner}"}, touch, upsert=True)
            for owner in store["accounts"].distinct("name")
        ]
        session.with_transaction(lambda own: store["guards"].bulk_write(all_of_them, session=own))


def in_its_own_process(request: dict[str, Any], commands: int) -> int | None:
    """The status, or None where the process was killed."""
    with tempfile.TemporaryFile() as told:
        process = os.fork()
        if process == 0:
            os.write(told.fileno(), str(answer(request, commands)).encode())
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return None
        told.seek(0)
        return int(told.read())


def main() -> None:
    """Go through the file that is named."""
    requests = Path(sys.argv[1]).read_text().splitlines()
    for number, line in enumerate(requests, start=1):
        status = in_its_own_process(json.loads(line), number)
        print(json.dumps({"status": status}), flush=True)  # noqa: T201 - its output
        if status is not None:
            return


if __name__ == "__main__":
    main()
