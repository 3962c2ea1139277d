"""Writes what was measured into a page, between two comments that name a part of it."""

import re
from pathlib import Path


def put(page: Path, part: str, text: str) -> None:
    """Replace what stands between `<!-- PART -->` and `<!-- /PART -->`.

    Errors: ValueError where the page has no such part.
    """
    marks = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", re.DOTALL)
    changed, count = marks.subn(
        lambda found: f"{found[1]}{text.strip()}\n{found[2]}", page.read_text()
    )
    if count != 1:
        raise ValueError(f"{page}: it has {count} parts {part!r}, not one")
    page.write_text(changed)
