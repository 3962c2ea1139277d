"""`scripts/bench [--quick] [NAME ...]`: measures, prints a table, writes JSON beside it."""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from tests.bench import measures

FULL = {"api": 20_000, "w1": 10_000, "w2": 50, "waiting": 500}
QUICK = {"api": 2_000, "w1": 300, "w2": 5, "waiting": 50}


def main() -> None:
    """The table goes to standard output as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: does it run at all?")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("names", nargs="*", choices=[[], *FULL], help="of all: " + ", ".join(FULL))
    asked = parser.parse_args()
    sizes = QUICK if asked.quick else FULL
    figures: dict[str, float] = {}
    for name in asked.names or sizes:
        print(f"{name} …", file=sys.stderr)
        figures |= getattr(measures, name)(sizes[name])
    print(f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | figure |\n|---|---|")
    for what, figure in figures.items():
        print(f"| {what} | {figure:g} |")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
