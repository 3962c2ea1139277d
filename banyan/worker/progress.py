"""`::progress 40/100 epoch 4` on a line of a task's output: how far it is, said without a client.

The reports feed it with the output that they send on anyway. It must never hold back a byte of
that output, nor make anything of it that the server would refuse.
"""

import re
from typing import Any

_MARK = b"\n::progress "
_LINE_BYTES_MAX = 1024
_MESSAGE_LENGTH_MAX = 256
_LOOK_BACK = 8  # marked lines that say nothing readable
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SAID = re.compile(rf"({_NUMBER})(?: ?/ ?({_NUMBER}))?(?:\s+(.*))?", re.DOTALL)


class ProgressLines:
    """The lines of one attempt's standard output, as far as they matter here."""

    def __init__(self) -> None:
        self.value: dict[str, Any] | None = None  # what was said last
        self._tail = b"\n"  # of a line that has begun, while it may still become one

    def feed(self, data: bytes) -> None:
        """The next piece of the output, cut anywhere."""
        text = self._tail + data
        end = text.rfind(b"\n")
        if end < 0:
            self._tail = text if self._may_become(text) else b""
            return
        self._look(text, end)
        self._tail = text[end:] if self._may_become(text[end:]) else b""

    def finish(self) -> None:
        """The output has ended: so has its last line."""
        self.feed(b"\n")

    def _look(self, text: bytes, end: int) -> None:
        for _ in range(_LOOK_BACK):
            start = text.rfind(_MARK, 0, end)
            if start < 0:
                return
            line = text[start + len(_MARK) : text.index(b"\n", start + 1)]
            if value := _read(line):
                self.value = value
                return
            end = start + 1

    @staticmethod
    def _may_become(line: bytes) -> bool:
        return _MARK.startswith(line[: len(_MARK)]) and len(line) <= _LINE_BYTES_MAX


def _read(line: bytes) -> dict[str, Any] | None:
    said = _SAID.fullmatch(line[:_LINE_BYTES_MAX].decode(errors="replace").strip())
    if said is None:
        return None
    value: dict[str, Any] = {"done": _number(said[1])}
    if said[2]:
        value["total"] = _number(said[2])
    if said[3]:
        value["message"] = said[3][:_MESSAGE_LENGTH_MAX]
    return value


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
