"""What `make bench` writes beside its figures: the machine, and nothing that names its owner."""

from __future__ import annotations

from typing import Any

from engine.lab.contest.machine import describe


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(describe())


def pytest_benchmark_update_commit_info(config: Any, commit_info: dict[str, Any]) -> None:
    """Which sources, not in whose directory or on which branch."""
    for name in ("project", "branch", "author_time"):
        commit_info.pop(name, None)


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Without the times of single rounds, which are a thousand times the rest; minimum, quartiles and median stay."""
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)
