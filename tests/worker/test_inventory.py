"""What the machine has, as limits of containers and its owner see it."""

import os
from pathlib import Path

import pytest

from banyan.domain.resources import normalise_capacity
from banyan.worker import gpus, inventory
from banyan.worker.options import Options

GIB = 1 << 30


def cgroups(tmp_path: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mounts.replace("SYS", str(tmp_path / "sys")))
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc


V2 = "31 23 0:28 / SYS rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
V1 = (
    "32 31 0:29 / SYS/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / SYS/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / SYS/unified rw,relatime - cgroup2 cgroup2 rw\n"
)


def test_limits_of_cgroups_version_2_count_at_every_level(tmp_path: Path):
    files = {
        "slice/memory.max": "1073741824\n",
        "slice/unit/memory.max": "max\n",
        "slice/cpu.max": "max 100000\n",
        "slice/unit/cpu.max": "50000 100000\n",
    }
    proc = cgroups(tmp_path, "0::/slice/unit\n", V2, files)
    assert inventory.memory_bytes(proc) == 1 << 30
    assert inventory.cores(proc) == 0.5


def test_limits_of_cgroups_version_1_count(tmp_path: Path):
    files = {
        "memory/job/memory.limit_in_bytes": "536870912\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/job/cpu.cfs_quota_us": "25000\n",
        "cpu/job/cpu.cfs_period_us": "100000\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
    }
    cgroup = "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n"
    proc = cgroups(tmp_path, cgroup, V1, files)
    assert inventory.memory_bytes(proc) == 1 << 29
    assert inventory.cores(proc) == 0.25


def test_a_container_that_does_not_see_its_own_cgroup_looks_at_the_mount(tmp_path: Path):
    mounts = V2.replace(" / SYS", " /docker/abc SYS")
    proc = cgroups(tmp_path, "0::/docker/abc\n", mounts, {"memory.max": "1048576\n"})
    assert inventory.memory_bytes(proc) == 1 << 20


def test_without_limits_it_is_the_machine(tmp_path: Path):
    proc = cgroups(tmp_path, "0::/\n", V2, {})
    assert inventory.cores(proc) == len(os.sched_getaffinity(0))
    assert inventory.memory_bytes(proc) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert inventory.memory_bytes(tmp_path / "nowhere") == inventory.memory_bytes(proc)


def test_the_owner_may_say_what_there_is(tmp_path: Path):
    options = Options("http://x", tmp_path, cores=1.5, memory_bytes=GIB, gpu_count=2, disk_bytes=9)
    found = normalise_capacity(inventory.resources(options))
    assert (found["cores"], found["memory"], found["disk"]) == (1.5, GIB, 9)
    assert len(found["gpus"]) == 2  # type: ignore[arg-type]


def test_more_than_there_is_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    given = {"gpu_count": 0, "memory_enforcement": "none"}
    options = Options("http://x", tmp_path, cores=9999, memory_bytes=1 << 60, **given)  # type: ignore[arg-type]
    inventory.resources(options)
    assert "--cores 9999 are more than" in caplog.text
    assert "--memory 1024 PiB is more than" in caplog.text
    caplog.clear()
    inventory.resources(Options("http://x", tmp_path, cores=0.1, memory_bytes=1, **given))  # type: ignore[arg-type]
    assert caplog.text == ""


@pytest.mark.parametrize(("count", "warned"), [(None, True), (0, False), (1, False)])
def test_gpus_that_cannot_be_counted_are_not_passed_over_in_silence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    count: int | None,
    warned: bool,
):
    monkeypatch.setattr(inventory, "_NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr(gpus, "found", list)
    inventory.resources(Options("http://x", tmp_path, gpu_count=count, memory_enforcement="none"))
    assert ("NVIDIA driver" in caplog.text) == warned
