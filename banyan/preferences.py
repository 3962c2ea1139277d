"""The header `Prefer` (RFC 7240), read in one place for the server and for who asks it."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of the grammar of HTTP
# One preference, or one parameter of it. A quote that nobody closes reaches to the end.
_PIECE = re.compile(r'(?:[^,;"]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+')
# Nothing is given back: a stranger's header must cost no more than its length.
_PREFERENCE = re.compile(rf'\s*+({_TOKEN})\s*+(?:=\s*+(?:"([^"\\]*)"|({_TOKEN}))?\s*+)?')
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


@lru_cache(maxsize=256)
def preferences(header: str) -> Mapping[str, str]:
    """Name -> value, both in lower case; of a name that stands twice, the first.

    Clients write parameters of a preference where they mean another one ("respond-async;
    wait=7"), so the two are not told apart. What cannot be read is left out.
    """
    found: dict[str, str] = {}
    for piece in _PIECE.findall(header):
        read = _PREFERENCE.fullmatch(piece)
        if read:
            found.setdefault(read[1].lower(), (read[2] or read[3] or "").lower())
    return found


def prefers_minimal(header: str) -> bool:
    """`return=minimal`: no links and no echoes, please."""
    return preferences(header).get("return") == "minimal"


def wait_seconds(header: str, most: float = math.inf) -> float:
    """The seconds of `wait`, not more than `most`; 0 where there is none."""
    value = preferences(header).get("wait", "")
    return min(float(value), most) if _SECONDS.fullmatch(value) else 0.0
