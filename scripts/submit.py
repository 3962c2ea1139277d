"""A task graph over the source of Python's standard library: parse, merge by letter, report.

submit.py [DIRECTORY]: results go to DIRECTORY (default: ./stdlib-report).
"""

import signal
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import stdlib_report
from rich.console import Console
from rich.progress import Progress

from banyan.client.api import Client
from banyan.client.ids import new_id

Task = dict[str, Any]


def task(directory: Path, verb: str, out: str, *inputs: str, after: list[Task]) -> Task:
    """One step; what it reads besides `inputs` is what the tasks before it have written."""
    step = [sys.executable, "-I", stdlib_report.__file__, verb, out, *inputs]
    return {
        "_id": new_id(),
        "name": out,
        "command": [*step, *(parent["name"] for parent in after)],
        "cwd": str(directory),
        "after": [parent["_id"] for parent in after],
    }


def graph(directory: Path) -> list[Task]:
    """Three layers; the last task writes and prints the report."""
    names = sorted(stdlib_report.names(), key=stdlib_report.letter)
    parsed = [task(directory, "parse", f"{name}.json", name, after=[]) for name in names]
    merged = []
    for letter, group in groupby(parsed, key=lambda parse: stdlib_report.letter(parse["name"])):
        merged.append(task(directory, "merge", f"letter-{letter}.json", after=list(group)))
    return [*parsed, *merged, task(directory, "report", "report.txt", after=merged)]


def main() -> None:
    """Submits the graph, shows how far it is, prints the report."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "stdlib-report").absolute()
    directory.mkdir(parents=True, exist_ok=True)
    client = Client()
    ids = [created["_id"] for created in client.submit(graph(directory))]
    try:
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task(f"{len(ids)} tasks", total=len(ids))
            ended = client.wait(ids, on_change=lambda n, total: progress.update(bar, completed=n))
    except (KeyboardInterrupt, SystemExit):
        client.cancel(ids)
        raise
    failed = [end["_id"] for end in ended if end.get("outcome") != "success"]
    if failed:
        sys.exit(f"{len(failed)} tasks did not succeed; see: banyan log {failed[0]}")
    sys.stdout.write(client.log(ids[-1]).decode())


if __name__ == "__main__":
    main()
