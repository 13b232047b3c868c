"""The laws of desired state, for any facts."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.apply.delta import objects, plan
from engine.config.profile import PROFILES
from engine.desired import Recomputation, compute, desired_state
from engine.desired.rib import MAX_NEXT_HOPS
from engine.model import Desired, Facts, HostPort, Overlay, Peer, Pod, PortMapping, StaticRoute, Underlay, Via
from tests.engine.desired.facts import FAR, NEAR, NODE, NODE4, SEEN, WEB, facts, only
from tests.engine.faults import FaultError, fault_at

# A busy machine is no mistake of ours.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def reverse(given_facts):
    return replace(
        given_facts, pods=given_facts.pods[::-1], peers=given_facts.peers[::-1], routes=given_facts.routes[::-1]
    )


def repeat(given_facts):
    return replace(given_facts, pods=given_facts.pods * 2, peers=given_facts.peers * 3, routes=given_facts.routes * 2)


def shuffle(given_facts):
    def mixed(values):
        return tuple(random.Random(7).sample(values, len(values)))

    return replace(
        given_facts, pods=mixed(given_facts.pods), peers=mixed(given_facts.peers), routes=mixed(given_facts.routes)
    )


def reverse_next_hops(given_facts):
    return replace(given_facts, routes=tuple(replace(route, via=route.via[::-1]) for route in given_facts.routes))


def after_other_facts(given_facts):
    """What was computed before does not show: nothing, half of it, other nodes' facts."""
    half = replace(given_facts, pods=given_facts.pods[::2], peers=given_facts.peers[::2], routes=())
    for before in (Facts(given_facts.node), half, facts()):
        desired_state(before, Underlay(mtu=1300))
    return given_facts


EXPANDERS = (reverse, repeat, shuffle, reverse_next_hops, after_other_facts)


def node_name(number):
    return f"n{number}"


@st.composite
def any_facts(draw):
    numbers = draw(st.lists(st.integers(2, 9), unique=True, max_size=5))
    overlay = Overlay(
        encapsulation=draw(st.sampled_from(["vxlan", "udp", "ipip", "none"])),
        when=draw(st.sampled_from(["always", "cross-subnet"])),
        profile=draw(st.sampled_from(["towpath", "flannel"])),
        mtu=draw(st.sampled_from([0, 1400])),
    )
    families = st.sampled_from([(4,), (6,), (4, 6), (6, 4)])
    subnets = st.sampled_from(["192.0.2.{}", "198.51.100.{}"]), st.sampled_from(["2001:db8::{}", "2001:db8:1::{}"])

    def underlay(number):
        by_version = {4: draw(subnets[0]), 6: draw(subnets[1])}
        return tuple(ip_address(by_version[version].format(number)) for version in draw(families))

    def prefixes(number):
        by_version = {4: f"10.244.{number}.0/24", 6: f"fd00:{number}::/64"}
        return tuple(ip_network(by_version[version]) for version in draw(families))

    encapsulations = st.sampled_from([None, None, "vxlan", "udp", "none"])
    peers = tuple(
        Peer(node_name(number), underlay(number), prefixes(number), encapsulation=draw(encapsulations))
        for number in numbers
    )
    own = draw(st.sampled_from([NODE, NODE4, replace(NODE, underlay=()), replace(NODE, underlay=NODE.underlay[1:])]))
    hops = st.lists(st.integers(1, 9).map(node_name), min_size=1, max_size=4, unique=True).map(tuple)
    targets = st.one_of(hops, st.sampled_from([("host",), ("blackhole",)]))
    destinations = st.sampled_from(
        ["198.18.0.0/15", "10.244.4.0/24", "10.244.1.64/26", "2400::/12", "0.0.0.0/0", "::/0"]
    )
    routes = draw(st.dictionaries(destinations.map(ip_network), targets, max_size=4))
    pods = tuple(
        Pod(f"p{number}", f"/run/netns/p{number}", (own.prefixes[0].network_address + number,))
        for number in draw(st.lists(st.integers(2, 20), unique=True, max_size=4))
    )
    static = tuple(StaticRoute(prefix, via) for prefix, via in routes.items())
    return Facts(own, overlay, pods, peers, static, HostPort(enabled=draw(st.booleans())))


