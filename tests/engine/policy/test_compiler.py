"""The compiler: layout of the arrays, what an update touches, refusals, bounds of the address line."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import count

import numpy as np
import pytest

from engine.desired.policy import arrival, extension, membership
from engine.desired.policy import classes as classes_module
from engine.desired.policy import compiler as compiler_module
from engine.desired.policy import relabel as relabel_module
from engine.desired.policy.classes import L4Classes, LaneError, Spans, block_spans, distinct, expand, group
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.matrix import reachability
from engine.desired.policy.model import (
    Action,
    Block,
    Connection,
    Endpoint,
    KubernetesPolicy,
    Namespace,
    PeerRule,
    PodPeer,
    PortMatch,
    Refusal,
    Snapshot,
)
from engine.desired.policy.selector import EVERYTHING, equals
from engine.desired.policy.sets import ANY, NOTHING, Base, Derived, Listed, SetTable
from tests.engine.faults import FaultError, fault_at
from tests.engine.policy.generator import Generator


def pods(count=4, **labels):
    found = [
        Endpoint(f"p{i}", "x", {"app": f"a{i % 2}", **labels}, (ip_address(f"10.0.0.{i + 1}"),)) for i in range(count)
    ]
    return {pod.key: pod for pod in found}


def policy(name="p", subject=EVERYTHING, peers=None, ports=None, **fields):
    return KubernetesPolicy(
        name, "x", subject, frozenset(("ingress",)), (PeerRule(Action.ALLOW, peers, ports),), **fields
    )


def snapshot(*policies, **fields):
    return Snapshot(namespaces={"x": Namespace("x")}, **{"endpoints": pods(), **fields}, policies=policies)


def relabel(before, key, **labels):
    return replace(before, endpoints={**before.endpoints, key: replace(before.endpoints[key], labels=labels)})


# -- arrays ------------------------------------------------------------------
def test_arrays_are_consistent():
    for seed in range(20):
        program = Compiler().compile(Generator(seed).snapshot())
        assert program.rows.dtype == np.uint32
        assert program.rows.flags.c_contiguous
        assert (program.block_start <= program.block_end).all()
        assert program.block_end[-1] == len(program.rows)
        assert len(program.group_offset) == 2 * len(program.group_node) + 1
        assert program.group_offset[-1] == len(program.group_blocks)
        assert program.class_offset[-1] == len(program.class_sets)
        for g in range(len(program.group_node)):
            for direction in ("ingress", "egress"):
                _, tiers = program.group_rows(g, direction)
                assert (np.diff(tiers.astype(int)) >= 0).all(), "blocks ascend by tier"
        for low, high in zip(program.class_offset, program.class_offset[1:], strict=False):
            assert (np.diff(program.class_sets[low:high].astype(int)) > 0).all(), "sets ascend, once each"
        for version, table in program.tables.items():
            assert (np.sort(table.range_start) == table.range_start).all()
            assert (program.class_family[table.range_class] == version).all()
            assert (program.class_family[table.entry_class] == version).all()
        rules = program.rows[:, 8]
        assert (rules >= program.block_rule.min()).all()


def test_classes_are_exact():
    """Two addresses share a class exactly when they are in the same sets."""
    for seed in range(20):
        compiler = Compiler()
        program = compiler.compile(Generator(seed).snapshot())
        members = [
            (
                int(program.class_family[c]),
                tuple(program.class_sets[program.class_offset[c] : program.class_offset[c + 1]]),
            )
            for c in range(len(program.class_family))
        ]
        held = compiler.assembly.parts.class_lanes[0]
        assert len(set(held.tolist())) == len(members)


def test_whole_address_line_has_classes():
    nets = [ip_network(n) for n in ("0.0.0.0/0", "255.255.255.255/32", "0.0.0.0/32", "::/0", "::/128", "ffff::/16")]
    program = Compiler().compile(
        snapshot(policy(peers=tuple(map(Block, nets[:3]))), policy("q", peers=(Block(nets[3]), Block(nets[5]))))
    )
    for address in ("0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
        found = ip_address(address)
        local = "10.0.0.1"
        if found.version == 4:
            assert program.judge(Connection(found, ip_address(local), 6, 80)).allowed


def test_l4_classes():
    low = np.array([6 << 16 | 80, 0, 17 << 16], np.uint32)
    high = np.array([6 << 16 | 90, 0xFFFFFF, 17 << 16 | 65535], np.uint32)
    classes = L4Classes.of(low, high, np.array([11, 13, 17], np.uint64))
    tcp = classes.table[classes.slot[6]]
    assert len({tcp[79], tcp[80]}) == 2
    assert tcp[80] == tcp[90]
    assert tcp[79] == tcp[91] == tcp[0] == tcp[65535]
    udp = classes.table[classes.slot[17]]
    assert (udp == udp[0]).all()
    assert classes.slot[47] == 255
    assert classes.count[:2] == (2, 1)


def test_block_spans():
    block = Block(
        ip_network("10.0.0.0/29"), (ip_network("10.0.0.2/31"), ip_network("10.0.0.7/32"), ip_network("10.0.0.2/32"))
    )
    base = int(ip_address("10.0.0.0"))
    assert [(a - base, b - base) for _, a, b in block_spans(block)] == [(0, 1), (4, 6)]
    assert block_spans(Block(ip_network("10.0.0.0/31"), (ip_network("10.0.0.0/32"), ip_network("10.0.0.1/32")))) == []


def test_group_sees_a_collision_of_one_lane():
    with pytest.raises(LaneError):
        group((np.array([1, 1], np.uint64), np.array([2, 3], np.uint64)))
    with pytest.raises(LaneError):  # sums that differ only where the places of items are kept
        group((np.array([4, 5], np.uint64), np.array([1, 2], np.uint64)))


@pytest.mark.parametrize("many", [0, 1 << 20])
def test_group_numbers_classes_by_their_first_item(many, monkeypatch):
    monkeypatch.setattr(classes_module, "MANY", many)
    lane = np.array([5 << 40, 4 << 40, 5 << 40, 9 << 40, 4 << 40], np.uint64)
    found = group((lane, lane))
    assert found.label.tolist() == [0, 1, 0, 2, 1]
    assert found.first.tolist() == [0, 1, 3]


def test_spans_around_an_address():
    u32 = lambda *numbers: np.array(numbers, np.uint32)  # noqa: E731
    spans = Spans(u32(10, 20, 5, 0), u32(20, 30, 5, 99), u32(2, 3, 2, 7), 2)
    assert spans.around(u32(5), (2, 3, 7)) == {2, 7}
    assert spans.around(u32(20), (2, 3, 4)) == {2, 3}
    assert spans.around(u32(100), (2, 3, 7)) == set()


def test_expand_and_distinct():
    which, position = expand(np.array([3, 9, 5]), np.array([5, 9, 6]))
    assert (which.tolist(), position.tolist()) == ([0, 0, 2], [3, 4, 5])
    assert distinct(np.array([3, 1, 3, 2, 1])).tolist() == [1, 2, 3]
    assert distinct(np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("count", [3, 1 << 16, (1 << 16) + 1])
@pytest.mark.parametrize("highest", [2, 1 << 20])
def test_pairs_as_lists_whatever_their_size(count, highest):
    """Both ways of sorting them, by how large the numbers are."""
    classes, sets = np.array([2, 0, 2, 2, 0]), np.array([highest, 1, 0, highest, 2])
    offset, found = membership._sets_of_classes(classes, sets, count)
    assert (offset.dtype, found.dtype, len(offset)) == (np.uint32, np.uint32, count + 1)
    assert [found[offset[c] : offset[c + 1]].tolist() for c in range(3)] == [[1, 2], [], [0, highest]]
    bounds, members = membership._classes_of_sets(sets, classes, count)
    assert len(bounds) == count + 1
    assert [members[bounds[s] : bounds[s + 1]].tolist() for s in range(3)] == [[1, 2], [], [highest, 0, highest]]


def test_set_algebra():
    sets = SetTable()
    a, b = (Listed((ip_address("10.0.0.1"),)),), (Listed((ip_address("10.0.0.2"),)),)
    one, two = sets.number(Base(a)), sets.number(Base(b))
    assert sets.reference([]) == ANY
    assert sets.reference([((), False)]) == NOTHING << 1
    assert sets.reference([((), True)]) == ANY
    assert sets.reference([(a, False)]) == one << 1
    assert sets.reference([(a, True)]) == one << 1 | 1
    assert sets.reference([(a, False), (a, True)]) == NOTHING << 1
    assert sets.reference([(a, False), (a, False)]) == one << 1
    both = sets.reference([(a, True), (b, True)])
    assert (sets.definitions[both >> 1], both & 1) == (Derived((), (one, two)), 1)
    assert sets.definitions[sets.reference([(a, False), (b, True)]) >> 1] == Derived((one,), (two,))


# -- updates -----------------------------------------------------------------
def test_a_label_change_does_not_compile(monkeypatch):
    compiler = Compiler()
    before = snapshot(policy(subject=equals("app", "a0"), peers=(PodPeer(equals("app", "a1")),)))
    first = compiler.compile(before)
    monkeypatch.setattr(compiler_module, "build", None)
    after = compiler.update(relabel(before, "x/p0", app="a1"))
    assert after.rows is first.rows
    assert after.generation == first.generation + 1
    assert after.judge(Connection(ip_address("10.0.0.1"), ip_address("10.0.0.3"), 6, 80)).allowed
    assert not first.judge(Connection(ip_address("10.0.0.1"), ip_address("10.0.0.3"), 6, 80)).allowed, (
        "the old one stands"
    )


def test_a_pod_comes_and_goes_without_a_compilation(monkeypatch):
    compiler = Compiler()
    before = snapshot(policy(subject=equals("app", "a0"), peers=(PodPeer(equals("app", "a1")),)))
    first = compiler.compile(before)
    monkeypatch.setattr(compiler_module, "build", None)
    pod = Endpoint("new", "x", {"app": "a0"}, (ip_address("10.0.9.1"),))
    after = compiler.update(replace(before, endpoints={**before.endpoints, pod.key: pod}))
    assert after.rows is first.rows
    to_new = [Connection(ip_address(f"10.0.0.{n}"), pod.addresses[0], 6, 80) for n in (2, 3)]
    assert [after.judge(c).allowed for c in to_new] == [True, False]
    assert first.judge(to_new[1]).ingress.why == "outside", "the old one stands"
    gone = compiler.update(before)
    assert gone.judge(to_new[1]).ingress.why == "outside"
    assert after.judge(to_new[1]).ingress.why == "end-of-tier"


def test_pods_that_come_and_go_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(compiler_module, "SPARE", 20)
    compiler = Compiler()
    before = snapshot(policy(subject=equals("app", "a0"), peers=(PodPeer(equals("app", "a1")),)))
    compiler.compile(before)
    for turn in range(200):
        pod = Endpoint(f"new{turn}", "x", {"app": f"a{turn % 3}"}, (ip_address("10.0.9.1") + turn,))
        compiler.update(replace(before, endpoints={**before.endpoints, pod.key: pod}))
        assert len(compiler.assembly.population.endpoints) < 60


def test_a_claimed_address_goes_to_the_first_by_name():
    """Also to one that came later."""
    compiler = Compiler()
    before = snapshot(policy(subject=equals("app", "only"), peers=()))
    compiler.compile(before)
    pod = Endpoint("a", "x", {"app": "only"}, before.endpoints["x/p0"].addresses)
    program = compiler.update(replace(before, endpoints={**before.endpoints, pod.key: pod}))
    probe = Connection(ip_address("10.0.0.2"), pod.addresses[0], 6, 80)
    assert not program.judge(probe).allowed
    assert compiler.update(before).judge(probe).allowed


def test_an_irrelevant_label_changes_nothing_but_the_generation():
    compiler = Compiler()
    before = snapshot(policy(peers=(PodPeer(equals("app", "a1")),)))
    first = compiler.compile(before)
    after = compiler.update(relabel(before, "x/p0", app="a0", note="n"))
    assert after.tables is first.tables
    assert after.generation == first.generation + 1


def test_unchanged_policies_keep_their_rows(monkeypatch):
    compiler = Compiler()
    kept, other = policy(peers=(PodPeer(),)), policy("q")
    compiler.compile(snapshot(kept, other))
    lowered = []
    real = compiler_module.lower_policy
    monkeypatch.setattr(compiler_module, "lower_policy", lambda p, *rest: lowered.append(p.name) or real(p, *rest))
    compiler.update(snapshot(replace(kept), policy("q", ports=(PortMatch(6, 80, 80),))))
    assert lowered == ["q"]


def test_a_new_port_number_renews_the_policy_that_names_it():
    compiler = Compiler()
    before = snapshot(policy(ports=(PortMatch(6, name="web"),)))
    compiler.compile(before)
    from engine.desired.policy.model import NamedPort

    pod = replace(before.endpoints["x/p0"], ports=(NamedPort("web", 6, 8080),))
    program = compiler.update(replace(before, endpoints={**before.endpoints, "x/p0": pod}))
    assert program.judge(Connection(ip_address("10.0.0.2"), ip_address("10.0.0.1"), 6, 8080)).allowed
    assert not program.judge(Connection(ip_address("10.0.0.2"), ip_address("10.0.0.3"), 6, 8080)).allowed


def test_many_relabels_stay_bounded():
    """Going to and fro makes no class or group twice."""
    compiler = Compiler()
    before = snapshot(policy(subject=equals("app", "a0"), peers=(PodPeer(equals("app", "a1")),)))
    compiler.compile(before)
    sizes = set()
    for turn in range(20):
        program = compiler.update(relabel(before, "x/p0", app=f"a{turn % 3}"))
        sizes.add((len(program.class_family), len(program.group_node)))
    assert max(size[0] for size in sizes) <= len(sizes) + min(size[0] for size in sizes)
    assert len(sizes) <= 3


def test_unused_sets_and_classes_are_swept(monkeypatch):
    monkeypatch.setattr(compiler_module, "SPARE", 3)
    compiler = Compiler()
    for turn in range(30):
        before = snapshot(policy(peers=(PodPeer(equals("app", f"v{turn}")),)))
        compiler.compile(before)
    assert len(compiler.assembly.sets.definitions) < 15
    compiler.compile(snapshot(*(policy(f"p{i}", peers=(PodPeer(equals(f"k{i}", "v")),)) for i in range(6))))
    for turn in range(64):
        labels = {f"k{i}": "v" for i in range(6) if turn >> i & 1}
        program = compiler.relabel(replace(pods()["x/p0"], labels=labels))
    assert len(program.class_family) < 30


def test_refused_policies_are_listed_and_deny():
    compiler = Compiler()
    program = compiler.compile(snapshot(policy(refusal=Refusal("because"))))
    assert [(r.policy, r.reason) for r in compiler.refused] == [("NetworkPolicy x/p", "because")]
    decision = program.judge(Connection(ip_address("10.0.0.2"), ip_address("10.0.0.1"), 6, 80)).ingress
    assert (decision.allowed, decision.why, decision.name) == (False, "refused", "because")


def test_two_claimants_of_one_address():
    shared = {k: replace(v, addresses=(ip_address("10.0.0.1"),)) for k, v in pods(2).items()}
    program = Compiler().compile(snapshot(policy(peers=(PodPeer(equals("app", "a1")),)), endpoints=shared))
    assert len(program.tables[4].entry_key) == 1
    assert int(program.tables[4].entry_owner[0]) == 0


def test_empty_snapshot():
    program = Compiler().compile(Snapshot())
    assert program.judge(Connection(ip_address("10.0.0.2"), ip_address("10.0.0.1"))).allowed
    assert program.size > 0


def test_relabel_needs_a_compilation():
    with pytest.raises(ValueError, match="nothing was compiled"):
        Compiler().relabel(Endpoint("p", "x"))


def decisions(program, addresses):
    both = reachability(program, addresses, 6 << 16 | 80, 49_152)
    return [side.tolist() for side in both]


def test_a_fault_on_the_way_does_not_show_in_what_is_compiled_next():
    """One endpoint is relabelled, one goes, one comes; the fault is tried at every call."""
    rules = policy(subject=equals("app", "a0"), peers=(PodPeer(equals("app", "a1")),)), policy("q", equals("app", "a1"), ())
    before = snapshot(*rules)
    changed = relabel(before, "x/p0", app="a1", more="yes").endpoints
    new = Endpoint("new", "x", {"app": "a0"}, (ip_address("10.0.9.1"),))
    after = replace(before, endpoints={k: e for k, e in {**changed, new.key: new}.items() if k != "x/p1"})
    addresses = [address for e in {**before.endpoints, **after.endpoints}.values() for address in e.addresses]
    for wanted in (after, before):
        expected = decisions(Compiler().compile(wanted), addresses)
        for call in count():
            compiler = Compiler()
            compiler.compile(before)
            try:
                with fault_at(call, (compiler_module, arrival, relabel_module, extension)):
                    compiler.update(after)
            except FaultError:
                assert decisions(compiler.update(wanted), addresses) == expected, call
            else:
                break
        assert call > 20, "the short way was tried"


def test_derive():
    ints = lambda *numbers: np.array(numbers)  # noqa: E731
    scratch = np.zeros(8, bool)
    assert membership.derive([ints(1, 2, 3), ints(2, 3, 4)], [ints(3)], scratch).tolist() == [2]
    assert membership.derive([ints(3, 4, 5, 6), ints(4, 6)], [], scratch).tolist() == [4, 6]
    assert membership.derive([], [ints(1, 3), ints(2, 3)], scratch).tolist() == [1, 2, 3]
    assert not scratch.any()
