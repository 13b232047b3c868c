"""The route table as Python programs use it: keys, mapping, arrays, snapshots, errors, threads."""

from __future__ import annotations

import copy
import doctest
import gc
import pickle
import random
import resource
import socket
import sys
import threading
import weakref
from collections.abc import MutableMapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest

import fastpath.lpm
from fastpath import lpm_text
from fastpath.lpm import RouteTable
from fastpath.lpm_text import read_routes

ROUTES = {
    "0.0.0.0/0": "default",
    "10.0.0.0/8": "ten",
    "10.1.0.0/16": "edge",
    "10.1.2.0/24": "rack",
    "10.1.2.3/32": "host",
    "::/0": "default6",
    "2001:db8::/32": "lab",
    "2001:db8::1/128": "host6",
}


@pytest.fixture
def table() -> RouteTable:
    return RouteTable(ROUTES)


@pytest.mark.parametrize("module", [fastpath.lpm, lpm_text])
def test_the_examples_of_the_documentation(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


# -- keys ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["10.1.2.3", 0x0A010203, np.uint32(0x0A010203), b"\x0a\x01\x02\x03", IPv4Address("10.1.2.3"),
     IPv4Network("10.1.2.3/32"), "10.1.2.3/32", ("10.1.2.3", 32), (0x0A010203, 32), (b"\x0a\x01\x02\x03", 32)],
)
def test_every_kind_of_ipv4_key(table, key):
    assert table[key] == "host"
    assert table.exact(key) == "host"
    assert table.get_key(key) == "10.1.2.3/32"
    del table[key]
    assert table[key] == "rack"


@pytest.mark.parametrize(
    "key",
    ["2001:db8::1", "2001:DB8:0:0::0.0.0.1", 0x20010DB8 << 96 | 1, IPv6Address("2001:db8::1"),
     IPv6Address("2001:db8::1").packed, IPv6Network("2001:db8::1/128"), ("2001:db8::1", 128)],
)
def test_every_kind_of_ipv6_key(table, key):
    assert table[key] == "host6"
    table.pop(key)
    assert table[key] == "lab"


@pytest.mark.parametrize(
    "key",
    ["", "10", "10.1.2", "10.1.2.3.4", "10.1.2.256", "10.1.2.03", "10.1.2.3/", "10.1.2.3/33", "10.1.2.3/ 8", " 10.1.2.3",
     "10.1.2.3/8/8", "10.1.2.3x", "10..2.3", ":::", "2001:db8::/129", "2001:db8::/-1", "fe80::1%lo", "1::2::3", "é", "a" * 300,
     "0" * 100, "10.1.2.3\0", "2001:db8::1\0/128", -1, 1 << 128, b"", b"12345", b"0" * 17, IPv6Address("fe80::1%lo")],
)
def test_what_is_no_address_is_named_in_the_error(table, key):
    for ask in (table.__getitem__, table.get, table.has_key, table.parent, table.subnets, table.__contains__):
        with pytest.raises(ValueError, match=r"."):
            ask(key)
    with pytest.raises(ValueError, match=r"."):
        table[key] = 1
    assert dict(table.items()) == ROUTES


def spelling(rng: random.Random) -> str:
    """Something like an IPv6 address: right, or wrong by a group, a colon or a digit."""
    words = [rng.choice(["0", "1", "ffff", "DB8", "00a1"]) for _ in range(rng.randrange(1, 10))]
    if rng.random() < 0.4:
        words[rng.randrange(-1, len(words))] = rng.choice(["12345", "g", "1.2.3.4", "1.2.3.256", "1.2.3.04"])
    for _ in range(rng.randrange(3)):
        words.insert(rng.randrange(len(words) + 1), "")
    return rng.choice(["", "", "", ":"]) + ":".join(words) + rng.choice(["", "", "", ":"])


