"""Claims that are held: whoever holds very many of them makes nobody else wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from banyan.server import waiting as hub_module
from banyan.server.turns import Claimant
from banyan.server.waiting import Hub, Waiter
from tests.contract.playing import RESOURCES, Item
from tests.harness import Server, eventually

MANY = 1000
SOON = 5.0  # a deadline, not a pause


def on_loop(test: Callable[[Hub, ExitStack], Awaitable[None]]) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            await test(Hub(), stack)

    asyncio.run(main())


def waiting(hub: Hub, stack: ExitStack, claimants: Sequence[Claimant]) -> list[Waiter]:
    return [stack.enter_context(hub.subscribe(["available"], hub.now(), one)) for one in claimants]


async def looks(waiters: Sequence[Waiter], wanted: Sequence[Waiter]) -> int:
    """How many look, one after the other and in vain, until all these have had a turn."""
    count = 0
    while not all(one.woken for one in wanted):
        await asyncio.sleep(0)
        awake = [one for one in waiters if one.woken]
        assert awake or not count, "the turn was lost"
        for one in awake:
            one.look()
            one.found_nothing()
            count += 1
    return count


def others(count: int, account: str = "mallory", wishes: int = MANY) -> list[Claimant]:
    """Claimants of one account: each a worker of its own, with so many different wishes."""
    return [Claimant(account, f"w{n}", f"wish{n % wishes}") for n in range(count)]


@pytest.mark.parametrize("wishes", [1, MANY])
def test_one_account_delays_the_next_by_one_look(wishes: int):
    async def test(hub: Hub, stack: ExitStack) -> None:
        hostile = waiting(hub, stack, others(MANY, wishes=wishes))
        ours = waiting(hub, stack, [Claimant("ours", "w", "wish")])
        hub.signal("available:a")
        assert await looks(hostile, ours) == 1

    on_loop(test)


@pytest.mark.parametrize("begun", [False, True])
def test_who_does_not_come_to_look_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, begun: bool
):
    """The threads of its account may be busy for as long as it likes: others look meanwhile."""
    monkeypatch.setattr(hub_module, "TURN_SECONDS", 0.01)

    async def test(hub: Hub, stack: ExitStack) -> None:
        first, *_ = waiting(hub, stack, others(MANY))
        (ours,) = waiting(hub, stack, [Claimant("ours", "w", "wish")])
        hub.signal("available:a")
        for _ in range(3):
            await asyncio.sleep(0)
        assert first.woken
        assert not ours.woken
        if begun:
            first.look()
        assert await ours.wait(SOON)
        ours.look()
        ours.found()

    on_loop(test)


def test_it_is_not_always_the_same_account_that_is_first():
    async def test(hub: Hub, stack: ExitStack) -> None:
        hostile = waiting(hub, stack, others(2))
        ours = waiting(hub, stack, others(2, "ours"))
        for first in (hostile[0], ours[0], hostile[1]):
            hub.signal("available:a")
            for _ in range(3):
                await asyncio.sleep(0)
            assert [one for one in (*hostile, *ours) if one.woken] == [first]
            first.look()
            first.found()

    on_loop(test)


def test_so_it_is_with_several_tasks_at_once():
    async def test(hub: Hub, stack: ExitStack) -> None:
        hostile = waiting(hub, stack, others(MANY))
        ours = waiting(hub, stack, others(5, "ours"))
        for name in range(10):
            hub.signal(f"available:{name}")
        for _ in range(3):
            await asyncio.sleep(0)
        assert all(one.woken for one in ours)
        assert sum(one.woken for one in hostile) == 5

    on_loop(test)


def test_where_one_finds_nothing_its_like_is_not_asked():
    """Of the same account: another may have claimed something before by the name of its claim."""

    async def test(hub: Hub, stack: ExitStack) -> None:
        alike = waiting(hub, stack, others(MANY, "ours", wishes=1))
        able = waiting(hub, stack, [Claimant("ours", "able", "another")])
        hub.signal("available:a")
        assert await looks(alike, able) == 1

    on_loop(test)


def test_what_an_account_refuses_another_of_the_same_wish_is_asked_for():
    async def test(hub: Hub, stack: ExitStack) -> None:
        hostile = waiting(hub, stack, others(MANY, wishes=1))
        ours = waiting(hub, stack, others(1, "ours", wishes=1))
        hub.signal("available:a")
        assert await looks(hostile, ours) == 1

    on_loop(test)


def test_the_next_task_is_offered_to_all_again():
    async def test(hub: Hub, stack: ExitStack) -> None:
        (ours,) = waiting(hub, stack, others(1, "ours"))
        for name in "ab":
            hub.signal(f"available:{name}")
            for _ in range(3):
                await asyncio.sleep(0)
            assert ours.woken
            ours.look()
            ours.found_nothing()

    on_loop(test)


def test_a_newer_claim_of_a_worker_ends_the_one_before():
    async def test(hub: Hub, stack: ExitStack) -> None:
        mine = [Claimant("ours", "w", f"wish{n}") for n in range(MANY)]
        *before, last = waiting(hub, stack, mine)
        assert all(one.cancelled for one in before)
        assert not last.cancelled

    on_loop(test)


def test_nobody_ends_the_claim_of_another_account():
    async def test(hub: Hub, stack: ExitStack) -> None:
        (ours,) = waiting(hub, stack, [Claimant("ours", "w", "wish")])
        waiting(hub, stack, [Claimant("mallory", "w", "wish")])
        assert not ours.cancelled

    on_loop(test)


def test_it_is_answered_and_the_newer_one_gets_the_task(server: Server):
    body = {"host": "h", "resources": RESOURCES, "queues": ["held"]}
    worker = server.worker.post("workers", body).json()["_id"]

    def claim() -> list[Item]:
        answer = server.worker.post("tasks/claim", {"worker": worker}, wait=30)
        assert answer.status_code == 200, answer.text
        assert "Banyan-Wait-As" not in answer.headers
        items: list[Item] = answer.json()["_items"]
        return items

    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(claim) for _ in range(4)]
        eventually(lambda: sum(one.done() for one in claims) == 3)
        assert all(one.result() == [] for one in claims if one.done())
        (last,) = (one for one in claims if not one.done())
        task = {"command": "x", "queue": "held", "state": "available"}
        made = server.provider.post("tasks", task).json()
        assert [one["_id"] for one in last.result(20)] == [made["_id"]]
