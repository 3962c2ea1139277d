"""`scripts/bench [--quick] [NAME ...]`: measures, prints a table, writes it to files too."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import backlog, graphs, idle, many, programs, stealing
from tests.bench.figures import Figure, as_json, markdown

ROOT = Path(__file__).resolve().parents[2]
# Name -> the measure, its size, and its size in the quick form.
MEASURES: dict[str, tuple[Callable[[int], list[Figure]], int, int]] = {
    "w1": (programs.w1, 10_000, 300),
    "w2": (programs.w2, 50, 5),
    "w3": (graphs.w3, 1000, 20),
    "w4": (backlog.w4, 1_000_000, 100_000),
    "w5": (many.w5, 100_000, 2_000),
    "w6": (backlog.w6, 100_000, 2_000),
    "idle": (idle.idle, 1000, 20),
    "stealing": (stealing.stealing, 2000, 200),
}


def main() -> None:
    """The table goes to standard output as Markdown."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: does it run at all?")
    parser.add_argument("--size", type=int, help="instead of the usual size of each measure")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results", help="where files go")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(MEASURES)
    if unknown:
        parser.error(f"no measure {min(unknown)!r}; known: {', '.join(MEASURES)}")
    figures: list[Figure] = []
    for name in asked.names or MEASURES:
        print(f"{name} …", file=sys.stderr, flush=True)
        measure, size, small = MEASURES[name]
        figures += measure(asked.size or (small if asked.quick else size))
    report(figures, asked.out)


def report(figures: list[Figure], directory: Path) -> None:
    """Print the table, and write it beside its JSON."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    text = f"{machine}\n\n{markdown(figures)}\n"
    print(text)
    directory.mkdir(exist_ok=True)
    place = directory / time.strftime("%Y%m%d-%H%M%S")
    place.with_suffix(".md").write_text(text)
    told = {"machine": machine, "figures": as_json(figures)}
    place.with_suffix(".json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
