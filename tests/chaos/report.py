"""What a run came to, as JSON for programs and as Markdown for people."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from tests.chaos.run import Result


def to_json(result: Result) -> dict[str, Any]:
    """Everything."""
    options = result.options
    return {
        "seed": options.seed,
        "load_seconds": options.seconds,
        "wall_seconds": round(result.seconds, 1),
        "faults": [fault.name for fault in options.faults],
        "struck": dict(result.struck),
        "spoilt": dict(result.spoilt),
        "failed": result.failed,
        "counts": result.counts,
        "answers": result.answers,
        "slowest": result.slowest,
        "recovery": {
            "fresh": _by_name(result.fresh_seconds),
            "held": _by_name(result.held_seconds),
        },
        "violations": [asdict(one) for one in result.violations],
    }


def to_markdown(result: Result) -> str:
    """One page."""
    lines = [*_head(result), *_recovery(result)]
    lines += ["", *_table("counted", result.counts), "", *_table("answers", result.answers)]
    lines += ["", *_table("slowest answer, seconds", result.slowest)]
    if result.spoilt:
        lines += ["", *_table("on the wire", dict(sorted(result.spoilt.items())))]
    if result.failed:
        lines += ["", "Strokes that could not be made:", ""]
        lines += [f"- {one}" for one in result.failed]
    lines += ["", f"## {len(result.violations)} violations", ""]
    for one in result.violations:
        lines += [f"- **{one.check}** {one.subject}: {one.message}"]
        lines += [f"    - {told}" for told in one.story]
    return "\n".join(lines) + "\n"


def _head(result: Result) -> list[str]:
    options = result.options
    faults = ",".join(fault.name for fault in options.faults)
    return [
        f"# Chaos, seed {options.seed}",
        "",
        f"`scripts/chaos --seed {options.seed} --for {options.seconds:g}s --faults {faults}`",
        "",
        f"{sum(result.struck.values())} strokes in {options.seconds:g} s; "
        f"{result.seconds:.0f} s with the start, the calm after it, and the checks.",
        "",
    ]


def _recovery(result: Result) -> list[str]:
    fresh, held = _by_name(result.fresh_seconds), _by_name(result.held_seconds)
    lines = [
        "Recovery in seconds, from the moment at which the fault is over: until a task submitted "
        "then has ended (fresh), and until every attempt that was alive at the strike has (held).",
        "",
        "| fault | row | struck | fresh: median | worst | held: median | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in sorted(result.options.faults, key=lambda one: one.name):
        cells = [fault.name, fault.row, str(result.struck[fault.name])]
        for found in (fresh, held):
            measured = found.get(fault.name, {})
            cells += [f"{measured[key]:.1f}" if measured else "" for key in _KEYS]
        lines.append(f"| {' | '.join(cells)} |")
    for title, found_all in (("fresh", result.fresh_seconds), ("held", result.held_seconds)):
        if found_all:
            seconds = [one for _, one in found_all]
            told = f"median {median(seconds):.1f} s, worst {max(seconds):.1f} s"
            lines += ["", f"All, {title}: {told}."]
    return lines


_KEYS = ("median", "worst")


def _by_name(measured: Sequence[tuple[str, float]]) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for name, seconds in measured:
        found[name].append(seconds)
    return {
        name: {"median": round(median(all_of), 2), "worst": round(max(all_of), 2)}
        for name, all_of in sorted(found.items())
    }


def _table(title: str, counted: Mapping[str, float]) -> list[str]:
    return [f"| {title} | |", "|---|---|", *(f"| {name} | {n} |" for name, n in counted.items())]
