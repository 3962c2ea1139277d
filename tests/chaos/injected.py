"""The clock of a process, injected: what a stage starts its servers and workers with."""

from pathlib import Path

VARIABLE = "CHAOS_CLOCK"
_MODULE = Path(__file__).parent / "clock"


def clock_environment(directory: Path) -> dict[str, str]:
    """For a process whose wall clock is to heed a file in this directory."""
    file = directory / "offset"
    file.write_text("0")
    return {VARIABLE: str(file), "PYTHONPATH": f"{_MODULE}:{_MODULE.parents[2]}"}
