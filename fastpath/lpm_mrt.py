"""Routes from binary MRT dumps of routing tables (RFC 6396, TABLE_DUMP_V2; RFC 8050 with path identifiers).

Theory of operation. A dump is a run of records: 12 bytes of header (time, type, subtype, length of what follows), then
the body. The first names the collector's peers; each further one is a prefix with one entry for each peer that
announced it. `TableDump` is fed bytes as they come and gives back the routes they completed; it does no input or
output. `read_mrt` feeds it from a file.

Owns: which records are routes, and the next hop of a route.
Never: keeps more than the record that is not yet complete.
Invariant: bytes in any portions give the routes and the error that the whole gives. Whatever is wrong with them is one
MrtError that names the record and where it starts.
"""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from os import PathLike
from typing import IO, Final

HEADER: Final = 12
TABLE_DUMP_V2: Final = 13
PEER_INDEX_TABLE: Final = 1
UNICAST: Final = {2: 4, 4: 16, 8: 4, 10: 16}  # subtype: bytes of an address; 8 and 10 have path identifiers
WITH_PATHS: Final = {8, 10}
OTHERS: Final = {3, 5, 6, 7, 9, 11, 12}  # multicast, families told by number, where peers are: not routes of ours
NEXT_HOP: Final = 3
MP_REACH: Final = 14
EXTENDED: Final = 0x10  # flag of an attribute whose length has two bytes
RECORD_MAX: Final = 1 << 24  # bytes; 65,535 entries of full attributes are far less in any real dump
PORTION: Final = 1 << 20

Route = tuple[tuple[bytes, int], str | None]


class MrtError(ValueError):
    """A dump that is not one; the text names the record and the offset of its first byte."""


