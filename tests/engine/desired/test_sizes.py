"""MTUs: by encapsulation and underlay, with a floor and a ceiling."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from engine.desired import desired_state
from engine.model import Overlay, Underlay
from tests.engine.desired.facts import FAR, NEAR, NODE, NODE4, SEEN, facts, only

SIZES = [
    # outer MTU 1500, 1460, 9000, as every other implementation has it
    ("udp", 4, 1472, 1432, 8972),
    ("udp", 6, 1452, 1412, 8952),
    ("vxlan", 4, 1450, 1410, 8950),
    ("vxlan", 6, 1430, 1390, 8930),
    ("ipip", 4, 1480, 1440, 8980),
    ("ipip", 6, 1460, 1420, 8960),
    ("none", 4, 1500, 1460, 9000),
]


@pytest.mark.parametrize(("encapsulation", "version", "at_1500", "at_1460", "at_9000"), SIZES)
def test_mtu(encapsulation, version, at_1500, at_1460, at_9000):
    peer = replace(NEAR, underlay=tuple(address for address in NEAR.underlay if address.version == version))
    for path, inner in ((1500, at_1500), (1460, at_1460), (9000, at_9000)):
        seen = Underlay(path_mtu={peer.underlay[0]: path})
        desired = desired_state(facts(peers=(peer,), overlay=Overlay(encapsulation=encapsulation)), seen)
        assert desired.host.mtu == inner
        assert {device.mtu for device in desired.pods} == {inner}


def test_pods_have_the_smallest_mtu_of_all_peers_and_each_next_hop_its_own():
    seen = Underlay(path_mtu={ip_address("192.0.2.2"): 9000, ip_address("198.51.100.3"): 1400})
    desired = desired_state(facts(node=NODE4, pods=()), seen)
    assert desired.host.mtu == 1350
    assert only(desired, "10.244.2.0/24").mtu == 8950
    assert only(desired, "10.244.3.0/24").mtu == 1350


def test_mtu_before_there_are_peers():
    assert desired_state(facts(peers=()), SEEN).host.mtu == 1430
    assert desired_state(facts(peers=(), node=NODE4, pods=()), Underlay(mtu=9000)).host.mtu == 8950
    unknown = replace(NODE, underlay=())
    assert desired_state(facts(peers=(), node=unknown), SEEN).host.mtu == 1450


def test_mtu_that_was_set_lowers_but_never_raises():
    desired = desired_state(facts(overlay=Overlay(mtu=1400)), Underlay(path_mtu={ip_address("198.51.100.3"): 1380}))
    assert desired.host.mtu == 1330
    assert only(desired, "10.244.2.0/24").mtu == 1400


@pytest.mark.parametrize(("node", "floor"), [(NODE, 1280), (NODE4, 576)])
def test_mtu_has_a_floor(node, floor):
    seen = Underlay(path_mtu=dict.fromkeys((*NEAR.underlay, *FAR.underlay), 68))
    desired = desired_state(facts(node=node, pods=()), seen)
    assert desired.host.mtu == floor
    assert only(desired, "10.244.3.0/24").mtu == floor


def test_mtu_is_at_most_what_ip_can_say():
    desired = desired_state(facts(overlay=Overlay(encapsulation="none")), Underlay(mtu=65536))
    assert desired.host.mtu == 65535
