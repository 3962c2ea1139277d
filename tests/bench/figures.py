"""What was measured: figures with their units and targets, as Markdown and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. least, most: the target, where there is one."""

    what: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def target(self) -> str:
        """The target in words."""
        signs = (("≥", self.least), ("≤", self.most))
        return " ".join(f"{sign} {bound:g}" for sign, bound in signs if bound is not None)

    @property
    def verdict(self) -> str:
        """Whether the target is reached; nothing where there is none."""
        if not self.target:
            return ""
        low = self.least is not None and self.value < self.least
        return "missed" if low or (self.most is not None and self.value > self.most) else "reached"


def markdown(figures: Iterable[Figure]) -> str:
    """A table of the figures."""
    rows = ["| what | figure | target | |", "|---|---:|---|---|"]
    rows += [
        f"| {one.what} | {readable(one.value)} {one.unit} | {one.target} | {one.verdict} |"
        for one in figures
    ]
    return "\n".join(rows)


def readable(value: float) -> str:
    """Three digits that count; thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(figures: Iterable[Figure]) -> dict[str, dict[str, float | str]]:
    """{what: {"value", "unit", "target"}}."""
    return {
        one.what: {"value": round(one.value, 4), "unit": one.unit, "target": one.target}
        for one in figures
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


__all__ = ["Figure", "as_json", "markdown", "median", "percentile", "readable"]
