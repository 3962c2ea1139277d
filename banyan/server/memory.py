"""A bounded memory of when things last happened, for `banyan.server.waiting`."""

_ENTRIES_MAX = 10_000


class Memory:
    """Name -> the moment it was last set; 0 for what never was, or is forgotten."""

    def __init__(self, entries_max: int = _ENTRIES_MAX) -> None:
        self._entries: dict[str, int] = {}
        self._entries_max = entries_max
        self.forgotten = 0  # the latest moment of what was forgotten

    def __getitem__(self, name: str) -> int:
        return self._entries.get(name, 0)

    def __setitem__(self, name: str, moment: int) -> None:
        self._entries.pop(name, None)
        self._entries[name] = moment
        if len(self._entries) > self._entries_max:
            oldest = next(iter(self._entries))
            self.forgotten = self._entries.pop(oldest)

    def pop(self, name: str) -> int:
        """The moment, which is forgotten with that."""
        return self._entries.pop(name, 0)