def as_the_c_library_reads(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return None


def test_ipv6_text_means_what_it_means_to_the_c_library():
    rng, table, valid = random.Random(6), RouteTable(), 0
    edges = ["::", ":::", "::1", "1::", "1::8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8",
             "1:2:3:4::5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "::1.2.3.4:5", "1:2:3:4:5:6:7:8:"]
    for text in [*edges, *(spelling(rng) for _ in range(10_000))]:
        packed = as_the_c_library_reads(text)
        if packed is not None:
            valid += 1
            table[packed] = text
            assert table.pop(text) == text
        elif ":" in text:
            with pytest.raises(ValueError, match="not an address"):
                table.get(text)
    assert valid > 500


@pytest.mark.parametrize("key", ["10.1.2.3/24", ("10.1.2.3", 24), ("2001:db8::1", 64), "2001:db8::1/127", "1.0.0.0/0"])
def test_host_bits_are_an_error(table, key):
    for ask in (table.__getitem__, table.overlaps, lambda k: table.insert(k, 1)):
        with pytest.raises(ValueError, match="bits set behind the prefix length"):
            ask(key)
    assert dict(table.items()) == ROUTES


@pytest.mark.parametrize("key", [None, 1.5, [], {}, object(), bytearray(4), ("10.0.0.0",), ("10.0.0.0", 8, 1), ("10.0.0.0", "8"),
                                 ("10.0.0.0", True), (None, 8)])
def test_other_types_are_type_errors(table, key):
    with pytest.raises(TypeError, match=r"."):
        table[key]
    with pytest.raises(TypeError, match=r"."):
        table[key] = 1
    assert dict(table.items()) == ROUTES


def test_a_length_out_of_range_or_twice(table):
    with pytest.raises(ValueError, match=r"not 0\.\.32"):
        table[("10.0.0.0", 33)] = 1
    with pytest.raises(ValueError, match="already has a length"):
        table[("10.0.0.0/8", 8)] = 1


@pytest.mark.parametrize(
    "text",
    ["::/0", "::/128", "::1/128", "::1:0/112", "::ffff:102:304/128", "1::/16", "1:0:0:2::/64", "0:1:2:3:4:5:6:7/128", "1:0:2:3:4:5:6:7/128",
     "1:2:3:4:5:6:7:0/128", "1:2:3:4:5:6::/128", "0:0:1::/48", "2001:db8:a0b:12f0::/64", "255.255.255.255/32", "0.0.0.0/32", "1.20.30.0/24"],
)
def test_prefixes_are_written_as_they_should_be(text):
    assert list(RouteTable({text: 1})) == [str(ip_network(text))]


def test_the_families_never_collide(table):
    assert table["32.1.13.184"] == "default"  # 0x20010db8
    assert table["32.1.13.184"] != table["2001:db8::"]
    del table["::/0"]
    assert "10.1.2.3" in table
    assert "a00::1" not in table


def test_small_integers_are_ipv4_and_large_ones_ipv6(table):
    assert table[2**32 - 1] == "default"
    assert table[2**32] == "default6"


# -- the mapping -----------------------------------------------------------------


def test_it_is_a_mapping(table):
    assert isinstance(table, MutableMapping)
    assert list(table) == list(table.keys()) == list(ROUTES)
    assert list(table.values()) == list(ROUTES.values())
    assert dict(table.items()) == ROUTES
    assert len(table) == len(ROUTES)
    assert table
    assert not RouteTable()
    assert repr(table) == "<RouteTable: 5 IPv4 and 3 IPv6 routes>"


def test_covered_is_not_exact(table):
    assert "10.1.2.9" in table
    assert "10.1.2.0/25" in table
    assert not table.has_key("10.1.2.0/25")
    assert table["10.1.2.0/25"] == "rack"
    with pytest.raises(KeyError):
        table.exact("10.1.2.0/25")
    with pytest.raises(KeyError):
        del table["10.1.2.0/25"]
    assert table.exact("10.1.2.0/25", None) is None


def test_missing_keys():
    table = RouteTable()
    with pytest.raises(KeyError, match=r"10\.0\.0\.1"):
        table["10.0.0.1"]
    assert table.get("10.0.0.1") is None
    assert table.get("10.0.0.1", 5) == 5
    assert table.pop("10.0.0.1", 5) == 5
    assert table.get_key("10.0.0.1") is None
    assert table.parent("0.0.0.0/0") is None
    for ask in (table.pop, table.exact):
        with pytest.raises(KeyError):
            ask("10.0.0.1")
    with pytest.raises(KeyError, match="empty"):
        table.popitem()


def test_setdefault_insert_and_popitem(table):
    assert table.setdefault("10.0.0.0/8", "new") == "ten"
    assert table.setdefault("10.0.0.0/9", "new") == "new"
    table.insert("10.128.0.0", 9, "upper")
    assert table["10.200.0.0"] == "upper"
    with pytest.raises(TypeError, match="not 1 arguments"):
        table.insert("10.0.0.0/8")
    assert table.popitem() == ("0.0.0.0/0", "default")
    assert "0.0.0.0/0" not in list(table)


def test_a_value_may_be_anything_and_is_returned_itself(table):
    for value in (None, 0, "", [], {"unhashable": []}, float("nan"), object(), b"x", 1, True, 1.0, 2**100):
        table["10.9.0.0/16"] = value
        assert table["10.9.1.1"] is value
        assert table.exact("10.9.0.0/16") is value


def test_values_are_released():
    class Value:
        pass

    table, value = RouteTable(), Value()
    seen = weakref.ref(value)
    references = sys.getrefcount(None)
    for i in range(100):
        table[f"10.{i}.0.0/16"] = value
    del value
    table["10.0.0.0/16"] = None
    assert seen() is not None
    for i in range(1, 100):
        del table[f"10.{i}.0.0/16"]
    assert table.reclaim() == 0
    gc.collect()
    assert seen() is None
    assert sys.getrefcount(None) - references < 10


def test_a_value_that_changes_the_table_when_it_dies():
    table = RouteTable()

    class Mischief:
        def __del__(self):
            table["10.2.0.0/16"] = "from the grave"

    table["10.1.0.0/16"] = Mischief()
    del table["10.1.0.0/16"]
    table.reclaim()
    table["10.3.0.0/16"] = 1
    table.reclaim()
    assert dict(table.items()) == {"10.2.0.0/16": "from the grave", "10.3.0.0/16": 1}


def test_equality_copy_and_pickle(table):
    other = copy.copy(table)
    assert other == table == ROUTES
    assert table.copy() == table
    other["10.0.0.0/8"] = "changed"
    assert other != table
    assert table != 5
    assert pickle.loads(pickle.dumps(table)) == table
    assert copy.deepcopy(table) == table
    with pytest.raises(TypeError, match="unhashable"):
        hash(table)


def test_relations(table):
    assert table.parent("10.1.2.3/32") == "10.1.2.0/24"
    assert table.parent("10.1.128.0/17") == "10.1.0.0/16"
    assert table.parent("10.0.0.0/8") == "0.0.0.0/0"
    assert [key for key, _ in table.supernets("10.1.2.3")] == [
        "10.1.2.3/32", "10.1.2.0/24", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]
    assert table.children("10.0.0.0/8") == ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"]
    assert table.children("10.0.0.0/9") == ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"]
    assert table.subnets("10.1.2.0/24") == [("10.1.2.0/24", "rack"), ("10.1.2.3/32", "host")]
    assert table.children("0.0.0.0/0") == list(ROUTES)[1:5]
    assert table.subnets("2001:db8::/33") == [("2001:db8::1/128", "host6")]
    assert table.subnets("11.0.0.0/8") == []


def test_overlaps():
    table = RouteTable({"10.0.0.0/8": 1, "11.1.0.0/16": 2})
    assert table.overlaps("10.1.2.0/24")
    assert table.overlaps("11.0.0.0/8")
    assert table.overlaps("0.0.0.0/0")
    assert not table.overlaps("12.0.0.0/8")
    assert not table.overlaps("::/0")


def test_changing_while_iterating_is_an_error(table):
    keys = iter(table)
    del table[next(keys)]
    with pytest.raises(RuntimeError, match="changed during iteration"):
        next(keys)


def test_a_long_listing_spans_batches():
    table = RouteTable((f"10.{i >> 8}.{i & 255}.0/24", i) for i in range(3000))
    assert list(table.values()) == list(range(3000))
    assert len(table.subnets("10.4.0.0/14")) == 1024


# -- many at once -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [("10.0.0.1/8", 1), ("nonsense", 1), ("10.0.0.0/8",), 5, (None, 1)])
def test_update_is_all_or_nothing(table, wrong):
    with pytest.raises((TypeError, ValueError)):
        table.update([("192.0.2.0/24", 1), ("2001:db8:1::/48", 2), wrong])
    assert dict(table.items()) == ROUTES


def test_update_takes_mappings_pairs_and_tables(table):
    table.update({"192.0.2.0/24": 1})
    table.update([("192.0.2.0/24", 2), ("192.0.2.0/24", 3)])
    table.update(RouteTable({"198.51.100.0/24": 4}))
    assert table["192.0.2.1"] == 3
    assert table["198.51.100.1"] == 4


def test_load_arrays(table):
    table.load(np.array([0x0A000000, 0x0B000000], np.uint32), np.array([8, 9], np.uint8), ["a", "b"])
    assert table["10.9.9.9"] == "a"
    pairs = np.array([[0x20010DB8 << 32, 0], [0x20010DB9 << 32, 0]], np.uint64)
    table.load(pairs, np.array([32, 32], np.uint8), np.array([5, -6]))
    assert table["2001:db8:1::"] == 5
    assert table["2001:db9::"] == -6
    table.load(np.frombuffer(IPv6Address("2001:dba::").packed, np.uint8).reshape(1, 16), np.array([32], np.uint8), [None])
    assert table["2001:dba::1"] is None
    assert type(table["2001:db8:1::"]) is int


@pytest.mark.parametrize(
    ("addresses", "lengths", "values", "error"),
    [
        (np.zeros(2, np.uint32), np.zeros(1, np.uint8), [1], ValueError),
        (np.zeros(1, np.uint32), np.zeros(1, np.uint8), [1, 2], ValueError),
        (np.zeros(1, np.uint32), np.full(1, 33, np.uint8), [1], ValueError),
        (np.ones(1, np.uint32), np.zeros(1, np.uint8), [1], ValueError),
        (np.zeros(1, np.int32), np.zeros(1, np.uint8), [1], TypeError),
        (np.zeros((1, 3), np.uint64), np.zeros(1, np.uint8), [1], TypeError),
        (np.zeros(1, np.uint32), np.zeros(1, np.int64), [1], ValueError),
        ([0], np.zeros(1, np.uint8), [1], TypeError),
    ],
)
def test_wrong_arrays_change_nothing(table, addresses, lengths, values, error):
    with pytest.raises(error):
        table.load(addresses, lengths, values)
    assert dict(table.items()) == ROUTES


def test_routes_from_text(tmp_path, table):
    path = tmp_path / "routes.txt"
    path.write_text("# a comment\n\n10.0.0.0/8 core\n192.0.2.0\t24\t64500\n2001:db8::/32\n"
                    "TABLE_DUMP2|1700000000|B|192.0.2.9|64500|198.51.100.0/24|64500 64501|IGP|192.0.2.9|0|0||NAG||\n")
    table = RouteTable(read_routes(path))
    assert dict(table.items()) == {"10.0.0.0/8": "core", "192.0.2.0/24": "64500", "198.51.100.0/24": "192.0.2.9", "2001:db8::/32": None}
    for wrong in ("10.0.0.0", "TABLE_DUMP2|x", "hello world"):
        with pytest.raises(ValueError, match="line 2"):
            table.update(read_routes(["1.0.0.0/8 x", wrong]))
    assert len(table) == 4


# -- arrays in, arrays out ------------------------------------------------------------


def test_lookup_of_all_three_shapes(table):
    four = np.array([int(ip_address(a)) for a in ("10.1.2.3", "10.1.9.9", "192.0.2.1")], np.uint32)
    assert table.resolve(table.lookup(four)) == ["host", "edge", "default"]
    six = ["2001:db8::1", "2001:db8::2", "3000::"]
    octets = np.frombuffer(b"".join(ip_address(a).packed for a in six), np.uint8).reshape(-1, 16)
    pairs = octets.view(">u8").astype(np.uint64)
    assert table.resolve(table.lookup(pairs)) == table.resolve(table.lookup(octets)) == ["host6", "lab", "default6"]


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1023, 1024, 5000])
def test_every_size_agrees_with_single_questions(table, n):
    keys = np.random.default_rng(n).integers(0, 2**32, n, np.uint32)
    keys[::2] = keys[::2] & 0x3FF | 0x0A010000
    assert table.lookup(keys).tolist() == [table.number(int(key)) for key in keys]
    octets = np.random.default_rng(n).integers(0, 256, (n, 16), np.uint8)
    octets[::2, :8] = 0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0
    assert table.lookup(octets).tolist() == [table.number(bytes(key)) for key in octets]


