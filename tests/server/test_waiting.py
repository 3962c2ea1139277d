"""Whom a signal wakes: everybody for most topics, one after the other for work to claim."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest
from bson import ObjectId

from banyan.server import waiting
from banyan.server.calls import Context
from banyan.server.memory import Memory
from banyan.server.represent import announce
from banyan.server.store.mongo import Store, now
from banyan.server.waiting import Hub, Waiter

SOON = 5.0  # a deadline, not a pause
NEVER = 0.05  # long enough to see that nothing happens


def on_loop(test: Callable[[Hub], Awaitable[None]]) -> None:
    """Run one test on an event loop, with a hub of its own."""

    async def main() -> None:
        await test(Hub())

    asyncio.run(main())


def waiters(hub: Hub, stack: ExitStack, count: int, topic: str = "available") -> list[Waiter]:
    return [stack.enter_context(hub.subscribe([topic], hub.now())) for _ in range(count)]


def context_of(hub: Hub) -> Context:
    return Context(Store("mongodb://127.0.0.1:1/which-nobody-asks"), hub)


async def woken(all_of: list[Waiter]) -> list[int]:
    """The numbers of those who are awake, once what was signalled is delivered."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [number for number, waiter in enumerate(all_of) if waiter.woken]


def test_a_signal_wakes_all_who_wait_for_the_topic_and_nobody_else() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            ours = waiters(hub, stack, 3, "task:1")
            others = waiters(hub, stack, 1, "task:2")
            hub.signal("task:1")
            assert await asyncio.gather(*(waiter.wait(SOON) for waiter in ours)) == [True] * 3
            assert not await others[0].wait(NEVER)

    on_loop(test)


def test_a_signal_between_the_look_and_the_wait_is_not_lost() -> None:
    async def test(hub: Hub) -> None:
        looked = hub.now()
        hub.signal("task:1")
        with hub.subscribe(["task:1"], looked) as waiter:
            assert await waiter.wait(SOON)
            waiter.look()
            assert not await waiter.wait(NEVER)

    on_loop(test)


def test_what_is_not_urgent_is_heard_with_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LATER_SECONDS", 10 * NEVER)

    async def test(hub: Hub) -> None:
        with hub.subscribe(["task:1"], hub.now()) as waiter:
            hub.signal("task:1", urgent=False)
            assert not await waiter.wait(NEVER)
            hub.signal("task:1")
            assert await waiter.wait(SOON)
            waiter.look()
            assert not await waiter.wait(20 * NEVER), "both were told with that"

    on_loop(test)


def test_what_is_not_urgent_is_heard_all_the_same() -> None:
    async def test(hub: Hub) -> None:
        looked = hub.now()
        hub.signal("task:1", urgent=False)
        with hub.subscribe(["task:1"], looked) as waiter:
            assert waiter.woken, "it came between the look and the wait"
            waiter.look()
            hub.signal("task:1", urgent=False)
            assert await waiter.wait(SOON)

    on_loop(test)


def test_a_signal_from_another_thread_wakes_at_once() -> None:
    async def test(hub: Hub) -> None:
        with hub.subscribe(["task:1"], hub.now()) as waiter:
            threading.Thread(target=hub.signal, args=["task:1"]).start()
            assert await waiter.wait(SOON)

    on_loop(test)


def test_time_runs_out() -> None:
    async def test(hub: Hub) -> None:
        began = time.monotonic()
        assert not await hub.wait(["task:1"], NEVER)
        assert time.monotonic() - began >= NEVER

    on_loop(test)


def test_one_signal_for_work_wakes_one_of_many() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 5)
            hub.signal("available:a")
            assert await woken(all_of) == [0]

    on_loop(test)


def test_as_many_are_woken_as_there_are_tasks() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 5)
            for name in "abc":
                hub.signal(f"available:{name}")
            assert await woken(all_of) == [0, 1, 2]

    on_loop(test)


def test_who_finds_nothing_hands_on_until_everybody_has_looked_once() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 4)
            hub.signal("available:a")
            looks = []
            while awake := await woken(all_of):
                looks += awake
                all_of[awake[0]].look()
                all_of[awake[0]].found_nothing()
            assert looks == [0, 1, 2, 3]

    on_loop(test)


def test_who_finds_something_uses_the_turn_up() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2)
            hub.signal("available:a")
            assert await woken(all_of) == [0]
            all_of[0].look()
            all_of[0].found()
            assert await woken(all_of) == []

    on_loop(test)


def test_the_turn_of_one_who_leaves_goes_on() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            with hub.subscribe(["available"], hub.now()) as first:
                all_of = waiters(hub, stack, 2)
                hub.signal("available:a")
                assert await woken([first, *all_of]) == [0]
            assert await woken(all_of) == [0]

    on_loop(test)


def test_the_turn_of_one_who_leaves_while_looking_goes_on() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            with hub.subscribe(["available"], hub.now()) as first:
                all_of = waiters(hub, stack, 1)
                hub.signal("available:a")
                await woken([first])
                first.look()
            assert await woken(all_of) == [0]

    on_loop(test)


def test_who_looked_last_is_asked_last() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 3)
            all_of[0].look()
            all_of[0].found_nothing()
            hub.signal("available:a")
            assert await woken(all_of) == [1]

    on_loop(test)


