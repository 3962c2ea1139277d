"""Takes out of a task's output what would act on a terminal instead of being shown.

Colours stay; titles, clipboards, cursor movements and queries that make a terminal type go.
Called by what prints output to a terminal.
"""

import re

# A control sequence may be cut by the end of a piece: what might still become one is kept
# back, up to this length.
_LONGEST_SEQUENCE_BYTES = 4096

_UNSAFE = re.compile(
    rb"(?P<colour>\x1b\[[0-9;:]*m)"
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: cursor, modes, queries
    rb"|\x1b[P\]X^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS and their like, with their text
    rb"|\x1b[ -/]*[0-~]"  # other escapes
    # The same controls as one character. Alone its first byte goes too: with what follows
    # after something that is taken out it would become one.
    rb"|\xc2(?![\xa0-\xbf])[\x80-\x9f]?"
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
_UNFINISHED = re.compile(rb"(?:\x1b(?:\[[0-?]*[ -/]*|[P\]X^_][^\x07\x1b]*\x1b?|[ -/]*)|\xc2)\Z")


class Cleaner:
    """One stream of output, cleaned piece by piece."""

    def __init__(self) -> None:
        self._kept = b""
        self._coloured = False

    def feed(self, piece: bytes) -> bytes:
        """What of it may be shown now."""
        data = self._kept + piece
        unfinished = _UNFINISHED.search(data, max(0, len(data) - _LONGEST_SEQUENCE_BYTES))
        end = unfinished.start() if unfinished else len(data)
        self._kept = data[end:]
        shown = _UNSAFE.sub(lambda found: found["colour"] or b"", data[:end])
        self._coloured = self._coloured or b"\x1b" in shown
        return shown

    def rest(self) -> bytes:
        """What is owed at the end: a colour that was left on ends; half a sequence is dropped."""
        self._kept = b""
        return b"\x1b[0m" if self._coloured else b""
