"""Addresses: never given twice, never lost, never too soon again, whatever the order of things."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from engine.pod.ipam.allocator import Allocator, NoAddressError, Settings, TakenError
from engine.pod.ipam.block import Block, Rules, Taken, find_free, give_back, take
from engine.pod.ipam.pool import Pool, exclusion, pool_of
from engine.pod.store import ConflictError, MemoryStore

V4, V6 = ip_network("10.1.0.0/26"), ip_network("fd00:1::/64")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def allocator(*prefixes, store=None, node="a", clock=None, reserved=(), taken=(), **settings):
    prefixes = prefixes or (V4, V6)
    return Allocator(
        store or MemoryStore(),
        Settings(
            node,
            tuple(pool_of(prefix, 28, 122) for prefix in prefixes),
            exclusion(prefixes, reserved, taken),
            exclusion(prefixes, (), taken),
            tuple(reserved),
            **settings,
        ),
        clock or Clock(),
    )


def texts(addresses):
    return [str(address) for address in addresses]


def test_addresses_are_given_in_order_and_the_ends_never():
    found = allocator(taken=[ip_address("10.1.0.1")])
    assert texts(found.assign("a", (4, 6))) == ["10.1.0.2", "fd00:1::1"]
    assert texts(found.assign("b", (6, 4))) == ["10.1.0.3", "fd00:1::2"]
    rest = [found.assign(f"x{number}", (4,))[0] for number in range(59)]
    assert ip_address("10.1.0.63") not in rest
    with pytest.raises(NoAddressError) as caught:
        found.assign("z", (4,))
    assert not caught.value.soon
    assert len({given.address for given in found.given()}) == 63


def test_what_one_has_is_found_without_a_look_at_what_others_have(monkeypatch):
    """Thousands of deletions in a row ask for it."""
    found = allocator(taken=[ip_address("10.1.0.1")])
    for name in ("a", "b", "c"):
        found.assign(name, (4, 6))
    made = []
    address = Block.address
    monkeypatch.setattr(Block, "address", lambda block, offset: made.append(offset) or address(block, offset))
    assert texts(found.given_to("b")) == ["10.1.0.3", "fd00:1::2"]
    assert len(made) == 2
    found.release("b", found.given_to("b"))
    assert found.given_to("b") == []
    assert found.given_to("nobody") == []


def test_all_or_nothing():
    found = allocator(ip_network("10.1.0.0/30"), V6)
    for number in range(2):
        found.assign(f"x{number}", (4,))
    with pytest.raises(NoAddressError):
        found.assign("y", (6, 4))
    assert all(given.taken.handle != "y" for given in found.given())


def test_no_immediate_reuse_and_the_longest_free_first():
    clock = Clock()
    found = allocator(ip_network("10.1.0.0/29"), clock=clock, cooldown=10.0)
    given = {f"x{number}": found.assign(f"x{number}", (4,)) for number in range(6)}
    for number in (3, 1, 2):
        clock.now += 1
        found.release(f"x{number}", given[f"x{number}"])
    with pytest.raises(NoAddressError, match="cooling down") as caught:
        found.assign("y", (4,))
    assert caught.value.soon
    assert not found.has_free(4)
    clock.now += 8.5
    assert found.assign("y", (4,)) == given["x3"]
    with pytest.raises(NoAddressError):
        found.assign("z", (4,))
    clock.now += 10
    assert found.assign("z", (4,)) == given["x1"]


def test_a_clock_that_was_set_back_does_not_lock_addresses_away():
    clock = Clock()
    found = allocator(ip_network("10.1.0.0/31"), clock=clock, cooldown=10.0)
    clock.now = 1e9
    for handle in ("a", "b"):
        found.release(handle, found.assign(handle, (4,)))
    clock.now = 1000.0
    assert found.assign("c", (4,))


def test_a_wanted_address():
    found = allocator(reserved=[ip_network("10.1.0.32/28")], taken=[ip_address("10.1.0.1")])
    wanted = [ip_address("10.1.0.40")]
    assert texts(found.assign("a", (4, 6), wanted=wanted)) == ["10.1.0.40", "fd00:1::1"], "reserved, but asked for"
    with pytest.raises(TakenError, match="belongs to a"):
        found.assign("b", (4, 6), wanted=wanted)
    assert [given.taken.handle for given in found.given()] == ["a", "a"]
    for text in ("10.1.0.1", "10.1.0.0", "10.1.0.63", "10.9.0.1", "fd00:1::", "fd00:2::1"):
        with pytest.raises(TakenError, match="in no pool"):
            found.assign("c", (), wanted=[ip_address(text)])
    assert ip_address("10.1.0.33") not in [found.assign(f"x{n}", (4,))[0] for n in range(45)]


def test_release_is_for_the_owner_and_twice_is_harmless():
    found = allocator()
    (address,) = found.assign("a", (4,))
    assert found.release("b", [address]) == []
    assert found.release("a", [address]) == [address]
    assert found.release("a", [address]) == []
    assert found.release_address(address) is None


def test_a_sticky_address_is_kept_until_nothing_else_is_left():
    found = allocator(ip_network("10.1.0.0/29"))
    (mine,) = found.assign("pod-1", (4,), sticky="default/db-0")
    found.release("pod-1", [mine])
    others = [found.assign(f"x{number}", (4,))[0] for number in range(5)]
    assert mine not in others
    assert found.assign("pod-2", (4,), sticky="default/db-0") == (mine,)
    found.release("pod-2", [mine])
    assert found.assign("x5", (4,)) == (mine,), "the last resort"
    found.release("x5", [mine])
    (again,) = found.assign("pod-3", (4,), sticky="default/db-0")
    found.release("pod-3", [again])
    found.release_address(again)
    assert found.assign("y", (4,)) == (again,), "forgotten"


def test_pools_can_be_chosen():
    found = allocator(V4, ip_network("10.2.0.0/26"))
    assert texts(found.assign("a", (4,), within=[ip_network("10.2.0.0/26")])) == ["10.2.0.1"]
    with pytest.raises(NoAddressError, match="no IPv4 pool"):
        found.assign("a", (4,), within=[ip_network("10.3.0.0/26")])
    with pytest.raises(NoAddressError, match="no IPv6 pool"):
        found.assign("a", (6,))


def test_a_pool_reserved_as_a_whole_ends_the_search():
    found = allocator(V6, reserved=[V6])
    with pytest.raises(NoAddressError):
        found.assign("a", (6,))
    assert not found.has_free(6)


def test_what_is_reserved_is_leapt_over():
    first = ip_network("10.0.0.0/9")
    found = allocator(ip_network("10.0.0.0/8"), reserved=[first, ip_network("10.128.0.0/27"), ip_network("10.128.0.40/32")])
    assert texts(found.assign("a", (4,))) == ["10.128.0.32"]
    half = ip_network("fd00:1::8000:0:0:0/65")
    found = allocator(V6, reserved=[ip_network("fd00:1::/65")])
    assert found.assign("a", (6,))[0] in half


@pytest.mark.parametrize("reserved", [[], ["10.1.0.0/26"], ["10.1.0.16/28", "10.1.0.0/27"], ["10.1.0.8/29"], ["10.0.0.0/8"], ["fd00::/8"]])
def test_blocks_but_for_those_reserved_as_a_whole(reserved):
    ranges = [ip_network(text) for text in reserved]
    expected = [
        block
        for block in V4.subnets(new_prefix=28)
        if not any(block.version == whole.version and block.subnet_of(whole) for whole in ranges)
    ]
    assert list(Pool(V4, 28).blocks(ranges)) == expected


def test_empty_blocks_are_let_go():
    found = allocator()
    given = found.assign("a", (4, 6))
    assert found.reclaim() == 0
    found.release("a", given)
    assert found.reclaim() == 2
    assert list(found.blocks()) == []


@pytest.mark.parametrize(("prefix", "length"), [("10.0.0.0/8", 7), ("10.0.0.0/8", 23), ("fd00::/64", 119), ("10.0.0.0/30", 33)])
def test_blocks_that_cannot_be(prefix, length):
    with pytest.raises(ValueError):
        Pool(ip_network(prefix), length)


# -- several nodes on one store --------------------------------------------------
def test_nodes_have_blocks_of_their_own_and_borrow_at_the_end():
    store = MemoryStore()
    a = allocator(V4, store=store, node="a", borrow=True)
    b = allocator(V4, store=store, node="b")
    assert a.assign("p", (4,))[0] in ip_network("10.1.0.0/28")
    assert b.assign("q", (4,))[0] in ip_network("10.1.0.16/28")
    for number in range(14 + 16 + 15):
        a.assign(f"x{number}", (4,))
    borrowed = a.assign("y", (4,))[0]
    assert borrowed in ip_network("10.1.0.16/28")
    assert {block.node for _, block in a.blocks()} == {"a", "b"}
    for number in range(14):
        b.assign(f"z{number}", (4,))
    with pytest.raises(NoAddressError):
        b.assign("w", (4,))
    assert a.release("y", [borrowed]) == [borrowed]


def test_a_node_has_no_more_blocks_than_it_may():
    found = allocator(V4, blocks_limit=1)
    for number in range(15):
        found.assign(f"x{number}", (4,))
    with pytest.raises(NoAddressError):
        found.assign("y", (4,))


class Racing(MemoryStore):
    """Another node gets in between now and then."""

    def __init__(self):
        super().__init__()
        self.other = None
        self.countdown = 0

    def _written(self, key, stored):
        if self.other is not None and self.countdown == 0:
            self.countdown = 3
            self.other()
            raise ConflictError("somebody was faster", where=key)
        self.countdown -= 1


def test_a_race_is_lost_without_harm():
    store = Racing()
    a = allocator(V4, store=store, node="a", borrow=True)
    b = allocator(V4, store=store, node="b", borrow=True)
    numbers = iter(range(1000))

    def other():
        before, store.other = store.other, None
        b.assign(f"b{next(numbers)}", (4,))
        store.other = before

    store.other = other
    for number in range(15):
        a.assign(f"a{number}", (4,))
    given = list(a.given())
    assert len({entry.address for entry in given}) == len(given)
    assert sum(entry.taken.handle.startswith("a") for entry in given) == 15


class Machine(RuleBasedStateMachine):
    """Two nodes that assign, release and reclaim on one store, beside a dict that knows who has what."""

    held = Bundle("held")

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore()
        self.pool = ip_network("10.1.0.0/27")
        self.nodes = [
            allocator(self.pool, store=self.store, node=name, clock=self.clock, cooldown=5.0, borrow=True) for name in "ab"
        ]
        self.owners = {}
        self.released = {}
        self.count = 0

    @rule(target=held, node=st.sampled_from([0, 1]), sticky=st.sampled_from(["", "", "s1", "s2"]))
    def assign(self, node, sticky):
        self.count += 1
        handle = f"h{self.count}"
        try:
            (address,) = self.nodes[node].assign(handle, (4,), sticky=sticky)
        except NoAddressError:
            return None
        assert address not in self.owners, "given twice"
        assert address in self.pool
        assert address not in (self.pool.network_address, self.pool.broadcast_address)
        if not sticky:
            assert self.clock() - self.released.get(address, -100) >= 5.0, "given too soon"
        self.owners[address] = handle
        return handle, address

    @rule(node=st.sampled_from([0, 1]), entry=held)
    def release(self, node, entry):
        if entry is None:
            return
        handle, address = entry
        expected = [address] if self.owners.get(address) == handle else []
        assert self.nodes[node].release(handle, [address]) == expected
        if expected:
            del self.owners[address]
            self.released[address] = self.clock()

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(node=st.sampled_from([0, 1]))
    def reclaim(self, node):
        self.nodes[node].reclaim()

    @invariant()
    def the_store_knows_exactly_the_owners(self):
        assert {given.address: given.taken.handle for given in self.nodes[0].given()} == self.owners


TestMachine = Machine.TestCase
TestMachine.settings = hypothesis.settings(max_examples=40, stateful_step_count=40, deadline=None)


@hypothesis.given(st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=60))
def test_an_offset_is_in_one_place_only(steps):
    block = Block("10.0.0.0/28")
    now = 0.0
    for gives, offset in steps:
        now += 1
        if gives and offset not in block.taken:
            block = take(block, offset, Taken("h", now))
        elif not gives and offset in block.taken:
            block = give_back(block, offset, now)
        free = [entry.offset for entry in block.free]
        assert len(set(free)) == len(free)
        assert not set(free) & set(block.taken)
        assert block.fresh == 16 or block.fresh not in {*free, *block.taken} or block.fresh == 0
        chosen = find_free(block, Rules(lambda _: False, now + 1, 0.0))
        assert (chosen is None) == (len(block.taken) == 16)
        assert chosen not in block.taken