def test_a_signal_during_the_look_is_another_reason() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            [waiter] = waiters(hub, stack, 1)
            hub.signal("available:a")
            await woken([waiter])
            waiter.look()
            hub.signal("available:b")
            waiter.found_nothing()
            assert await waiter.wait(SOON)

    on_loop(test)


def test_a_turn_ends_when_the_task_is_given_away() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2)
            hub.signal("available:a")
            await woken(all_of)
            all_of[0].look()
            hub.settle("a")  # another process was faster
            all_of[0].found_nothing()
            assert await woken(all_of) == []
            hub.signal("available:a")  # it came back
            assert await woken(all_of) == [1]

    on_loop(test)


def test_a_turn_that_took_another_task_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SETTLE_SECONDS", 0.01)

    async def test(hub: Hub) -> None:
        hub.watched = True
        with ExitStack() as stack:
            first, second, third = all_of = waiters(hub, stack, 3)
            hub.signal("available:a")
            hub.signal("available:b")
            assert await woken(all_of) == [0, 1]
            first.look()
            hub.settle("b")  # with its turn for `a` it took `b`
            first.found()
            second.look()
            second.found_nothing()  # its turn for `b` has come to an end
            assert await third.wait(SOON)
            third.look()
            hub.settle("a")
            third.found()
            assert not await first.wait(NEVER)
            assert await woken(all_of) == []

    on_loop(test)


def test_what_was_said_here_is_not_said_again_by_the_watcher() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 3)
            hub.watched = True
            hub.signal("available:a")
            hub.signal("available:a", observed=True, echo=True)
            assert await woken(all_of) == [0]
            hub.signal("available:a", observed=True)  # of another process
            assert await woken(all_of) == [0, 1]

    on_loop(test)


def test_a_signal_without_a_subject_is_left_to_the_watcher_while_there_is_one() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2)
            hub.watched = True
            hub.signal("available")
            assert await woken(all_of) == []
            hub.watched = False
            hub.signal("available")
            assert await woken(all_of) == [0]

    on_loop(test)


def test_after_a_gap_everybody_looks() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2) + waiters(hub, stack, 1, "task:1")
            hub.signal_everybody()
            assert await woken(all_of) == [0, 1, 2]

    on_loop(test)


def test_a_gap_between_the_look_and_the_wait_is_not_lost() -> None:
    async def test(hub: Hub) -> None:
        looked = hub.now()
        hub.signal_everybody()
        with hub.subscribe(["task:1"], looked) as waiter:
            assert await waiter.wait(SOON)

    on_loop(test)


def test_at_the_end_nobody_waits() -> None:
    async def test(hub: Hub) -> None:
        with hub.subscribe(["task:1"], hub.now()) as waiter:
            waiting = asyncio.create_task(waiter.wait(SOON))
            await asyncio.sleep(0)
            hub.end()
            assert not await asyncio.wait_for(waiting, 1)
        with hub.subscribe(["task:1"], hub.now()) as late:
            assert not await asyncio.wait_for(late.wait(SOON), 1)

    on_loop(test)


def test_the_hub_counts_who_waits() -> None:
    async def test(hub: Hub) -> None:
        assert not hub.wanted.is_set()
        with hub.subscribe(["task:1", "tasks"], hub.now()):
            assert hub.waiting == 1
            assert hub.wanted.is_set()
        assert hub.waiting == 0

    on_loop(test)


def test_what_the_memory_forgets_counts_as_signalled() -> None:
    async def test(hub: Hub) -> None:
        hub._signalled = Memory(entries_max=2)
        looked = hub.now()
        for topic in ("task:1", "task:2", "task:3"):
            hub.signal(topic)
        with hub.subscribe(["task:1"], looked) as waiter:
            assert await waiter.wait(SOON)

    on_loop(test)


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    memory = Memory(entries_max=2)
    for moment, name in enumerate("abac", start=1):
        memory[name] = moment
    assert (memory["a"], memory["b"], memory["c"], memory.forgotten) == (3, 0, 4, 2)


def test_a_turn_ends_when_this_process_gives_the_task_away() -> None:
    async def test(hub: Hub) -> None:
        task = ObjectId()
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2)
            announce(context_of(hub), [{"_id": task, "state": "available"}])
            await woken(all_of)
            all_of[0].look()
            announce(context_of(hub), [{"_id": task, "state": "running"}])  # to who did not wait
            all_of[0].found_nothing()
            assert await woken(all_of) == []

    on_loop(test)


def test_what_comes_back_after_it_was_taken_is_not_taken_for_an_echo() -> None:
    async def test(hub: Hub) -> None:
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2)
            hub.watched = True
            hub.signal("available:a")
            hub.settle("a")
            hub.signal("available:a", observed=True, echo=True)  # its delay is over, say
            assert await woken(all_of) == [0]

    on_loop(test)


def test_what_may_only_be_claimed_later_wakes_nobody() -> None:
    async def test(hub: Hub) -> None:
        later = now() + timedelta(minutes=1)
        with ExitStack() as stack:
            all_of = waiters(hub, stack, 2)
            delayed = {"_id": ObjectId(), "state": "available", "wake_at": later}
            announce(context_of(hub), [delayed])
            assert await woken(all_of) == []
            announce(context_of(hub), [{**delayed, "wake_at": now()}])  # it is still marked
            assert await woken(all_of) == []
            announce(context_of(hub), [{**delayed, "wake_at": None}])
            assert await woken(all_of) == [0]

    on_loop(test)
