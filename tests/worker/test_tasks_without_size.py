"""Tasks that ask for no cores and no memory: a worker runs so many at a time, and no more."""

from itertools import accumulate
from pathlib import Path

from banyan.cli.owner import owner_options
from banyan.domain.resources import Capacity, Grant
from banyan.worker.claims import wish_for
from banyan.worker.ledger import Ledger
from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.test_owner import given

GIB = 1 << 30
NOTHING = {"cores": 0, "memory": 0}


def filled(ledger: Ledger) -> int:
    """How many attempts that ask for nothing it took."""
    count = 0
    while count < 300 and ledger.fits(Grant()):
        ledger.take(str(count), Grant())
        count += 1
    return count


def test_a_worker_holds_so_many_attempts_and_claims_no_more() -> None:
    ledger = Ledger(Capacity(2, GIB))
    assert filled(ledger) == 64
    assert wish_for(ledger.free) is None
    ledger.pass_on("0", "next")  # the launcher starts it where the other has ended
    assert not ledger.fits(Grant())
    ledger.give_back("next")
    assert ledger.fits(Grant(cores=2, memory_bytes=GIB))
    assert ledger.free == ledger.total


def test_a_larger_machine_holds_more_and_its_owner_decides() -> None:
    assert filled(Ledger(Capacity(10, GIB))) == 160
    assert filled(Ledger(Capacity(10, GIB), max_tasks=3)) == 3
    assert owner_options(given())["max_tasks"] is None
    assert owner_options(given(max_tasks=7))["max_tasks"] == 7


def test_the_others_wait_and_all_come_to_run(crew: Crew, tmp_path: Path) -> None:
    crew.worker("one", "--cores", "2", "--memory", "1 GiB", "--max-tasks", "3")
    crew.registered()
    file, go = tmp_path / "said", tmp_path / "go"
    command = f"echo 1 >>{file}; while [ ! -e {go} ]; do sleep 0.05; done; echo -1 >>{file}"
    tasks = [crew.submit(command, requested_resources=NOTHING) for _ in range(8)]
    eventually(lambda: file.exists() and file.read_text() == "1\n" * 3, 60)
    go.touch()
    for task in tasks:
        assert crew.ended(task, 60)["outcome"] == "success"
    said = [int(line) for line in file.read_text().split()]
    assert said.count(1) == len(tasks)
    assert max(accumulate(said)) == 3
