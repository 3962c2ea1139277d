"""What `explain` says of GPUs that are there and are not enough."""

from typing import Any

import pytest

from banyan.domain.resources import capacity_from, normalise_capacity, normalise_request
from banyan.server.verbs import explain

GIB = 1 << 30


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        (2, "2 gpus wanted, the nearest has 1 gpu"),
        ([{"memory": "80 GiB"}], "1 gpu with 80 GiB wanted, the nearest has 0 such gpus"),
        (
            [{"memory": "8 GiB", "min_compute_capability": "10.0"}],
            "1 gpu with 8 GiB and compute capability 10.0 wanted, the nearest has 0 such gpus",
        ),
    ],
)
def test_what_a_gpu_lacks_is_said(gpus: Any, said: str):
    own = [{"memory": 40 * GIB, "compute_capability": "9.0"}]
    total = capacity_from(normalise_capacity({"cores": 4, "memory": GIB, "gpus": own}))
    task = {"requested_resources": normalise_request({"gpus": gpus})}
    assert explain._too_large(task, [total])["message"] == f"no worker has enough: {said}"
