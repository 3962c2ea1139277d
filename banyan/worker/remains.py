"""How much memory earlier attempts have left, as far as there are cgroups: what others can't have.

Used by the launcher, which tells the agent: that offers so much less. Standard library only. Files
in memory outlive the processes that made them (`tmpfs`, System V shared memory, a `memfd` that
somebody else holds). Looked at once a second while anything runs, and on while something is left;
as long as tasks have no such files that is one look at all of them together.
"""

from collections.abc import Callable, Iterable

from banyan.worker.cell import Cell
from banyan.worker.cells import Cells
from banyan.worker.running import Running
from banyan.worker.timers import now
from banyan.worker.wire import Message

_LOOK_SECONDS = 1.0
_WORTH_BYTES = 16 << 20  # nobody hears of less


class Remains:
    """Of all attempts of one launcher."""

    def __init__(self, cells: Cells, tell: Callable[[Message], None]) -> None:
        """tell: hands a message to the agent, if there is one."""
        self._cells = cells
        self._tell = tell
        self._look_again = 0.0
        self._seen_bytes = 0  # at the last look
        self.told_bytes = 0

    def look(self, running: Iterable[Running]) -> bool:
        """Tells how much is left where that has changed; whether to look again if nothing runs.

        running: what these hold is theirs. What seems to be left once may only have been given
        back between one cell and the next.
        """
        whole = self._cells.whole
        if not whole:
            return False
        if now() < self._look_again:
            return True
        self._look_again = now() + _LOOK_SECONDS
        before = self._seen_bytes
        self._seen_bytes = self._left_bytes(whole, [each.cell for each in running if each.cell])
        left = min(before, self._seen_bytes)
        is_gone = left < min(_WORTH_BYTES // 2, self.told_bytes)
        if is_gone or abs(left - self.told_bytes) >= _WORTH_BYTES:
            self.told_bytes = left if left >= _WORTH_BYTES else 0
            self._tell({"is": "left", "memory_bytes": self.told_bytes})
        return max(self.told_bytes, self._seen_bytes) >= _WORTH_BYTES

    def _left_bytes(self, whole: Cell, running: list[Cell]) -> int:
        """Files in memory; where there is no room for a task, whatever is held there.

        The kernel's own memory counts only then: most of it is given up when there is need.
        """
        held = Cell.shared_bytes if self._cells.have_room() else Cell.held_bytes_now
        size = held(whole)
        return max(size - sum(map(held, running)), 0) if size >= _WORTH_BYTES else 0