def test_out_is_filled_and_returned(table):
    keys = np.array([0x0A010203] * 3, np.uint32)
    out = np.zeros(3, np.uint32)
    assert table.lookup(keys, out=out) is out
    assert table.resolve(out) == ["host"] * 3


@pytest.mark.parametrize(
    "keys",
    [np.zeros(3, np.int32), np.zeros(3, np.uint64), np.zeros((3, 2), np.uint32), np.zeros((3, 3), np.uint64),
     np.zeros((3, 15), np.uint8), np.zeros(3, np.float32), np.zeros((), np.uint32), b"1234", np.zeros(3, ">u4"),
     np.zeros(3, [("a", "u4")])],
)
def test_other_arrays_are_type_errors(table, keys):
    with pytest.raises(TypeError, match="addresses are uint32"):
        table.lookup(keys)


@pytest.mark.parametrize("octets", [4, 16])
def test_out_may_touch_the_addresses_and_not_overlap_them(table, octets):
    memory = np.zeros(4096, np.uint8)
    keys = memory[1024 : 1024 + 3 * octets].view(np.uint32)
    keys = keys if octets == 4 else keys.view(np.uint8).reshape(3, 16)
    pairs = [keys] if octets == 4 else [keys, keys.view(np.uint64)]
    for start in (1024 - 12, 1024 + 3 * octets):
        for some in pairs:
            assert table.lookup(some, memory[start : start + 12].view(np.uint32)).tolist() == table.lookup(some).tolist()
    for start in (1024 - 8, 1024, 1024 + 3 * octets - 4):
        for some in pairs:
            out = memory[start : start + 12].view(np.uint32)
            with pytest.raises(ValueError, match="overlaps"):
                table.lookup(some, out)
            with table.snapshot() as view, pytest.raises(ValueError, match="overlaps"):
                view.lookup(some, out)


