"""The reconciler: failures stay, are tried again, and block nothing."""

from ipaddress import ip_network

import pytest

from engine.apply.delta import Kind
from engine.apply.reconcile import FIRST_PAUSE, LONGEST_PAUSE, Reconciler
from engine.errors import KernelError
from engine.model import Desired, Pod, PodDevice


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Driver:
    """Keeps objects in a dict; names in `refused` cannot be set, those in `blocked_by` not beside another one."""

    def __init__(self, kind, *, drifts=True):
        self.kind = kind
        self.drifts = drifts
        self.state = {}
        self.calls = []
        self.refused = {}
        self.blocked_by = {}

    def actual(self):
        return self.state

    def set(self, key, value):
        self.calls.append(("set", key))
        if key in self.refused:
            raise self.refused[key]
        if self.blocked_by.get(key) in self.state:
            raise KernelError("in the way")
        self.state[key] = value

    def remove(self, key):
        self.calls.append(("remove", key))
        if key in self.refused:
            raise self.refused[key]
        del self.state[key]


@pytest.fixture
def world():
    clock, pods = Clock(), Driver(Kind.POD)
    drivers = [pods, *(Driver(kind) for kind in Kind if kind is not Kind.POD)]
    return Reconciler(drivers, clock=clock), pods, clock


def pods_named(*names, mtu=1450):
    return Desired(pods=frozenset(PodDevice(Pod(name, f"/run/netns/{name}", ()), mtu) for name in names))


def test_the_same_state_twice_does_nothing(world):
    reconciler, pods, _ = world
    assert len(reconciler.apply(pods_named("a", "b")).done) == 2
    pods.calls.clear()
    assert reconciler.apply(pods_named("a", "b")).done == []
    assert pods.calls == []


def test_a_change_touches_only_what_differs(world):
    reconciler, pods, _ = world
    reconciler.apply(pods_named("a", "b"))
    pods.calls.clear()
    reconciler.apply(pods_named("a", "c"))
    assert pods.calls == [("set", "c"), ("remove", "b")]


def test_a_failure_does_not_block_the_rest_and_is_tried_again_later(world):
    reconciler, pods, clock = world
    pods.refused["a"] = KernelError("no such namespace")
    outcome = reconciler.apply(pods_named("a", "b"))
    assert [str(operation) for operation in outcome.done] == ["set pod b"]
    assert [str(failure.error) for failure in outcome.failed] == ["no such namespace"]
    assert reconciler.retry_at == clock.now + FIRST_PAUSE

    assert reconciler.repair().postponed == 1
    del pods.refused["a"]
    clock.now += FIRST_PAUSE
    assert [str(operation) for operation in reconciler.repair().done] == ["set pod a"]
    assert reconciler.failures == []
    assert reconciler.retry_at is None


def test_the_pause_doubles_up_to_a_limit(world):
    reconciler, pods, clock = world
    pods.refused["a"] = KernelError("no")
    reconciler.apply(pods_named("a"))
    pauses = []
    for _ in range(10):
        pauses.append(reconciler.retry_at - clock.now)
        clock.now = reconciler.retry_at
        reconciler.repair()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert max(pauses) == LONGEST_PAUSE


def test_another_value_is_tried_at_once(world):
    reconciler, pods, _ = world
    pods.refused["a"] = KernelError("no")
    reconciler.apply(pods_named("a"))
    pods.calls.clear()
    reconciler.apply(pods_named("a", mtu=1400))
    assert pods.calls == [("set", "a")]
    assert reconciler.failures[0].attempts == 1


def test_a_failure_that_is_no_longer_wanted_is_forgotten(world):
    reconciler, pods, _ = world
    pods.refused["a"] = KernelError("no")
    reconciler.apply(pods_named("a", "b"))
    reconciler.apply(pods_named("b"))
    assert reconciler.failures == []


def test_what_stood_in_the_way_is_removed_and_the_rest_tried_again_at_once(world):
    reconciler, pods, _ = world
    reconciler.apply(pods_named("a"))
    pods.blocked_by["b"] = "a"
    outcome = reconciler.apply(pods_named("b"))
    assert outcome.failed == []
    assert set(pods.state) == {"b"}


def test_drift_is_repaired(world):
    reconciler, pods, _ = world
    reconciler.apply(pods_named("a"))
    pods.state.clear()
    assert [str(operation) for operation in reconciler.repair().done] == ["set pod a"]


