"""The document and the tables of the end-to-end benchmarks, from samples that were never measured."""

from __future__ import annotations

import json

import pytest

from bench.e2e import report
from bench.e2e.matches import PROFILE_TITLES, SUITES, Match, _tables
from bench.e2e.workloads import WORKLOADS
from engine.lab.contest import Busy, Measurement, Sample

MACHINE = {"processor": "Z80", "cores": 1, "memory_mib": 2048, "virtual": "yes", "kernel": "6.18", "system": "-"}


def samples(name, figures, gigabits=0.0):
    return [
        Sample(name, turn, Measurement(value, gigabits, {"p99": value * 2}), Busy(1.0, 0.5, 0.1, 2.0))
        for turn, value in enumerate(figures)
    ]


@pytest.fixture
def document():
    tcp = Match(
        "overlay", "tcp-1", "TCP, 1 stream", "A", "Gb/s", "higher", {"towpath": "Towpath", "kernel-vxlan": "kernel VXLAN"},
        [*samples("towpath", [10, 12, 11], 5.0), *samples("kernel-vxlan", [20, 24, 22], 10.0)],
    )  # fmt: skip
    latency = Match("packets", "rr", "p50", "A", "us", "lower", {"towpath": "Towpath"}, samples("towpath", [50]))
    return report.document(
        [tcp, latency],
        date="2026-01-01",
        machine=MACHINE,
        versions={"towpath": "1.2.3"},
        settings={"pairs": 3, "seconds": 2.0},
        unavailable={"nebula": "its compiler is missing"},
        command="python -m bench.e2e",
    )


def test_the_document_survives_json_with_every_sample(document):
    again = json.loads(json.dumps(document))
    assert again == document
    assert [len(match["samples"]) for match in again["matches"]] == [6, 1]
    assert report.series(again["matches"][0], "kernel-vxlan") == [20, 24, 22]
    assert report.series(again["matches"][1], "towpath", "p99") == [100]


def test_figures_follow_from_the_samples(document):
    tcp, latency = document["matches"]
    assert report.ours(tcp) == "towpath"
    assert report.ratio_to(tcp, "kernel-vxlan").median == 0.5
    assert report.processor_per_gigabit(tcp, "towpath") == pytest.approx(0.1)
    assert report.processor_per_gigabit(tcp, "kernel-vxlan") == pytest.approx(0.05)
    assert report.processor_per_gigabit(latency, "towpath") is None
    assert report.foreign_load(document) == 2.0


def test_the_table_says_what_was_measured_and_what_was_not(document):
    text = report.markdown(document, PROFILE_TITLES)
    assert "Z80, 1 cores, 2 GiB, Linux 6.18, virtual machine" in text
    assert "**Not measured: nebula.** its compiler is missing" in text
    assert "| TCP, 1 stream | A: default veth | Towpath | 11.0 Gb/s | 10.0 - 12.0 |  |  | 0.100 |" in text
    assert "|  |  | kernel VXLAN | 22.0 Gb/s | 20.0 - 24.0 | **0.500** | 0.500 - 0.500 | 0.050 |" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234.5, "1234"), (99.94, "99.9"), (1.234, "1.23"), (0.1234, "0.123")]
)
def test_figures_have_three_digits(value, text):
    assert report.figure(value) == text


def test_names_are_what_the_command_line_says():
    assert all(name == workload.name for name, workload in WORKLOADS.items())
    assert {"overlay", "packets", "local", "offload", "workers", "peers", "policy", "growth", "idle"} == set(SUITES)


def test_grown_tables_are_all_different():
    routes = [table["prefix"] for _, table in _tables("routes", 100_000)]
    peers = [table["underlay"][0] for _, table in _tables("peers", 5_000)]
    assert len(set(routes)) == 100_000
    assert len(set(peers)) == 4_999
