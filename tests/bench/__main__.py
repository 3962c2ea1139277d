"""`scripts/bench [--quick] [NAME ...]`: measures, prints a table, writes it to files too.

Without names it runs all but `scale`, the simulation of docs/scale.md, and `peers`, which
installs other queues in an environment of its own and runs them beside Banyan. `--write PAGE`
puts the tables into that page.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    backlog,
    beside,
    cancelling,
    cost,
    graphs,
    idle,
    many,
    page,
    programs,
    scale,
    stealing,
)
from tests.bench.figures import Figure, as_json, markdown

ROOT = Path(__file__).resolve().parents[2]
# Name -> the measure, its size, and its size in the quick form.
MEASURES: dict[str, tuple[Callable[[int], list[Figure]], int, int]] = {
    "w1": (programs.w1, 10_000, 300),
    "w2": (programs.w2, 50, 5),
    "w3": (graphs.w3, 1000, 20),
    "w4": (backlog.w4, 1_000_000, 100_000),
    "w5": (many.w5, 100_000, 1_000),
    "w6": (backlog.w6, 100_000, 2_000),
    "cost": (cost.cost, 5000, 100),
    "idle": (idle.idle, 1000, 20),
    "stealing": (stealing.stealing, 2000, 200),
    "cancelling": (cancelling.cancelling, 60, 5),
}
PEERS = "peers"
SCALE = "scale"


def main() -> None:
    """The table goes to standard output as Markdown."""
    asked = _arguments()
    begin = time.monotonic()
    if PEERS in asked.names:
        rounds = asked.size or (1 if asked.quick else beside.ROUNDS)
        ratios, table = beside.peers(rounds, asked.quick, [n for n in asked.names if n != PEERS])
        report(PEERS, ratios, asked, f"{table}\n\n", time.monotonic() - begin)
        return
    if SCALE in asked.names:
        figures, table = scale.scale(asked.size or (20 if asked.quick else 1000))
        report(SCALE, figures, asked, f"{table}\n\n", time.monotonic() - begin)
        return
    figures = []
    for name in asked.names or MEASURES:
        print(f"{name} …", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        measure, size, small = MEASURES[name]
        figures += measure(asked.size or (small if asked.quick else size))
        print(f" {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    report("figures", figures, asked, "", time.monotonic() - begin)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: does it run at all?")
    parser.add_argument("--size", type=int, help="of each measure; of peers: rounds")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results", help="where files go")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables there too")
    known = f"of {', '.join(MEASURES)}; or {SCALE}; or {PEERS}, and which: {', '.join(beside.WORK)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    asked = parser.parse_args()
    names = {PEERS, *beside.WORK} if PEERS in asked.names else {*MEASURES, SCALE}
    unknown = set(asked.names) - names
    if unknown:
        parser.error(f"no measure {min(unknown)!r}; known: {known}")
    return asked


def report(
    part: str, figures: list[Figure], asked: argparse.Namespace, table: str, seconds: float
) -> None:
    """Print the tables, and write them beside their JSON."""
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    when = time.strftime("%Y-%m-%d", time.gmtime())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {_processor()}, {load}"
    text = f"{when}, {seconds / 60:.0f} minutes: {machine}.\n\n{table}{markdown(figures)}\n"
    print(text)
    asked.out.mkdir(parents=True, exist_ok=True)
    place = asked.out / f"{time.strftime('%Y%m%d-%H%M%S')}-{part}"
    place.with_suffix(".md").write_text(text)
    told = {"machine": machine, "table": table, "figures": as_json(figures)}
    place.with_suffix(".json").write_text(json.dumps(told, indent=2) + "\n")
    if asked.write:
        page.put(asked.write, part, text)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
