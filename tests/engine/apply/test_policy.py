"""While the policy that is wanted is not in force, nobody comes in whom the one in force does not judge."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from engine import Node, TowpathError
from engine.apply.plane import Openers, kernel_openers
from engine.apply.policy import PolicyDriver
from engine.datapath import Datapath
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.enforced import Enforced
from engine.desired.policy.model import Snapshot
from engine.model import Desired, HostDevice, Pod, PodDevice, Unenforceable
from engine.pod.namespace import identity, run_inside
from engine.pod.residents import Attachment
from tests.engine.datapaths import datapaths
from tests.engine.fakes import FakeKernel, FakePlane, small_config
from tests.engine.namespaces import device, namespaces, path_of, wait_for

FAULT = MemoryError("no room")
HOST = HostDevice((ip_interface("10.1.0.1/32"),), 1450, ())


def enforced():
    return Enforced(Compiler().compile(Snapshot()))


# -- the driver --------------------------------------------------------------
@pytest.fixture
def datapath(tmp_path):
    made = Datapath(tmp_path, openers=FakeKernel().openers, plane=FakePlane())
    yield made
    made.close()


def test_what_is_refused_leaves_the_last_in_force_and_is_said(datapath):
    assert datapath.apply(Desired(policy=enforced())).failed == []
    in_force = datapath.plane.policy
    datapath.plane.refuses_policy = FAULT
    (failure,) = datapath.apply(Desired(policy=enforced())).failed
    assert "cannot be put in force" in str(failure)
    assert datapath.forwarding.unjudged is failure.error
    assert datapath.plane.policy is in_force
    datapath.plane.refuses_policy = None
    datapath.reconciler.end_pauses()
    datapath.repair()
    assert datapath.forwarding.unjudged is None
    assert datapath.plane.policy is not in_force


@pytest.mark.parametrize("before", [None, enforced()], ids=["none before", "one before"])
def test_the_fault_is_over_when_what_is_in_force_is_wanted_again(datapath, before):
    datapath.apply(Desired(policy=before))
    (failure,) = datapath.apply(Desired(policy=Unenforceable("it was not compiled"))).failed
    assert "it was not compiled" in str(failure)
    assert datapath.apply(Desired(policy=before)).failed == []
    assert datapath.forwarding.unjudged is None
    assert (datapath.plane.policy is None) is (before is None)


def test_nobody_is_let_in_before_there_is_any(datapath):
    called = []
    driver = PolicyDriver(datapath.forwarding, lambda: called.append(1))
    for reached in ([1], [1, 1]):
        with pytest.raises(TowpathError, match="not compiled"):
            driver.set("policy", Unenforceable("not compiled"))
        assert called == reached
    driver.set("policy", enforced())
    with pytest.raises(TowpathError):
        driver.set("policy", Unenforceable("not compiled"))
    assert called == [1, 1], "the one before judges those it knows"


# -- pods and the host on real devices ------------------------------------------
@pytest.fixture
def names():
    with namespaces(3) as made:
        yield made


@pytest.fixture
def start(tmp_path, names):
    """Starts a datapath whose host is the third namespace."""
    with datapaths(tmp_path, host=names[2]) as start:
        yield start


def pod(number, name, *more):
    return PodDevice(Pod(name, path_of(number), (ip_address(f"10.1.0.{ord(name)}"), *more)), 1450)


def attached(datapath):
    return set(datapath.pods.attachments)


@pytest.mark.root
@pytest.mark.needs("ip")
def test_a_start_lets_nobody_in_until_there_is_a_policy(start, names):
    wanted = Desired(pods=frozenset({pod(names[0], "a")}), policy=enforced())
    first = start()
    assert first.apply(wanted).failed == []
    first.close()
    second = start()
    second.plane.refuses_policy = FAULT
    assert [str(failure.operation) for failure in second.prepare(wanted).failed] == ["set policy policy"]
    assert second.apply(wanted).failed != []
    assert not any(entry.startswith("attach") for entry in second.plane.log)
    assert "kept out" in str(second.reconciler.failures[-1])
    assert device(names[0]) is not None
    second.plane.refuses_policy = None
    changed = replace(wanted, policy=enforced())
    assert second.apply(changed).failed == [], "nor does it wait for its next try then"
    assert attached(second) == {"a"}


@pytest.mark.root
@pytest.mark.needs("ip")
def test_only_whom_the_last_policy_judges_stays(start, names):
    datapath = start()
    a, b = pod(names[0], "a"), pod(names[1], "b")
    datapath.apply(Desired(pods=frozenset({a}), policy=enforced()))
    datapath.plane.refuses_policy = FAULT
    wanted = Desired(pods=frozenset({replace(a, mtu=1400), b}), policy=enforced())
    datapath.apply(wanted)
    assert attached(datapath) == {"a"}
    assert device(names[0])["mtu"] == 1400, "what is no question of policy is done"
    more = replace(wanted, pods=frozenset({pod(names[0], "a", ip_address("10.1.0.9"))}))
    assert any("kept out" in str(failure) for failure in datapath.apply(more).failed)
    assert "update eth0" not in datapath.plane.log[datapath.plane.log.index("update eth0") + 1 :]
    datapath.plane.refuses_policy = None
    assert datapath.apply(replace(more, policy=enforced())).failed == []


@pytest.mark.root
@pytest.mark.needs("ip")
def test_whoever_is_in_goes_when_the_first_policy_is_refused(start, names):
    datapath = start()
    wanted = Desired(pods=frozenset({pod(names[0], "a")}), host=HOST)

    def work():
        assert datapath.apply(wanted).failed == []
        datapath.plane.refuses_policy = FAULT
        datapath.apply(replace(wanted, policy=enforced()))
        assert (attached(datapath), datapath.plane.ports) == (set(), {})
        datapath.reconciler.end_pauses()
        datapath.repair()
        assert datapath.plane.ports == {}
        assert device(names[0]) is not None
        datapath.plane.refuses_policy = None
        assert datapath.apply(replace(wanted, policy=enforced())).failed == []
        assert len(datapath.plane.ports) == 2

    run_inside(path_of(names[2]), work, where="test")


@pytest.mark.root
@pytest.mark.needs("ip")
def test_whoever_goes_is_out_before_the_policy_that_does_not_know_it(start, names):
    datapath = start()
    extra = ip_address("10.1.0.9")
    leaving, shrinking, staying = pod(names[0], "a"), pod(names[1], "b", extra), pod(names[2], "c")
    assert datapath.apply(Desired(pods=frozenset({leaving, shrinking, staying}), policy=enforced())).failed == []
    index = device(names[1])["ifindex"]
    datapath.plane.log.clear()
    outcome = datapath.apply(Desired(pods=frozenset({pod(names[1], "b"), staying}), policy=enforced()))
    assert [str(operation) for operation in outcome.done] == ["set policy policy", "set pod b", "remove pod a"]
    assert [entry for entry in datapath.plane.log if entry.split()[0] in ("attach", "detach", "policy")] == [
        "detach eth0", "detach eth0", "policy", "attach eth0",
    ]  # fmt: skip
    assert device(names[0]) is None
    assert device(names[1])["ifindex"] == index


@pytest.mark.root
@pytest.mark.needs("ip")
def test_whoever_moves_is_out_before_the_policy_that_knows_it_elsewhere(start, names):
    """And nobody comes in before whatever was known of those who went is forgotten."""
    datapath = start()
    before, after = pod(names[0], "a"), pod(names[1], "a")
    heir = PodDevice(Pod("heir", path_of(names[2]), (ip_address("10.1.0.7"),)), 1450)
    gone = PodDevice(Pod("gone", path_of(names[2]), (ip_address("10.1.0.7"),), "eth1"), 1450)
    assert datapath.apply(Desired(pods=frozenset({before, gone}), policy=enforced())).failed == []
    datapath.plane.log.clear()
    wanted = Desired(pods=frozenset({after, heir}), policy=enforced())
    assert datapath.apply(wanted, lambda: datapath.plane.log.append("forget")).failed == []
    order = [entry.split()[0] for entry in datapath.plane.log]
    assert [word for word in order if word in ("attach", "detach", "policy", "forget")] == [
        "detach", "detach", "forget", "policy", "attach", "attach",
    ]  # fmt: skip
    assert device(names[0]) is None and device(names[1]) is not None


@pytest.mark.root
@pytest.mark.needs("ip")
def test_one_that_cannot_be_kept_out_keeps_no_other_in(start, names, monkeypatch):
    datapath = start()
    wanted = Desired(pods=frozenset({pod(names[0], "a"), pod(names[1], "b")}))
    assert datapath.apply(wanted).failed == []
    datapath.plane.refuses_policy = FAULT
    detach = datapath.forwarding.detach

    def once(owner):
        monkeypatch.undo()
        raise MemoryError(owner)

    monkeypatch.setattr(datapath.forwarding, "detach", once)
    datapath.apply(replace(wanted, policy=enforced()))
    assert len(attached(datapath)) == len(datapath.plane.ports) == 1, "and it is not forgotten"
    assert datapath.forwarding.detach == detach
    datapath.reconciler.end_pauses()
    datapath.repair()
    assert (attached(datapath), datapath.plane.ports) == (set(), {})


# -- a fault of the compiler in a node -----------------------------------------
@pytest.fixture
def config(tmp_path):
    return small_config(tmp_path, '[policy]\ndefault = "deny"\n')


def fail(*_):
    raise ZeroDivisionError


def test_a_start_without_a_program_is_given_up(config, monkeypatch):
    monkeypatch.setattr(Compiler, "update", fail)
    plane = FakePlane()
    node = Node(config, openers=FakeKernel().openers, plane=plane)
    with pytest.raises(TowpathError, match="could not be compiled"):
        node.start()
    assert not plane.running


def test_what_was_not_compiled_is_compiled_again_though_nothing_changes(config, monkeypatch, caplog):
    monkeypatch.setattr("engine.apply.reconcile.FIRST_PAUSE", 0.01)
    plane, tries = FakePlane(), []

    def compiled(compiler, snapshot):
        tries.append(1)
        if len(tries) < 4:
            raise MemoryError
        monkeypatch.undo()
        return compiler.update(snapshot)

    monkeypatch.setattr(Compiler, "update", compiled)
    with Node(config, openers=FakeKernel().openers, plane=plane, keep_going=True) as node:
        wait_for(lambda: plane.policy is not None)
        wait_for(lambda: node.problems() == [])
    assert len(tries) == 4, "at the start, and by the timer alone"
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_a_policy_that_the_plane_refuses_is_tried_again(config, monkeypatch):
    monkeypatch.setattr("engine.apply.reconcile.FIRST_PAUSE", 0.01)
    plane = FakePlane()
    plane.refuses_policy = FAULT
    with Node(config, openers=FakeKernel().openers, plane=plane, keep_going=True) as node:
        assert any("cannot be put in force" in problem.what for problem in node.problems())
        plane.refuses_policy = None
        wait_for(lambda: node.problems() == [])
    assert plane.policy is not None


def attachment(name, number):
    seen = identity(path_of(name))
    return Attachment("net", name, "eth0", f"default/{name}", path_of(name), seen, (f"10.1.0.{number}",))


@pytest.mark.root
@pytest.mark.needs("ip")
def test_a_node_that_keeps_going_refuses_pods_that_no_program_knows(config, names, monkeypatch):
    plane, openers = FakePlane(), Openers(kernel_openers().tun, FakeKernel().openers.tunnel)
    one, other = attachment(names[0], 5), attachment(names[1], 6)
    monkeypatch.setattr(Compiler, "update", fail)
    with Node(config, openers=openers, plane=plane, keep_going=True) as node:
        assert any("could not be compiled" in problem.what for problem in node.problems())
        (answer,) = node.attach(one)
        assert "could not be compiled" in str(answer)
        assert node.residents.get(one.key) is None
        monkeypatch.undo()
        assert node.attach(one) == [1500 - 50]
        assert node.problems() == []
        monkeypatch.setattr(Compiler, "update", fail)
        (answer,) = node.attach(other)
        assert "could not be compiled" in str(answer)
        assert [pod.name for pod in node.pods().pods] == [one.pod]
        assert [entry for entry in plane.log if entry.startswith("attach eth")] == ["attach eth0"]
        monkeypatch.undo()
        node.detach([one.key])
