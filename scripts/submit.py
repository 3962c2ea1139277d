"""A task graph over the source of Python's standard library: parse, merge by letter, report.

submit.py [DIRECTORY]        results go to DIRECTORY (default: ./stdlib-report)
"""

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import stdlib_report
from rich.progress import Progress

from banyan.client.api import Client
from banyan.client.ids import new_id

PROGRAM = [sys.executable, "-I", stdlib_report.__file__]


def graph(directory: Path) -> list[dict[str, Any]]:
    """Three layers; the report is the last task."""

    def task(verb: str, name: str, *inputs: str, after: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [parent["_id"] for parent in after]
        command = [*PROGRAM, verb, *inputs, *(parent["name"] for parent in after)]
        return {"_id": new_id(), "name": name, "command": command, "cwd": str(directory),
                "after": ids, "tags": {"graph": "stdlib"}}  # fmt: skip

    names = sorted(stdlib_report.names(), key=stdlib_report.letter)
    parsed = [task("parse", f"{name}.json", name, f"{name}.json", after=[]) for name in names]
    merged = []
    for letter, group in groupby(parsed, key=lambda parse: stdlib_report.letter(parse["name"])):
        out = f"letter-{letter}.json"
        merged.append(task("merge", out, out, after=list(group)))
    return [*parsed, *merged, task("report", "report.txt", "report.txt", after=merged)]


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "stdlib-report").absolute()
    directory.mkdir(parents=True, exist_ok=True)
    client = Client()
    tasks = client.submit(graph(directory))
    with Progress() as progress:
        bar = progress.add_task(f"{len(tasks)} tasks", total=len(tasks))
        ended = client.wait(
            [task["_id"] for task in tasks],
            on_change=lambda count, total: progress.update(bar, completed=count),
        )
    failed = [task["_id"] for task in ended if task.get("outcome") != "success"]
    if failed:
        sys.exit(f"{len(failed)} tasks did not succeed; see: banyan log {failed[0]}")
    sys.stdout.write(client.log(ended[-1]["_id"]).decode())


if __name__ == "__main__":
    main()
