"""What is to be told of the attempts: output as it comes, and the ends, gathered into batches.

Filled by the loop, emptied by the courier's thread; the condition that both share guards it.
It must never let the end of an attempt go before all of its output.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from banyan.worker.mailbox import AttemptLost, Mailbox, Reported, Shipped
from banyan.worker.output import Reader, as_json
from banyan.worker.progress import ProgressLines
from banyan.worker.samples import Samples
from banyan.worker.spool import STDOUT, Chunk
from banyan.worker.timers import now

ITEMS_MAX = 500
_AGAIN_SECONDS = 1.0  # after output could not be read
_OUTPUT_BYTES_MAX = 4 << 20  # of one report, so that its body stays below the server's bound
_CHUNKS_MAX = 1000  # of one report: each costs the server as much as a few KiB
# An attempt may always have so much of a report: the others' output waits for the next one.
_SHARE_BYTES = _OUTPUT_BYTES_MAX // 16
_SHARE_CHUNKS = _CHUNKS_MAX // 16
# An end with no more output than this goes before the output of all others, which has at least a
# quarter of each report.
_QUICK_BYTES = 1 << 16
_QUICK_PART = 0.75
_PROGRESS_SECONDS = 1.0  # from one report of an attempt's progress to the next
_ONCE_MORE = {"conflict", "unavailable", "internal"}
# What the server has so often failed to take is told with less, see `Told.less`: an end that is
# told by halves is better than a task that seems to run for ever. Output is given up last, after
# a minute: a server that fails at everything may be mended by then.
_TRIES_BEFORE_LESS = (4, 8)
_TRIES_MAX = 10  # of a worker that is about to end
# The first, and the longest; each is twice the one before.
_PAUSES_SECONDS = {"internal": (0.5, 60.0), "unavailable": (0.1, 5.0), "conflict": (0.02, 1.0)}
_LEAVING_PAUSE_SECONDS = 1.0
# Refusals of what is said, not of who says it.
_OF_WHAT_IS_SAID = {"bad_request", "too_large", "invalid"}
# With less, and with least.
_END_FIELDS = (
    ("exit_status", "time_terminated", "time_started", "cpu_seconds", "peak_memory_bytes"),
    ("exit_status", "time_terminated"),
)

_REMOVED = "output lost: somebody has removed its file from the worker's state directory"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Told:
    """One attempt: what there is to tell of it."""

    task: str
    token: str
    reader: Reader
    end: Mapping[str, Any] | None = None  # as `endings.end_of` says it
    looked_at: int = 0  # offset in the output up to which `lines` has seen it
    samples: Samples = field(default_factory=Samples)
    lines: ProgressLines = field(default_factory=ProgressLines)
    progress: Mapping[str, Any] | None = None  # as it was reported last
    progress_after: float = 0.0  # not reported again before (seconds since boot)
    alone: bool = False  # it may be at fault that reports fail
    tries: int = 0  # that failed
    refused: int = 0  # of these, because of what was said
    aside_until: float = 0.0  # seconds since boot

    @property
    def less(self) -> int:
        """0: all is told; 1: without progress, samples and reason; 2: nor output, the bare end."""
        return sum(self.refused >= tries for tries in _TRIES_BEFORE_LESS)

    def look(self, chunk: Chunk) -> None:
        """Looks for progress in output, once, however often it is sent."""
        if chunk.offset >= self.looked_at:
            self.looked_at = chunk.offset + len(chunk.data)
            if chunk.stream == STDOUT:
                self.lines.feed(chunk.data)


@dataclass(slots=True)
class Part:
    """What one report says of one attempt."""

    attempt: str
    item: dict[str, Any]
    last_chunk: Chunk | None
    ends: bool
    progress: Mapping[str, Any] | None
    more: bool  # there was more output than went into it
    samples_end: int  # as `Samples.end` says it


@dataclass(slots=True)
class Batch:
    """One report."""

    parts: list[Part] = field(default_factory=list)
    output_bytes: int = 0
    chunks: int = 0

    def has_room(self, part: float) -> bool:
        """Whether it is not filled up to this part of what it may hold."""
        return (
            len(self.parts) < part * ITEMS_MAX
            and self.output_bytes < part * _OUTPUT_BYTES_MAX
            and self.chunks < part * _CHUNKS_MAX
        )


class Reports:
    """The attempts that are followed."""

    def __init__(self, changed: threading.Condition, mailbox: Mailbox) -> None:
        """`changed` is notified when there is news; results go to the mailbox."""
        self.patient = False  # news may wait until there is more of it
        self.leaving = False  # what is not taken soon is given up
        self._changed = changed
        self._mailbox = mailbox
        self._told: dict[str, Told] = {}
        self._news: dict[str, None] = {}  # in the order in which they came
        self._later: dict[str, float] = {}  # of these, progress is held back until then

    # --- from the loop ---------------------------------------------------------------

    def follow(self, attempt: str, task: str, token: str, reader: Reader) -> None:
        """An attempt of which there will be something to tell."""
        with self._changed:
            self._told[attempt] = Told(task, token, reader)

    def output(self, attempt: str) -> None:
        """There is more output."""
        with self._changed:
            self._note(attempt)

    def sample(self, attempt: str, sample: Mapping[str, Any]) -> None:
        """There is a sample of what it uses."""
        with self._changed:
            told = self._told.get(attempt)
            if told and told.end is None:  # it comes late from a GPU that was slow to answer
                told.samples.add(sample)
                self._note(attempt)

    def ended(self, attempt: str, end: Mapping[str, Any], inline: str | None, size: int) -> None:
        """It has ended; `inline` and `size` as `Reader.complete` wants them."""
        with self._changed:
            if told := self._told.get(attempt):
                told.end = end
                told.reader.complete(inline, size)
                self._note(attempt)

    def drop(self, attempt: str) -> None:
        """Nothing more is to be told of it."""
        with self._changed:
            self._told.pop(attempt, None)
            self._news.pop(attempt, None)
            self._later.pop(attempt, None)

    def leave(self) -> None:
        """What was put aside is tried again soon."""
        self.leaving = True
        soon = now() + _LEAVING_PAUSE_SECONDS
        for attempt, told in self._told.items():
            told.aside_until = min(told.aside_until, soon)
            if attempt in self._later:
                self._later[attempt] = min(self._later[attempt], soon)

    def _note(self, attempt: str) -> None:
        told = self._told.get(attempt)
        if told and told.aside_until > now():
            self._later[attempt] = told.aside_until
        elif told:
            self._news[attempt] = None
            if not self.patient or len(self._news) in (1, ITEMS_MAX // 2):
                self._changed.notify()

    # --- from the courier ------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many attempts there is news of; to be asked again in `seconds_to_next`."""
        for attempt in [one for one, when in self._later.items() if when <= now()]:
            del self._later[attempt]
            self._news[attempt] = None
        return len(self._news)

    @property
    def seconds_to_next(self) -> float | None:
        """When what is held back now will be news."""
        return max(min(self._later.values()) - now(), 0) if self._later else None

    def gather(self) -> Batch:
        """What is new, as far as it goes into one report: first the ends that are told quickly.

        Else who says much, a byte at a time, would keep others' ends waiting.
        """
        batch = Batch()
        with self._changed:
            first = next(iter(self._news), None)
            if first is not None and self._told[first].alone:
                self._take(batch, first, 1)
                return batch
            quick, others = list[str](), list[str]()
            for attempt in self._news:
                (quick if self._is_quick(self._told[attempt]) else others).append(attempt)
            for attempts, part in ((quick, _QUICK_PART), (others, 1.0), (quick, 1.0)):
                self._fill(batch, attempts, part, len(others) or 1)
        return batch

    def _fill(self, batch: Batch, attempts: list[str], part: float, sharers: int) -> None:
        for attempt in attempts:
            if not batch.has_room(part):
                break
            if attempt in self._news and not self._told[attempt].alone:
                self._take(batch, attempt, sharers)

    @staticmethod
    def _is_quick(told: Told) -> bool:
        try:
            return told.end is not None and told.reader.left <= _QUICK_BYTES
        except OSError:
            return False

    def _take(self, batch: Batch, attempt: str, sharers: int) -> None:
        """sharers: among how many the room for output is divided."""
        del self._news[attempt]
        try:
            self._add(batch, attempt, self._told[attempt], sharers)
        except OSError as error:  # out of file descriptors, say
            _log.warning("output cannot be read for now: %s", error)
            self._later[attempt] = now() + _AGAIN_SECONDS

    def _add(self, batch: Batch, attempt: str, told: Told, sharers: int) -> None:
        less = told.less if told.end is not None else 0
        chunks, more = list[Chunk](), False
        if less < len(_END_FIELDS):
            bytes_max = max(_SHARE_BYTES, _OUTPUT_BYTES_MAX // sharers)
            chunks_max = max(_SHARE_CHUNKS, _CHUNKS_MAX // sharers)
            chunks, more = told.reader.read(
                min(bytes_max, _OUTPUT_BYTES_MAX - batch.output_bytes),
                min(chunks_max, _CHUNKS_MAX - batch.chunks),
            )
        samples = told.samples.as_report() if not less else {}
        data: dict[str, Any] = {"token": told.token, **samples}
        item: dict[str, Any] = {"_id": told.task, "update_execution_data": data}
        ends = told.end is not None and not more
        for chunk in chunks:
            told.look(chunk)
        if ends and told.end is not None:
            self._look_for_loss(attempt, told, told.end)
            item["state"] = told.end["state"]
            names = _END_FIELDS[less - 1] if less else told.end.keys() - {"state"}
            data.update({k: v for k, v in told.end.items() if k in names and v is not None})
        if chunks:
            batch.output_bytes += sum(len(chunk.data) for chunk in chunks)
            batch.chunks += len(chunks)
            data["log"] = [as_json(chunk) for chunk in chunks]
        progress = self._progress_of(attempt, told, ends)
        if progress and not less:
            item["progress"] = progress
        if chunks or ends or progress or samples:
            last = chunks[-1] if chunks else None
            end = told.samples.end
            batch.parts.append(Part(attempt, item, last, ends, progress, more, end))

    @staticmethod
    def _look_for_loss(attempt: str, told: Told, end: Mapping[str, Any]) -> None:
        """Tells, where the file of the output was removed before all of it was read."""
        if told.reader.is_lost and _REMOVED not in (end.get("reason") or ""):
            reasons = [each for each in (end.get("reason"), _REMOVED) if each]
            told.end = {**end, "reason": "; ".join(reasons)}
            said = "the end of the output of attempt %s is lost: somebody has removed its file"
            _log.error(said, attempt)

    def _progress_of(self, attempt: str, told: Told, ends: bool) -> Mapping[str, Any] | None:
        """What is to be said of it now; at the end also what was held back."""
        if ends:
            told.lines.finish()
        if told.lines.value == told.progress:
            return None
        if not ends and now() < told.progress_after:
            self._later[attempt] = told.progress_after
            return None
        told.progress_after = now() + _PROGRESS_SECONDS
        return told.lines.value

    def settle(self, parts: list[Part], results: list[dict[str, Any]]) -> None:
        """What the server said to each part of a report; results in the same order."""
        ended: list[str] = []
        for part, result in zip(parts, results, strict=True):
            error = result.get("_error")
            if error and error["word"] in _ONCE_MORE:
                self.put_aside(part, error["word"])
                continue
            if error and part.ends and self._is_told_with_less(part, error["word"]):
                continue
            if error:
                self._refused(part, error)
            self._delivered(part)
            if part.ends:
                self.drop(part.attempt)
                ended.append(part.attempt)
        if ended:
            self._mailbox.put(Reported(ended))

    def tell_again(self, parts: list[Part], alone: bool) -> None:
        """They have not arrived. alone: each is to go by itself, until one has arrived."""
        with self._changed:
            for part in parts:
                if told := self._told.get(part.attempt):
                    told.alone = told.alone or alone
                    self._note(part.attempt)

    def put_aside(self, part: Part, word: str) -> None:
        """What was said of this attempt alone has failed: it waits, longer each time."""
        with self._changed:
            told = self._told.get(part.attempt)
            if told is None:
                return
            told.tries += 1
            if word == "internal":
                told.alone = True
                told.refused += 1
                if told.refused in _TRIES_BEFORE_LESS:
                    _log.warning("the server fails at attempt %s: it is told less", part.attempt)
            if self.leaving and told.end and told.refused >= _TRIES_MAX:
                _log.error("the end of attempt %s is given up: the server fails", part.attempt)
                self.drop(part.attempt)
                self._mailbox.put(Reported([part.attempt]))
                return
            first, longest = _PAUSES_SECONDS[word]
            longest = _LEAVING_PAUSE_SECONDS if self.leaving else longest
            pause = min(first * 2.0 ** min(told.tries - 1, 10), longest)
            told.aside_until = now() + pause
            self._news.pop(part.attempt, None)
            self._note(part.attempt)

    def _is_told_with_less(self, part: Part, word: str) -> bool:
        """Whether an end that was refused for what it says is told once more, with less."""
        with self._changed:
            told = self._told.get(part.attempt)
            if told is None or word not in _OF_WHAT_IS_SAID or told.less == len(_TRIES_BEFORE_LESS):
                return False
            told.refused = _TRIES_BEFORE_LESS[told.less]
            _log.warning("the end of attempt %s was refused, and is told with less", part.attempt)
            self._note(part.attempt)
            return True

    def _delivered(self, part: Part) -> None:
        """Also of what was refused: to say it again would change nothing."""
        with self._changed:
            told = self._told.get(part.attempt)
            if told is not None:
                told.alone, told.tries, told.refused, told.aside_until = False, 0, 0, 0.0
                told.samples.delivered(part.samples_end)
                told.progress = part.progress or told.progress
            if told is None or part.last_chunk is None:
                return
            told.reader.delivered(part.last_chunk)
            place = told.reader.position, told.reader.offset
            if part.more:
                self._note(part.attempt)
        if not part.ends:
            self._mailbox.put(Shipped(part.attempt, *place))

    def _refused(self, part: Part, error: Mapping[str, Any]) -> None:
        if error["word"] != "lease_lost":
            _log.warning("the report on attempt %s was refused: %s", part.attempt, error)
        elif not part.ends:
            self.drop(part.attempt)
            self._mailbox.put(AttemptLost(part.attempt))
