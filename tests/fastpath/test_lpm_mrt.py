"""Binary dumps of routing tables, written here field by field as RFC 6396 and RFC 8050 lay them out."""

from __future__ import annotations

import bz2
import doctest
import gzip
import io
import struct
import time
from ipaddress import ip_address, ip_network
from random import Random

import pytest

from fastpath import RouteTable, lpm_mrt
from fastpath.lpm_mrt import MrtError, TableDump, read_mrt


def record(subtype: int, body: bytes, kind: int = 13) -> bytes:
    return struct.pack("!IHHI", 1_700_000_000, kind, subtype, len(body)) + body


def peers() -> bytes:
    """One peer with a 4-byte AS and an IPv4 address."""
    return record(1, bytes.fromhex("c0000201 0000 0001 02 c0000209 c0000209 0000fbf4"))


def attribute(kind: int, value: bytes, flags: int = 0x40) -> bytes:
    wide = len(value) > 255
    return struct.pack("!BB", flags | (0x10 if wide else 0), kind) + len(value).to_bytes(2 if wide else 1, "big") + value


def next_hop(text: str, *, whole: bool = False) -> bytes:
    packed = ip_address(text).packed
    if len(packed) == 4:
        return attribute(3, packed)
    return attribute(14, (b"\0\2\1" if whole else b"") + bytes([len(packed)]) + packed + (b"\0" if whole else b""))


def route(prefix: str, *attributes: bytes, paths: bool = False, stray: int = 0) -> bytes:
    """A record with one entry for each of `attributes`; `stray` bits behind the prefix."""
    net = ip_network(prefix)
    size = (net.prefixlen + 7) // 8
    packed = bytearray(net.network_address.packed[:size])
    if stray:
        packed[-1] |= stray
    body = struct.pack("!IB", 7, net.prefixlen) + packed + struct.pack("!H", len(attributes))
    for i, some in enumerate(attributes):
        body += struct.pack("!HI", 0, 1_700_000_000) + (struct.pack("!I", i) if paths else b"")
        body += struct.pack("!H", len(some)) + some
    subtype = {(4, False): 2, (6, False): 4, (4, True): 8, (6, True): 10}[net.version, paths]
    return record(subtype, body)


ORIGIN = attribute(1, b"\0")
LONG_PATH = attribute(2, b"\2\x80" + b"\0\0\xfb\xf4" * 128)
GOOD = peers() + b"".join(
    [
        route("0.0.0.0/0", next_hop("192.0.2.1")),
        route("10.0.0.0/8", ORIGIN, ORIGIN + LONG_PATH + next_hop("192.0.2.9")),
        route("192.0.2.128/25", next_hop("192.0.2.3"), stray=0x7F),
        route("198.51.100.0/24", ORIGIN),
        record(3, b"multicast, passed over"),
        route("203.0.113.0/24", next_hop("192.0.2.4"), next_hop("192.0.2.5"), paths=True),
        route("2001:db8::/32", next_hop("2001:db8::9")),
        route("2001:db8:1::/48", ORIGIN + next_hop("2001:db8::a", whole=True)),
        route("2001:db8::1/128", next_hop("2001:db8::b"), paths=True),
    ]
)
ROUTES = {
    "0.0.0.0/0": "192.0.2.1",
    "10.0.0.0/8": "192.0.2.9",
    "192.0.2.128/25": "192.0.2.3",
    "198.51.100.0/24": None,
    "203.0.113.0/24": "192.0.2.4",
    "2001:db8::/32": "2001:db8::9",
    "2001:db8::1/128": "2001:db8::b",
    "2001:db8:1::/48": "2001:db8::a",
}


def test_the_example_of_the_documentation():
    outcome = doctest.testmod(lpm_mrt)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_a_file_becomes_a_table(pack, tmp_path):
    (path := tmp_path / "rib").write_bytes(pack(GOOD))
    assert dict(RouteTable(read_mrt(path)).items()) == ROUTES
    assert dict(RouteTable(read_mrt(io.BytesIO(pack(GOOD)))).items()) == ROUTES


def test_portions_of_any_size_give_what_the_whole_gives():
    whole = list(TableDump().receive(GOOD))
    for size in (1, 2, 11, 12, 13, 100):
        dump, found = TableDump(), []
        for i in range(0, len(GOOD), size):
            found += dump.receive(GOOD[i : i + size])
        dump.finish()
        assert found == whole


def test_whoever_stops_after_a_route_goes_on_behind_it():
    dump = TableDump()
    first = next(iter(dump.receive(GOOD)))
    assert [first, *dump.receive(b"")] == list(TableDump().receive(GOOD))


