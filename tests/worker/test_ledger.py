"""What is reserved and free, and what is claimed for it."""

from hypothesis import given
from hypothesis import strategies as some

from banyan.domain.resources import Capacity, Gpu, Grant
from banyan.worker.claims import wish_for
from banyan.worker.ledger import Ledger

GIB = 1 << 30


def test_what_is_taken_is_not_free_and_comes_back():
    ledger = Ledger(Capacity(4, 8 * GIB, custom={"licence": 2}))
    grant = Grant(cores=1.5, memory_bytes=GIB, custom={"licence": 1})
    ledger.take("a", grant)
    ledger.take("a", grant)  # known already: counted once
    assert (ledger.free.cores, ledger.free.memory_bytes) == (2.5, 7 * GIB)
    assert ledger.free.custom == {"licence": 1}
    assert ledger.give_back("a")
    assert not ledger.give_back("a")
    assert ledger.free == ledger.total


def test_gpus_are_chosen_by_index_the_least_that_will_do():
    small, large = Gpu(8 * GIB, (7, 5)), Gpu(80 * GIB, (9, 0))
    ledger = Ledger(Capacity(8, GIB, gpus=(large, small, small)))
    assert ledger.take("a", Grant(gpu_count=1)) == [1]
    assert ledger.take("b", Grant(gpu_count=1, gpu_memory_bytes=40 * GIB)) == [0]
    assert not ledger.fits(Grant(gpu_count=2))
    assert ledger.free.gpus == (small,)
    ledger.give_back("a")
    assert ledger.take("c", Grant(gpu_count=2)) == [1, 2]


def test_an_attempt_that_was_taken_over_keeps_its_gpus():
    ledger = Ledger(Capacity(8, GIB, gpus=(Gpu(), Gpu(), Gpu())))
    ledger.take("old", Grant(gpu_count=1), gpus=(1,))
    assert ledger.take("new", Grant(gpu_count=2)) == [0, 2]


@given(some.lists(some.tuples(some.integers(0, 9), some.floats(0, 3)), max_size=40))
def test_in_the_end_all_is_free_again(steps: list[tuple[int, float]]):
    ledger = Ledger(Capacity(8, GIB))
    for name, cores in steps:
        if not ledger.give_back(str(name)):
            ledger.take(str(name), Grant(cores=round(cores, 3)))
        assert 0 <= ledger.free.cores <= 8
    for name in range(10):
        ledger.give_back(str(name))
    assert ledger.free == ledger.total


def test_nothing_is_claimed_when_nothing_is_free():
    assert wish_for(Capacity(0, GIB)) is None
    assert wish_for(Capacity(1, 0)) is None
    wish = wish_for(Capacity(2.5, GIB, gpus=(Gpu(GIB, (8, 6)),)))
    assert wish
    assert (wish.max_count, wish.fits["cores"]) == (2, 2.5)
    assert wish.fits["gpus"] == [{"memory": GIB, "compute_capability": "8.6"}]


def test_what_earlier_attempts_have_left_is_not_free():
    ledger = Ledger(Capacity(4, 8 * GIB))
    ledger.take("a", Grant(cores=1, memory_bytes=3 * GIB))
    assert not ledger.set_left(5 * GIB)
    assert (ledger.free.cores, ledger.free.memory_bytes) == (3, 0)
    assert wish_for(ledger.free) is None
    assert ledger.set_left(6 * GIB), "the attempt was promised some of it"
    assert ledger.is_overdrawn
    kept = {"cores": 1, "memory_bytes": 9 * GIB, "gpu_count": 0}
    assert ledger.kept_by(["a", "none"]) == kept
    ledger.give_back("a")
    assert ledger.usable == ledger.free == Capacity(4, 2 * GIB)
    assert not ledger.is_overdrawn
    assert ledger.free.memory_bytes == 2 * GIB
    ledger.set_left(0)
    assert ledger.free == ledger.total
    assert ledger.kept_by([]) == {}
