"""What the standard library of this Python is made of: measured, merged, told.

`submit.py` makes a task of each call below; `whole` does the same in one process, for
comparison. Every result is written whole or not at all, so that a task may be done again.
As a program: stdlib_report.py parse OUT NAME | merge OUT IN... | report OUT IN...
"""

import ast
import json
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LONGEST = 20
MOST_IMPORTED = 20
LEFT_OUT = {"test", "tests"}  # as large as all the rest, and not everywhere installed

Measures = dict[str, Any]


def names() -> list[str]:
    """The top-level packages and modules that are written in Python."""
    top = _home()
    found = {path.stem for path in top.glob("*.py")}
    found |= {path.parent.name for path in top.glob("*/__init__.py")}
    return sorted(found & sys.stdlib_module_names - LEFT_OUT)


def letter(name: str) -> str:
    """Under which letter a name is merged: underscores do not count."""
    return name.lstrip("_")[0].lower()


def parse(name: str) -> Measures:
    """The measures of one package or module; a file that is no Python counts as unreadable."""
    totals = Counter(modules=1, files=0, lines=0, functions=0, classes=0, unreadable=0)
    imports: Counter[str] = Counter()
    functions: list[tuple[int, str]] = []
    for path in _files(name):
        totals["files"] += 1
        try:
            source = path.read_bytes()
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            totals["unreadable"] += 1
            continue
        totals["lines"] += source.count(b"\n")
        where = path.relative_to(_home()).as_posix()
        imports.update(_imported(tree))
        for node in ast.walk(tree):
            totals["classes"] += isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append((length, f"{where}:{node.lineno} {node.name}"))
    totals["functions"] = len(functions)
    return {"totals": dict(totals), "longest": _longest(functions), "imports": dict(imports)}


def merge(parts: Iterable[Measures]) -> Measures:
    """Several measures as one; in any order and grouping the result is the same."""
    totals: Counter[str] = Counter()
    imports: Counter[str] = Counter()
    functions: list[tuple[int, str]] = []
    for part in parts:
        totals.update(part["totals"])
        imports.update(part["imports"])
        functions += [(length, where) for length, where in part["longest"]]
    return {"totals": dict(totals), "longest": _longest(functions), "imports": dict(imports)}


def report(parts: Iterable[Measures]) -> str:
    """The text for people."""
    found = merge(parts)
    lines = [f"The standard library of Python {sys.version.split()[0]}", ""]
    lines += [f"{count:>9,} {what}" for what, count in sorted(found["totals"].items())]
    lines += ["", f"The {LONGEST} longest functions (lines)"]
    lines += [f"{length:>9,} {where}" for length, where in found["longest"]]
    lines += ["", f"The {MOST_IMPORTED} most imported modules (by so many files)"]
    by_count = sorted(found["imports"].items(), key=lambda pair: (-pair[1], pair[0]))
    lines += [f"{count:>9,} {module}" for module, count in by_count[:MOST_IMPORTED]]
    return "\n".join(lines) + "\n"


def whole() -> str:
    """The report, made in one process."""
    return report(parse(name) for name in names())


def _home() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _files(name: str) -> list[Path]:
    package = _home() / name
    if not package.is_dir():
        return [package.with_suffix(".py")]
    return sorted(
        path
        for path in package.rglob("*.py")
        if LEFT_OUT.isdisjoint(path.relative_to(package).parts)
    )


def _imported(tree: ast.AST) -> set[str]:
    """The top-level modules that a file imports, each once; of its own package, none."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def _longest(functions: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    return sorted(functions, key=lambda found: (-found[0], found[1]))[:LONGEST]


def _read(paths: Iterable[str]) -> list[Measures]:
    return [json.loads(Path(path).read_text()) for path in paths]


def _write(path: str, text: str) -> None:
    # Whoever reads the result sees all of it, also when this was killed or runs twice.
    temporary = Path(f"{path}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def main(verb: str, out: str, *inputs: str) -> None:
    """One step, as a task takes it."""
    if verb == "parse":
        _write(out, json.dumps(parse(*inputs)))
    elif verb == "merge":
        _write(out, json.dumps(merge(_read(inputs))))
    elif verb == "report":
        text = report(_read(inputs))
        _write(out, text)
        sys.stdout.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