class TableDump:
    r"""Turns the bytes of a dump into routes: `receive` each portion, then `finish`.

    >>> peers = bytes.fromhex("00000000 000d 0001 00000008 c0000201 0000 0000")
    >>> route = bytes.fromhex("00000000 000d 0002 00000017 00000000 08 0a 0001 0000 00000000 0007 40 03 04 c0000209")
    >>> dump = TableDump()
    >>> list(dump.receive(peers + route[:20])), list(dump.receive(route[20:]))
    ([], [((b'\n\x00\x00\x00', 8), '192.0.2.9')])
    >>> dump.finish()
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._read_up_to = 0  # in the data: what is before is done with
        self._records = 0
        self._offset = 0

    def receive(self, data: bytes) -> Iterator[Route]:
        """Yield ((address, length), next hop) of the routes that `data` completes. Whoever stops has not lost the rest."""
        del self._data[: self._read_up_to]
        self._read_up_to = 0
        self._data += data
        while (size := self._size_of_next()) is not None:
            at, self._read_up_to = self._read_up_to, self._read_up_to + HEADER + size
            kind, subtype = struct.unpack_from("!HH", self._data, at + 4)
            route = self._read(kind, subtype, bytes(self._data[at + HEADER : self._read_up_to]))
            self._offset += HEADER + size
            self._records += 1
            if route is not None:
                yield route

    def finish(self) -> None:
        """MrtError unless the last record is complete."""
        if rest := len(self._data) - self._read_up_to:
            raise self.error(f"the data ends {rest} bytes into it")

    def error(self, what: str) -> MrtError:
        """About the record that is being read."""
        return MrtError(f"record {self._records} at byte {self._offset}: {what}")

    def _size_of_next(self) -> int | None:
        """Bytes of the next record's body, None while they are not all there."""
        available = len(self._data) - self._read_up_to - HEADER
        if available < 0:
            return None
        (size,) = struct.unpack_from("!I", self._data, self._read_up_to + 8)
        if size > RECORD_MAX:
            raise self.error(f"{size} bytes long, more than {RECORD_MAX}")
        return int(size) if size <= available else None

    def _read(self, kind: int, subtype: int, body: bytes) -> Route | None:
        if kind != TABLE_DUMP_V2:
            raise self.error(f"of type {kind}, not TABLE_DUMP_V2 ({TABLE_DUMP_V2}); updates are not a table")
        if subtype in UNICAST:
            return self._read_route(body, UNICAST[subtype], with_paths=subtype in WITH_PATHS)
        if subtype != PEER_INDEX_TABLE and subtype not in OTHERS:
            raise self.error(f"of subtype {subtype}, which TABLE_DUMP_V2 does not have")
        return None

    def _read_route(self, body: bytes, octets: int, *, with_paths: bool) -> Route:
        bits = self._number(body, 4, 1)
        size = (bits + 7) // 8
        if size > octets:
            raise self.error(f"prefix length {bits} is not 0..{8 * octets}")
        at = 5 + size
        entries = self._number(body, at, 2)
        free = 8 * octets - bits
        number = int.from_bytes(body[5:at].ljust(octets, b"\0"), "big") >> free << free  # what is behind is irrelevant
        next_hop = None
        at += 2
        for _ in range(entries):
            at += 10 if with_paths else 6
            length = self._number(body, at, 2)
            at += 2
            if length > len(body) - at:
                raise self.error(f"attributes of {length} bytes, {len(body) - at} are left")
            if next_hop is None:
                next_hop = self._next_hop(body[at : at + length], octets)
            at += length
        if at != len(body):
            raise self.error(f"{len(body) - at} bytes behind its {entries} entries")
        return (number.to_bytes(octets, "big"), bits), next_hop

    def _next_hop(self, attributes: bytes, octets: int) -> str | None:
        wanted = NEXT_HOP if octets == 4 else MP_REACH
        at = 0
        while at < len(attributes):
            wide = 2 if self._number(attributes, at, 1) & EXTENDED else 1
            kind, length = self._number(attributes, at + 1, 1), self._number(attributes, at + 2, wide)
            at += 2 + wide
            if length > len(attributes) - at:
                raise self.error(f"attribute {kind} of {length} bytes, {len(attributes) - at} are left")
            if kind == wanted:
                value = attributes[at : at + length]
                return self._next_hop4(value) if octets == 4 else self._next_hop6(value)
            at += length
        return None

    def _next_hop4(self, value: bytes) -> str:
        if len(value) != 4:
            raise self.error(f"a next hop of {len(value)} bytes, not 4")
        return str(IPv4Address(value))

    def _next_hop6(self, value: bytes) -> str:
        """RFC 6396 keeps length and address alone; some collectors write the whole attribute, family first."""
        if value[:3] == b"\x00\x02\x01":
            value = value[3:]
        length = self._number(value, 0, 1)
        if length not in {16, 32} or len(value) < 1 + length:
            raise self.error(f"a next hop of {length} bytes in {len(value)}, not 16 or 32")
        return str(IPv6Address(value[1:17]))

    def _number(self, data: bytes, at: int, size: int) -> int:
        if size > len(data) - at:
            raise self.error(f"ends before the {size} bytes at {at} of {len(data)}")
        return int.from_bytes(data[at : at + size], "big")


def read_mrt(source: str | PathLike[str] | IO[bytes]) -> Iterator[Route]:
    """Yield ((address, length), next hop) from a TABLE_DUMP_V2 file, for `RouteTable.update`.

    `source`: a path or an open binary file that can seek; plain, gzip or bzip2, told by its first bytes. The next hop is that of
    the first peer that has one, as text; None when none has. IPv4 and IPv6 unicast are read, also with path
    identifiers; multicast and other families are passed over. MrtError tells what is wrong and where.
    """
    if isinstance(source, (str, PathLike)):
        with open(source, "rb") as file:
            yield from read_mrt(file)
        return
    dump = TableDump()
    for portion in _portions(source, dump):
        yield from dump.receive(portion)
    dump.finish()


def _portions(file: IO[bytes], dump: TableDump) -> Iterator[bytes]:
    """The contents, unpacked; `dump` has had those before."""
    first = file.read(3)
    file.seek(-len(first), 1)
    plain: IO[bytes] | gzip.GzipFile | bz2.BZ2File = file
    if first[:2] == b"\x1f\x8b":
        plain = gzip.GzipFile(fileobj=file)
    elif first == b"BZh":
        plain = bz2.BZ2File(file)
    try:
        while portion := plain.read(PORTION):
            yield portion
    except (EOFError, OSError, zlib.error) as error:
        if plain is file or (isinstance(error, OSError) and error.errno is not None):
            raise  # the file cannot be read; what it holds may be right
        name = getattr(file, "name", "the compressed file")
        raise dump.error(f"{name} is damaged before its byte {file.tell()}: {error}") from error