def test_wrong_out_and_wrong_layout(table):
    keys = np.zeros(4, np.uint32)
    for out in (np.zeros(4, np.int64), np.zeros((4, 1), np.uint32)):
        with pytest.raises(TypeError, match="out must be uint32"):
            table.lookup(keys, out)
    with pytest.raises(ValueError, match="5 elements for 4 addresses"):
        table.lookup(keys, np.zeros(5, np.uint32))
    with pytest.raises(ValueError, match="overlaps"):
        table.lookup(keys, keys)
    with pytest.raises(ValueError, match="contiguous"):
        table.lookup(np.zeros(8, np.uint32)[::2])
    fixed = np.zeros(4, np.uint32)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only|not writable"):
        table.lookup(keys, fixed)
    with pytest.raises(TypeError):
        table.lookup([1, 2, 3])
    with pytest.raises(ValueError, match="none of this table's"):
        table.resolve(np.array([99], np.uint32))


# -- versions ---------------------------------------------------------------------------


def test_a_snapshot_keeps_its_version_and_its_values(table):
    keys = np.array([0x0A010203, 0x0A010909], np.uint32)
    with table.snapshot() as view:
        numbers = view.lookup(keys)
        table["10.1.2.3"] = "other"
        del table["10.1.0.0/16"]
        for i in range(2000):  # enough to reuse every piece and number that were free to reuse
            table[f"172.16.{i % 256}.0/24"] = f"value {i}"
        assert view.resolve(numbers) == ["host", "edge"]
        assert view["10.1.2.3"] == "host"
        assert view.get("2001:db8::1") == "host6"
        assert np.array_equal(view.lookup(keys), numbers)
        assert table.reclaim() > 0
        with pytest.raises(ValueError, match="for addresses"):
            view.get("10.0.0.0/8")
    assert table.reclaim() == 0
    assert table.resolve(table.lookup(keys)) == ["other", "ten"]
    for ask in (lambda: view["10.1.1.1"], lambda: view.lookup(keys), lambda: view.resolve(numbers)):
        with pytest.raises(ValueError, match="closed"):
            ask()


