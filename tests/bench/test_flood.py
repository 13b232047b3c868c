"""The flooder against what the kernel counted, and our TCP program, on a plain cable."""

from __future__ import annotations

import shutil

import pytest

from engine.lab import Lab
from engine.lab.contest import Contender
from engine.lab.traffic import TrafficError
from engine.lab.traffic.flood import flood

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def cable():
    with Lab("test") as lab:
        a, b = lab.host("a"), lab.host("b")
        link = lab.link(a, b)
        link.left.address("192.0.2.1/24", "2001:db8::1/64")
        link.right.address("192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64")
        yield Contender("cable", "a cable", a, b, {4: ["192.0.2.2", "192.0.2.3"], 6: ["2001:db8::2"]})


@pytest.mark.parametrize(
    ("family", "how"),
    [
        (4, {}),
        (6, {"sizes": (1200,)}),
        (4, {"sizes": (64, 512, 1400)}),
        (4, {"senders": 2}),
        (4, {"merged": True}),
    ],
    ids=str,
)
def test_what_is_counted_went_over_the_cable(cable, family, how):
    device = cable.target.interface("eth0")
    before = device.statistics["rx_packets"]
    found = flood(cable.source, cable.target, cable.addresses[family], seconds=0.3, warm_up=0.1, **how)
    passed = device.statistics["rx_packets"] - before
    assert 1000 < found.received <= passed
    assert found.rate == found.received / 0.3
    assert 0 <= found.lost <= 1


def test_silence_is_an_error(cable):
    with pytest.raises(TrafficError, match="none of"):
        flood(cable.source, cable.target, ["192.0.2.77"], seconds=0.2, warm_up=0.0)


def test_super_packets_have_one_size(cable):
    with pytest.raises(ValueError, match="one size"):
        flood(cable.source, cable.target, ["192.0.2.2"], sizes=(1, 2), merged=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for bench/e2e/traffic.c")
def test_our_tcp_program(cable, tmp_path, monkeypatch):
    from bench.e2e import tool

    monkeypatch.setattr(tool, "CACHE", tmp_path)
    for family in (4, 6):
        moved = tool.stream(cable, cable.address(family), 4, 0.3)
        assert moved["gigabits"] > 0.1
        assert 0 < moved["least"] <= 1
    for reconnect in (False, True):
        found = tool.requests(cable, cable.address(), 0.2, reconnect=reconnect)
        assert 0 < found["p50"] <= found["p99"]
        assert found["count"] > 10