ENTRY = struct.pack("!HIH", 0, 0, 7)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (record(4, b"", kind=16), "record 1 at byte 33: of type 16, not TABLE_DUMP_V2"),
        (record(13, b""), "of subtype 13"),
        (record(2, b""), "ends before the 1 bytes at 4 of 0"),
        (record(2, b"\0\0\0\0\x21" + b"\0" * 7), "prefix length 33 is not 0..32"),
        (record(4, b"\0\0\0\0\x81" + b"\0" * 19), "prefix length 129 is not 0..128"),
        (record(2, b"\0\0\0\0\x08\x0a\0\1" + ENTRY), "attributes of 7 bytes, 0 are left"),
        (record(2, b"\0\0\0\0\x08\x0a\0\0!"), "1 bytes behind its 0 entries"),
        (route("10.0.0.0/8", b"\x40\x03\x05abcd"), "attribute 3 of 5 bytes, 4 are left"),
        (route("10.0.0.0/8", attribute(3, b"abc")), "a next hop of 3 bytes, not 4"),
        (route("10.0.0.0/8", b"\x50\x03\x00"), "ends before the 2 bytes at 2 of 3"),
        (route("2001:db8::/32", attribute(14, b"\x05abcde")), "a next hop of 5 bytes in 6"),
        (struct.pack("!IHHI", 0, 13, 2, 2**32 - 1), "4294967295 bytes long"),
        (route("10.0.0.0/8", ORIGIN)[:-1], "the data ends 31 bytes into it"),
    ],
)
def test_what_is_wrong_is_named_and_the_table_stays(data, says):
    table = RouteTable({"10.0.0.0/8": "before"})
    with pytest.raises(MrtError, match=says):
        table.update(read_mrt(io.BytesIO(peers() + data)))
    assert dict(table.items()) == {"10.0.0.0/8": "before"}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_damaged_archive_is_an_error_of_the_same_type_that_says_where(pack, tmp_path):
    packed = pack(GOOD * 50)
    for bad in (packed[: len(packed) // 2], packed[:20] + b"\xff" * 20 + packed[40:], packed[:-4] + b"\0\0\0\0"):
        (path := tmp_path / "rib").write_bytes(bad)
        with pytest.raises(MrtError, match=rf"^record \d+ at byte \d+: {path} is damaged before its byte \d+: "):
            list(read_mrt(path))
        with pytest.raises(MrtError, match="the compressed file is damaged"):
            list(read_mrt(io.BytesIO(bad)))


def test_a_damaged_archive_names_the_record_that_what_was_right_led_to(tmp_path):
    packed = gzip.compress(GOOD * (3 * lpm_mrt.PORTION // len(GOOD)))
    (path := tmp_path / "rib.gz").write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(MrtError, match="damaged") as caught:
        list(read_mrt(path))
    assert int(str(caught.value).split()[1]) > 10


@pytest.mark.parametrize("error", [OSError(5, "cannot read"), PermissionError(13, "no")])
def test_a_file_that_cannot_be_read_is_no_damaged_archive(error):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100:
                raise error
            return super().read(100 if size is None or size < 0 or size > 100 else size)

    with pytest.raises(type(error)):
        list(read_mrt(Broken(gzip.compress(GOOD * 50))))


def seconds(portions):
    """The least of three."""
    found = []
    for _ in range(3):
        began = time.process_time()
        outcome(portions)
        found.append(time.process_time() - began)
    return min(found)


def test_time_grows_as_the_data_does():
    """Quadratic would be sixteen times as long for four times as much."""
    many = route("10.0.0.0/8", next_hop("192.0.2.1"))
    assert seconds([many * 60_000]) < 9 * seconds([many * 15_000])
    long = record(3, bytes(1 << 20))
    assert seconds(cut(long * 4, 64)) < 9 * seconds(cut(long, 64)), "four records"
    assert seconds(cut(record(3, bytes(1 << 22)), 64)) < 9 * seconds(cut(long, 64)), "one, four times as long"


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def test_bent_dumps_give_routes_or_the_error_whole_and_byte_by_byte():
    random = Random(1)
    for _ in range(300):
        data = bytearray(GOOD)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0xFF, random.randrange(256)))
        assert outcome([bytes(data)]) == outcome([bytes([b]) for b in data])


def outcome(portions: list[bytes]) -> tuple[list[lpm_mrt.Route], str]:
    dump, found = TableDump(), []
    try:
        for portion in portions:
            for one in dump.receive(portion):
                found.append(one)  # noqa: PERF402 - those before an error count
        dump.finish()
    except MrtError as error:
        return found, str(error)
    return found, ""