def test_snapshots_are_limited_and_given_back(table):
    views = [table.snapshot() for _ in range(64)]
    with pytest.raises(RuntimeError, match="64"):
        table.snapshot()
    keys = np.zeros(5000, np.uint32)
    assert set(table.resolve(table.lookup(keys))) == {"default"}  # without a slot the GIL is kept instead
    views.clear()
    gc.collect()
    table.snapshot().close()


def test_a_bulk_lookup_sees_one_version():
    """Two routes change together, in one update; a lookup that saw half of it would tell them apart."""
    table = RouteTable({"10.0.0.0/8": 0, "172.16.0.0/12": 0, "2001:db8::/32": 0})
    keys = np.tile(np.array([0x0A000001, 0xAC100001], np.uint32), 8192)
    stop, errors, rounds = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            values = table.lookup(keys)
            if len(np.unique(values)) != 1:
                errors.append(np.unique(values))
            rounds.append(1)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    changes = 0
    while (changes < 3000 or len(rounds) < 50) and not errors:
        changes += 1
        table.update({"10.0.0.0/8": changes, "172.16.0.0/12": changes})
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert table["10.1.1.1"] == changes
    assert table.reclaim() == 0


@pytest.mark.parametrize("missed", [1, 7, 4000, 5000])
def test_a_snapshot_costs_one_root_however_many_changes_come(missed):
    """What is published after it takes turns in the same memory, and is right in every entry."""
    table = RouteTable({(1 << 16, 16): 9})
    with table.snapshot() as view:
        before = resident()
        for i in range(missed):
            table[(i * 7919 % 65536) << 16, 16] = i % 250
        assert resident() - before < 64 << 20
        assert view[1 << 16] == 9
        assert view.get(2 << 16) is None
    for i in range(6):  # editions that missed all that are taken again
        table[i << 16, 16] = 251
        heads = np.arange(65536, dtype=np.uint32) << np.uint32(16)
        expected: list[int | None] = [None] * 65536
        expected[1] = 9
        for k in range(missed):
            expected[k * 7919 % 65536] = k % 250
        expected[: i + 1] = [251] * (i + 1)
        assert table.resolve(table.lookup(heads)) == expected


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
