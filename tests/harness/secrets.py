"""Whether a secret stands in any log: canaries and tokens, looked for in all that was written."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

ATTEMPT_TOKEN = re.compile(rb"att_[0-9a-f]{24}_[A-Za-z0-9_-]{16,}")
_AROUND = 60


def leaks(files: Iterable[Path], secrets: Collection[str]) -> list[str]:
    """Each file and what stands around the secret in it, with the secret left out."""
    wanted = re.compile(b"|".join(re.escape(one.encode()) for one in secrets))
    found = []
    for path in files:
        data = path.read_bytes()
        for match in [*wanted.finditer(data), *ATTEMPT_TOKEN.finditer(data)][:3]:
            before = data[max(0, match.start() - _AROUND) : match.start()]
            found.append(f"{path}: {before.decode(errors='replace')}***")
    return found
