"""The pure rules, and a server, do what the contract says, whatever happens in which order.

The long search is `scripts/model`.
"""

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.harness import Server
from tests.model.machine import lives_of
from tests.model.pure import Pure
from tests.model.real import Real


def test_lives_by_the_pure_rules() -> None:
    how = settings(max_examples=100, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(lives_of(lambda: Pure(Random(0))), settings=how)


def test_lives_on_a_server(server: Server, module_database: str) -> None:
    how = settings(
        max_examples=12, stateful_step_count=20, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    machine = lives_of(lambda: Real(server, module_database), lambda system: system.close(), 10.0)
    run_state_machine_as_test(machine, settings=how)
