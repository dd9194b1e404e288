"""The cores that a worker may use, by what the kernel says of its control groups."""

import os
from pathlib import Path

import pytest

from worker.cores import usable_cores

BOUND = len(os.sched_getaffinity(0))


def control_groups(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    cgroups, said = folder / "cgroup", folder / "membership"
    cgroups.mkdir()
    said.write_text(membership)
    for name, content in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(content)
    return cgroups, said


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}),
        ("0::/pod/worker\n", {"pod/cpu.max": "100000 100000\n", "pod/worker/cpu.max": "max 100000\n"}),
        ("0::/pod/worker\n", {"pod/cpu.max": "max 100000\n", "pod/worker/cpu.max": "70000 100000\n"}),
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/1\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        ),
    ],
)
def test_no_more_than_the_cpu_time_that_a_container_has(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    assert usable_cores(*control_groups(tmp_path, membership, files)) == 1


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/\n", {"cpu.max": f"{100_000 * (BOUND + 1)} 100000\n"}),
        ("0::/\n", {"cpu.max": "nonsense"}),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        ("", {}),
        ("nonsense\n", {}),
    ],
)
def test_all_that_it_is_bound_to_otherwise(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    assert usable_cores(*control_groups(tmp_path, membership, files)) == BOUND


def test_where_there_are_no_control_groups(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "neither") == BOUND
