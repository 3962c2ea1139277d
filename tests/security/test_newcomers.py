"""Who of the newcomers come from where, counted as they come and go."""

import random
import socket

from banyan.server.connections import has_arrived
from banyan.server.newcomers import Newcomers


def test_counts_of_newcomers_are_right_whatever_comes_and_goes() -> None:
    some: Newcomers[int] = Newcomers()
    expected: dict[str, list[int]] = {}
    chance = random.Random(5)
    for number in range(3000):
        network = chance.choice("abcde")
        if chance.random() < 0.5:
            some.add(network, number)
            expected.setdefault(network, []).append(number)
        elif expected.get(network):
            mine = expected[network]
            some.remove(network, mine.pop(chance.randrange(len(mine))))
        some.remove(network, -1)
        assert some.count == sum(map(len, expected.values()))
        assert len(some.of_most()) == max(map(len, expected.values()), default=0)
        assert list(some.of(network)) == expected.get(network, [])


def test_one_that_is_closed_has_said_nothing() -> None:
    """Its transport may go before it leaves, while others are looking for room."""
    with socket.socket() as closed:
        number = closed.fileno()
    assert closed.fileno() == -1
    assert not has_arrived(closed.fileno())
    assert not has_arrived(number)
