"""Holds the source to its lengths, and the tests to waiting for events: part of scripts/check.

A file has at most 400 lines (the settings page: 450), a function at most 40; a test never
sleeps, but asks `tests.harness.eventually`.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES_MAX = 400
# One page by contract: it declares every knob and the whole API.
SETTINGS, SETTINGS_LINES_MAX = Path("settings.py"), 450
FUNCTION_LINES_MAX = 40
SLEEPER = Path("tests/harness/eventually.py")  # the one place that may
BENCH = Path("tests/bench")  # no test: it lets time pass and looks what that costs


def main() -> int:
    """Print what is too long, or sleeps; the exit code."""
    complaints = [
        complaint
        for root in ("banyan", "scripts", "tests", "settings.py", "setup.py")
        for path in sorted(Path(root).rglob("*.py") if Path(root).is_dir() else [Path(root)])
        for complaint in look_at(path)
    ]
    sys.stdout.writelines(f"{complaint}\n" for complaint in complaints)
    return 1 if complaints else 0


def look_at(path: Path) -> Iterator[str]:
    """What is wrong with one file."""
    text = path.read_text()
    lines = text.count("\n")
    lines_max = SETTINGS_LINES_MAX if path == SETTINGS else FILE_LINES_MAX
    if lines > lines_max:
        yield f"{path}: {lines} lines, {lines_max} at the most"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines"
        elif may_not_sleep(path) and is_sleep(node):
            yield f"{path}:{node.lineno}: wait for an event (tests.harness.eventually)"


def may_not_sleep(path: Path) -> bool:
    """Whether a file is part of the tests."""
    return path.parts[0] == "tests" and path != SLEEPER and BENCH not in path.parents


def is_sleep(node: ast.AST) -> bool:
    """Whether this calls `sleep` for more than no time at all."""
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    pause = node.args[0]
    return name == "sleep" and not (isinstance(pause, ast.Constant) and pause.value == 0)


if __name__ == "__main__":
    sys.exit(main())