def test_what_nobody_else_can_change_is_compared_only_with_what_was_desired():
    clock, pods = Clock(), Driver(Kind.POD, drifts=False)
    drivers = [pods, *(Driver(kind) for kind in Kind if kind is not Kind.POD)]
    reconciler = Reconciler(drivers, clock=clock)
    pods.refused["b"] = KernelError("no")
    reconciler.apply(pods_named("a", "b"))
    del pods.refused["b"]
    clock.now += FIRST_PAUSE
    assert [str(operation) for operation in reconciler.repair().done] == ["set pod b"], "a failure is still tried again"
    pods.state.clear()
    assert reconciler.repair().done == []
    assert [str(operation) for operation in reconciler.apply(pods_named("a", "b", "c")).done] == ["set pod c"]
    reconciler.unsettle(Kind.POD)
    assert [str(operation) for operation in reconciler.repair().done] == ["set pod a", "set pod b"]


def test_an_error_of_ours_is_a_failure_like_any_other(world, caplog):
    reconciler, pods, _ = world
    pods.refused["a"] = ZeroDivisionError()
    assert "internal error" in str(reconciler.apply(pods_named("a", "b")).failed[0])
    assert set(pods.state) == {"b"}
    assert "failed unexpectedly" in caplog.text


@pytest.mark.parametrize("failing_call", range(6))
def test_a_failure_at_any_call_still_converges(world, failing_call):
    reconciler, pods, clock = world
    pods.state.update(x=1, y=2, z=3)
    original, count = pods.set, iter(range(100))

    def flaky(verb):
        def call(*arguments):
            if next(count) == failing_call:
                raise KernelError("now and then")
            return verb(*arguments)

        return call

    pods.set, pods.remove = flaky(original), flaky(pods.remove)
    reconciler.apply(pods_named("a", "b", "x"))
    clock.now += FIRST_PAUSE
    reconciler.repair()
    assert set(pods.state) == {"a", "b", "x"}
    assert reconciler.failures == []


def test_withdraw_removes_the_chosen_kinds_whatever_is_desired(world):
    reconciler, pods, _ = world
    reconciler.apply(pods_named("a", "b"))
    reconciler.withdraw([Kind.KERNEL_ROUTE, Kind.TUNNEL])
    assert set(pods.state) == {"a", "b"}
    reconciler.withdraw([Kind.POD])
    assert pods.state == {}


def test_a_kind_that_cannot_be_listed_keeps_no_other_waiting(world):
    reconciler, pods, clock = world
    tunnels = reconciler._drivers[Kind.TUNNEL]
    tunnels.actual = lambda: (_ for _ in ()).throw(OSError(24, "Too many open files"))
    outcome = reconciler.apply(pods_named("a"))
    assert [str(failure) for failure in outcome.failed] == ["list tunnels: as they are: Too many open files"]
    assert set(pods.state) == {"a"}
    assert reconciler.repair().postponed == 1, "it is looked at again after a pause"
    assert len(reconciler.failures) == 1
    del tunnels.actual
    tunnels.state["stale"] = 1
    clock.now = reconciler.retry_at
    assert [str(operation) for operation in reconciler.repair().done] == ["remove tunnel stale"]
    assert reconciler.failures == []


def test_neighbours_of_a_kind_are_done_together_where_the_driver_can(world):
    _, pods, clock = world

    class Bulk(Driver):
        def change(self, wanted):
            self.calls.append(dict(wanted))
            refused = {key: self.refused[key] for key in wanted if key in self.refused}
            for key, value in wanted.items():
                if key in refused:
                    continue
                if value is None:
                    del self.state[key]
                else:
                    self.state[key] = value
            return refused

    routes = Bulk(Kind.ROUTE, drifts=False)
    reconciler = Reconciler([pods, routes], clock=clock)
    one, two, three = (ip_network(f"10.{n}.0.0/16") for n in (1, 2, 3))
    routes.refused[two] = KernelError("no")
    outcome = reconciler.apply(Desired(routes={one: ("x",), two: ("x",)}))
    assert routes.calls == [{one: ("x",), two: ("x",)}]
    assert [failure.operation.key for failure in outcome.failed] == [two]
    del routes.refused[two]
    clock.now = reconciler.retry_at
    reconciler.repair()
    reconciler.apply(Desired(routes={two: ("x",), three: ("x",)}))
    assert routes.calls[1:] == [{two: ("x",)}, {three: ("x",), one: None}]
    routes.change = lambda wanted: 1 / 0
    assert len(reconciler.apply(Desired(routes={one: ("x",), three: ("x",)})).failed) == 2
