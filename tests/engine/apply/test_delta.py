"""The differ: any state leads to any other, in order, and only by what differs."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import given
from hypothesis import strategies as st

from engine.apply.delta import Kind, Operation, objects, plan
from engine.model import Desired, HostDevice, HostRules, KernelRoute, Layered, Pod, PodDevice, TunnelPort, Via

KEYS = st.text("abc", min_size=1, max_size=2)
WORLDS = st.dictionaries(st.sampled_from(list(Kind)), st.dictionaries(KEYS, st.integers(0, 2), max_size=4))

DESIRED = Desired(
    tunnels=frozenset({TunnelPort("vxlan/192.0.2.1:4789", "vxlan", ip_address("192.0.2.1"), 4789)}),
    pods=frozenset({PodDevice(Pod("a", "/run/netns/a", (ip_address("10.1.0.2"),)), 1450)}),
    host=HostDevice((ip_interface("10.1.0.1/32"),), 1450, (ip_network("10.1.0.0/24"),)),
    routes={ip_network("10.2.0.0/24"): (Via("reject", "blackhole"),)},
    peers={ip_address("192.0.2.2"): "b"},
    kernel_routes=frozenset(
        {KernelRoute(ip_network("10.3.0.0/24"), (ip_address("192.0.2.9"), ip_address("192.0.2.3")))}
    ),
    gateway4=ip_address("10.1.0.1"),
    policy=object(),
    rules=HostRules("towpath0", (ip_network("10.1.0.0/24"),), ()),
)


def perform(world, operations):
    result = {kind: dict(items) for kind, items in world.items()}
    for operation in operations:
        if operation.value is None:
            del result[operation.kind][operation.key]
        else:
            result.setdefault(operation.kind, {})[operation.key] = operation.value
    return {kind: items for kind, items in result.items() if items}


@given(WORLDS, WORLDS)
def test_the_plan_leads_from_any_state_to_any_other(desired, actual):
    assert perform(actual, plan(desired, actual)) == {kind: items for kind, items in desired.items() if items}


@given(WORLDS)
def test_the_same_state_twice_needs_nothing(world):
    assert plan(world, world) == []


@given(WORLDS, WORLDS)
def test_links_are_set_before_tables_and_removed_after_them(desired, actual):
    operations = plan(desired, actual)
    sets = [operation.kind for operation in operations if operation.value is not None]
    removals = [operation.kind for operation in operations if operation.value is None]
    assert sets == sorted(sets)
    assert removals == sorted(removals, reverse=True)
    assert [operation.kind for operation in operations] == sets + removals


@given(WORLDS, WORLDS)
def test_only_what_differs_is_touched(desired, actual):
    for operation in plan(desired, actual):
        assert desired.get(operation.kind, {}).get(operation.key) != actual.get(operation.kind, {}).get(operation.key)


def test_every_part_of_the_desired_state_becomes_an_object():
    found = objects(DESIRED)
    assert {kind: len(items) for kind, items in found.items()} == {
        Kind.POLICY: 1,
        Kind.TUNNEL: 1,
        Kind.POD: 1,
        Kind.HOST: 1,
        Kind.GATEWAY: 1,
        Kind.PEERS: 1,
        Kind.ROUTE: 1,
        Kind.KERNEL_ROUTE: 2,
        Kind.HOST_RULES: 1,
    }
    assert found[Kind.KERNEL_ROUTE] == {
        ip_network("10.1.0.0/24"): (),
        ip_network("10.3.0.0/24"): (ip_address("192.0.2.3"), ip_address("192.0.2.9")),
    }


def test_nothing_desired_means_no_objects():
    assert not any(objects(Desired()).values())


def test_a_route_of_the_host_device_is_an_object_of_its_own():
    without = objects(Desired(host=HostDevice(DESIRED.host.addresses, 1450, ())))
    assert plan(without, objects(Desired(host=DESIRED.host))) == [
        Operation(Kind.KERNEL_ROUTE, ip_network("10.1.0.0/24"), None)
    ]


LAYERS = st.dictionaries(KEYS, st.integers(0, 2), max_size=4)


@given(LAYERS, LAYERS, LAYERS)
def test_two_states_that_share_a_layer_are_told_apart_by_the_other(base, top, other_top):
    shared = {("base", key): value for key, value in base.items()}
    desired, actual = ({Kind.ROUTE: Layered(shared, layer)} for layer in (top, other_top))
    assert plan(desired, actual) == plan({Kind.ROUTE: shared | top}, {Kind.ROUTE: shared | other_top})
    assert dict(desired[Kind.ROUTE]) == shared | top
    assert len(desired[Kind.ROUTE]) == len(shared) + len(top)


def test_objects_that_did_not_change_are_the_same_mapping():
    before = objects(DESIRED)
    more = replace(DESIRED, pods=frozenset())
    assert objects(more, DESIRED, before)[Kind.KERNEL_ROUTE] is before[Kind.KERNEL_ROUTE]
    less = replace(DESIRED, host=None)
    assert objects(less, DESIRED, before)[Kind.KERNEL_ROUTE] == objects(less)[Kind.KERNEL_ROUTE]