@st.composite
def any_underlay(draw):
    addresses = draw(st.permutations([ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")]))
    remotes = [f"192.0.2.{n}" for n in range(2, 10)] + [f"2001:db8::{n}" for n in range(2, 10)]
    paths = draw(st.dictionaries(st.sampled_from(remotes).map(ip_address), st.integers(68, 9000), max_size=5))
    return Underlay(tuple(addresses[: draw(st.integers(0, 2))]), paths, draw(st.sampled_from([1500, 9000])))


@pytest.mark.parametrize("expander", EXPANDERS, ids=lambda expander: expander.__name__)
@settings(CALM, max_examples=40)
@given(given_facts=any_facts(), seen=any_underlay())
def test_result_depends_on_the_facts_alone(expander, given_facts, seen):
    expected = desired_state(given_facts, seen)
    assert desired_state(given_facts, seen) == expected
    assert desired_state(expander(given_facts), seen) == expected
    turned = replace(seen, path_mtu=dict(reversed(seen.path_mtu.items())))
    assert desired_state(given_facts, turned) == expected


@settings(CALM, max_examples=60)
@given(steps=st.lists(st.tuples(any_facts(), any_underlay(), st.booleans()), min_size=1, max_size=4))
def test_a_state_computed_with_the_last_one_at_hand_is_the_same(steps):
    """Steps change everything, or pods alone."""
    recompute = Recomputation()
    facts_now, seen = steps[0][:2]
    for other, other_seen, pods_alone in steps:
        facts_now, seen = (replace(facts_now, pods=other.pods), seen) if pods_alone else (other, other_seen)
        assert recompute(facts_now, seen) == desired_state(facts_now, seen)


def test_a_pod_more_shares_everything_else():
    recompute = Recomputation()
    before = recompute(facts(), SEEN)
    after = recompute(facts(pods=(WEB, Pod("db", "/run/netns/db", (ip_address("10.244.1.3"),)))), SEEN)
    assert after.peers is before.peers
    assert after.kernel_routes is before.kernel_routes
    added = [(ip_network("10.244.1.3/32"), (Via("pod", "db", mtu=1430),))]
    assert list(after.routes.beside(before.routes)) == added
    assert list(before.routes.beside(after.routes)) == []
    again = recompute(facts(), SEEN)
    assert list(again.routes.beside(after.routes)) == []
    assert list(after.routes.beside(again.routes)) == added
    assert recompute(facts(), SEEN) is again
    assert list(again.routes.beside(before.routes)) == list(again.routes.top.items()), "not made from that one"


def test_a_fault_on_the_way_does_not_show_in_what_is_computed_next():
    more = facts(pods=(Pod("db", "/run/netns/db", (ip_address("10.244.1.3"),)),))
    for wanted in (more, facts()):
        expected = desired_state(wanted, SEEN)
        for call in count():
            recompute = Recomputation()
            recompute(facts(), SEEN)
            try:
                with fault_at(call, (compute,)):
                    recompute(more, SEEN)
            except FaultError:
                assert recompute(wanted, SEEN) == expected, call
            else:
                break
        assert call > 3


COMING_AND_GOING = [
    Pod(f"p{number}", f"/run/netns/p{number}", addresses, ports=ports)
    for number, (addresses, ports) in enumerate(
        [((ip_address(f"10.244.1.{host}"), ip_address(f"fd00:1::{host}")), ()) for host in range(2, 8)]
        + [((ip_address("10.244.1.2"),), ()), ((ip_address("10.244.1.9"),), (PortMapping(80, 8080),))]
        + [((ip_address("10.244.2.2"),), ())]  # in a peer's prefix
    )
]


@settings(CALM, max_examples=100)
@given(steps=st.lists(st.sets(st.sampled_from(range(len(COMING_AND_GOING)))), min_size=2, max_size=12))
def test_pods_that_come_and_go_one_state_after_the_other(steps):
    """Each state is as if computed anew, and what is planned from one to the next is as if all were compared."""
    recompute, before, known = Recomputation(), None, None
    for chosen in steps:
        given_facts = facts(pods=tuple(COMING_AND_GOING[number] for number in sorted(chosen)))
        desired = recompute(given_facts, SEEN)
        expected = desired_state(given_facts, SEEN)
        assert desired == expected
        assert dict(desired.routes) == dict(expected.routes)
        now = objects(desired, before, known)
        if known is not None:
            plain = [{kind: dict(values) for kind, values in state.items()} for state in (now, known)]
            assert plan(now, known) == plan(*plain)
        before, known = desired, now


def test_a_pod_with_an_address_that_somebody_announces_has_it():
    announced = replace(FAR, prefixes=(*FAR.prefixes, ip_network("10.244.1.2/32")))
    for recompute in (desired_state, Recomputation()):
        desired = recompute(facts(peers=(NEAR, announced)), SEEN)
        assert only(desired, "10.244.1.2/32").kind == "pod"
        assert ip_network("10.244.1.2/32") not in desired.host.routes
        without = recompute(facts(peers=(NEAR, announced), pods=()), SEEN)
        assert only(without, "10.244.1.2/32").kind == "tunnel"
        assert ip_network("10.244.1.2/32") in without.host.routes


@CALM
@given(given_facts=any_facts(), seen=any_underlay())
def test_laws_of_any_desired_state(given_facts, seen):
    desired = desired_state(given_facts, seen)
    tunnels = {tunnel.key: tunnel for tunnel in desired.tunnels}
    assert len(tunnels) == len(desired.tunnels)
    mtus = {}
    for prefix, vias in desired.routes.items():
        assert 1 <= len(vias) <= MAX_NEXT_HOPS
        assert len(set(vias)) == len(vias)
        assert len(vias) == 1 or all(via.kind != "reject" for via in vias)
        for via in vias:
            # one size for each next hop, whatever the family inside
            assert mtus.setdefault(replace(via, mtu=0), via.mtu) == via.mtu
            if via.kind == "tunnel":
                assert tunnels[via.target].local.version == via.remote.version
                assert tunnels[via.target].port == via.remote_port
                assert desired.peers[via.remote] == via.peer
            if via.kind == "host":
                # what came by a tunnel may go to the host itself, and through it nowhere
                assert desired.host is not None
                assert via.transit is (prefix not in {address.network for address in desired.host.addresses})
    check_pods(given_facts, desired)
    check_host(given_facts, desired)


def check_pods(given_facts, desired: Desired):
    floor = 1280 if any(prefix.version == 6 for prefix in given_facts.node.prefixes) else 576
    for device in desired.pods:
        assert floor <= device.mtu <= 65535
        for address in device.pod.addresses:
            assert only(desired, str(address)) == Via("pod", device.pod.name, mtu=device.mtu)
    peers_prefixes = {prefix for peer in given_facts.peers for prefix in peer.prefixes}
    for via in (via for prefix in peers_prefixes for via in desired.routes[prefix] if via.kind == "tunnel"):
        own = {prefix.version for prefix in given_facts.node.prefixes}
        assert via.mtu >= floor
        if len(own) == 2:
            assert all(device.mtu <= via.mtu for device in desired.pods)


def check_host(given_facts, desired: Desired):
    if desired.host is None:
        assert desired.kernel_routes == frozenset()
        return
    kernel = {one.prefix for one in desired.kernel_routes}
    assert not kernel & set(desired.host.routes)
    assert set(given_facts.node.prefixes) <= set(desired.host.routes)
    ends = [address for peer in given_facts.peers for address in peer.underlay]
    ends += [tunnel.local for tunnel in desired.tunnels]
    for prefix in desired.host.routes:
        assert not any(end in prefix for end in ends)
    for one in desired.kernel_routes:
        assert one.via
        assert all(via.version == one.prefix.version for via in one.via)


def test_every_pair_of_profile_and_encapsulation_can_be_computed():
    for profile, encapsulation in PROFILES:
        overlay = Overlay(profile=profile, encapsulation=encapsulation)
        assert desired_state(facts(overlay=overlay), SEEN).routes
