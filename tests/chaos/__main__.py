"""`scripts/chaos`: reads the command line, runs, writes the report. 1: a promise was broken."""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from banyan.errors import EXIT_OK, EXIT_TASK_FAILED, BanyanError
from tests.chaos import matrix, report
from tests.chaos.ground import Loopback, Namespaces, why_not_apart
from tests.chaos.run import Options, run
from tests.harness import Processes

_UNITS = {"s": 1, "m": 60, "h": 3600}


def main() -> int:
    """One run."""
    asked = _arguments()
    if asked.list:
        print(matrix.listed(matrix.ALL.values()))
        return EXIT_OK
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    options = Options(
        seed, asked.seconds, matrix.chosen(asked.faults), asked.gap, asked.workers, asked.clients,
        asked.task_seconds,
    )  # fmt: skip
    print(f"seed {seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="banyan-chaos-"))
    result = run(
        options, directory / "run", _ground(asked.together), lambda line: print(line, flush=True)
    )
    text = report.to_markdown(result)
    if asked.report:
        asked.report.with_suffix(".md").write_text(text)
        asked.report.with_suffix(".json").write_text(json.dumps(report.to_json(result), indent=1))
    print(text)
    if result.violations:
        print(f"all that was written is in {directory}", flush=True)
        return EXIT_TASK_FAILED
    shutil.rmtree(directory, ignore_errors=True)
    return EXIT_OK


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--for", dest="seconds", type=_seconds, default=60.0, help="30s, 10m, 1h")
    parser.add_argument("--faults", default="all", help="names or rows, e.g. kill-agent,F7")
    parser.add_argument("--seed", type=int, help="makes the same plan again")
    parser.add_argument("--list", action="store_true", help="every fault, and what it is")
    parser.add_argument("--gap", type=float, default=4.0, help="seconds between strokes")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--task-seconds", type=float, default=3.0, help="the longest task")
    parser.add_argument("--together", action="store_true", help="all on loopback, as if not root")
    parser.add_argument("--report", type=Path, help="writes PATH.md and PATH.json")
    return parser.parse_args()


def _seconds(text: str) -> float:
    if text[-1:] in _UNITS:
        return float(text[:-1]) * _UNITS[text[-1]]
    return float(text)


def _ground(together: bool) -> Callable[[Processes], Loopback]:
    return (lambda processes: Loopback()) if together or why_not_apart() else Namespaces


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BanyanError as error:
        print(f"scripts/chaos: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
