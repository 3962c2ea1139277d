"""Requests, capacities and grants for property tests to draw from."""

import math
from typing import Any

from hypothesis import strategies as st

from banyan.domain.resources import (
    Capacity,
    Gpu,
    Grant,
)

GIB = 2**30
NOTHING_ASKED = {
    "cpu_memory_bytes": 128 * 2**20,
    "cpu_cores": {"count": 1, "percent": 0},
    "gpu_count": 0,
    "gpu_memory_bytes": 0,
    "gpu_compute_capability_major": 0,
    "gpu_compute_capability_minor": 0,
    "disk_bytes": 0,
    "custom": {},
}
T4, H100, UNKNOWN = Gpu(16 * GIB, (7, 5)), Gpu(80 * GIB, (9, 0)), Gpu()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=4,
)
sizes = st.integers(0, 2**53) | st.sampled_from(["1 GiB", "1.5 kB", "0 B", "x"])
amounts = st.integers(0, 99) | st.floats(0, 99) | st.sampled_from([0.1, 1e6, -1, math.nan])
wanted_gpu = st.fixed_dictionaries(
    {}, optional={"memory": sizes, "min_compute_capability": st.sampled_from(["7.5", 9.0, "8.10"])}
)
own_gpu = st.fixed_dictionaries(
    {},
    optional={"memory": sizes, "compute_capability": st.just("7.5"), "uuid": st.text(max_size=9)},
)
custom = st.dictionaries(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), amounts, max_size=3)


def objects_of(plausible: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the known fields, mostly with plausible values, seldom with anything at all."""
    return st.fixed_dictionaries({}, optional=plausible) | st.fixed_dictionaries(
        {}, optional={name: values | anything for name, values in plausible.items()}
    )


request_objects = objects_of(
    {
        "memory": sizes,
        "cores": amounts,
        "gpus": st.integers(0, 9) | st.lists(wanted_gpu, max_size=3),
        "disk": sizes,
        "custom": custom,
    }
) | objects_of(
    {
        "cpu_memory_bytes": sizes,
        "cpu_cores": st.fixed_dictionaries({}, optional={"count": amounts, "percent": amounts}),
        "gpu_count": st.integers(0, 1024),
        "gpu_memory_bytes": sizes,
        "gpu_compute_capability_major": st.integers(0, 12),
        "disk_bytes": sizes,
        "custom": custom,
    }
)
capacity_objects = objects_of(
    {
        "cores": amounts,
        "memory": sizes,
        "gpus": st.integers(0, 9) | st.lists(own_gpu, max_size=3),
        "disk": sizes | st.none(),
        "custom": custom,
    }
)

# Amounts in tenths: what 0.1 + 0.2 does to floats is what these are for.
tenths = st.integers(0, 100).map(lambda n: n / 10)
gpus = st.lists(st.sampled_from([UNKNOWN, T4, H100]), max_size=6).map(tuple)
capacities = st.builds(
    Capacity,
    tenths,
    st.integers(0, 100),
    gpus,
    st.none() | st.integers(0, 100),
    st.dictionaries(st.sampled_from("ab"), tenths),
)
grants = st.builds(
    Grant,
    tenths,
    st.integers(0, 100),
    st.integers(0, 3),
    st.sampled_from([0, 16 * GIB, 80 * GIB]),
    st.sampled_from([(0, 0), (7, 5), (9, 0)]),
    st.integers(0, 100),
    st.dictionaries(st.sampled_from("ab"), tenths),
)
