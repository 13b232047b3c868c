"""Messages with descriptors between two processes, and every way in which the other side can disappoint."""

from __future__ import annotations

import os
import socket
import struct

import msgspec
import pytest

from engine.handover import line as module
from engine.handover.line import HandoverError, Line, LineClosedError, RefusedError
from engine.handover.messages import Go, Hello, Offer, PortItem, Ready, Refusal


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield Line(ours), Line(theirs), theirs
    ours.close()
    theirs.close()


def opened():
    return len(os.listdir("/proc/self/fd"))


def test_messages_arrive_with_their_descriptors_in_order(ends):
    ours, theirs, _ = ends
    files = [os.memfd_create(str(number)) for number in range(450)]
    for number, file in enumerate(files):
        os.write(file, str(number).encode())
    offer = Offer([PortItem("pod", "default/web", 249, 79, (4, 17)), PortItem("host", "host", 200)], ["lock"])
    ours.send(offer, files)
    ours.send(Ready())
    received, descriptors = theirs.receive(Offer, seconds=5)
    assert received == offer
    assert [os.pread(file, 9, 0) for file in descriptors] == [str(number).encode() for number in range(450)]
    assert not any(os.get_inheritable(file) for file in descriptors)
    assert theirs.receive(Ready, seconds=5) == (Ready(), [])
    module.close_all([*files, *descriptors])


def test_a_large_message_needs_a_reader(ends):
    ours, _, _ = ends
    with pytest.raises(HandoverError, match="did not answer in time"):
        ours.send(Refusal("x" * (3 << 20)), seconds=0.05)


def test_silence_has_a_deadline_and_is_looked_after(ends):
    ours, _, _ = ends
    with pytest.raises(HandoverError, match="did not answer in time"):
        ours.receive(Hello, seconds=0.05)

    def enough():
        raise HandoverError("told to stop")

    impatient = Line(ours._connection, check=enough)
    with pytest.raises(HandoverError, match="told to stop"):
        impatient.receive(Hello, seconds=60)


def test_hanging_up_is_told_apart(ends):
    ours, _, theirs = ends
    theirs.close()
    with pytest.raises(LineClosedError):
        ours.receive(Hello, seconds=5)
    with pytest.raises(LineClosedError):
        ours.send(Refusal("x" * (1 << 20)))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!II", 1 << 30, 0),
        struct.pack("!II", 2, 1 << 30) + b"{}",
        struct.pack("!II", 2, 0) + b"{}",
        struct.pack("!II", 17, 0) + b'{"type":"Strange"',
        struct.pack("!II", 18, 0) + b'{"type":"Strange"}',
        struct.pack("!II", 4, 0) + b"\xff\xff\xff\xff",
        struct.pack("!II", 16, 2) + b'{"type":"Hello"}' + b"..",
    ],
)
def test_babble_is_refused(ends, data):
    ours, _, theirs = ends
    before = opened()
    theirs.sendall(data)
    with pytest.raises(HandoverError):
        ours.receive(Hello, seconds=1)
    assert opened() == before


def test_another_message_than_expected_is_an_error_and_its_descriptors_are_closed(ends):
    ours, theirs, _ = ends
    file = os.memfd_create("x")
    before = opened()
    theirs.send(Go(1, ["detours"]), [file])
    with pytest.raises(HandoverError, match="said Go instead of Hello"):
        ours.receive(Hello, seconds=5)
    assert opened() == before
    theirs.send(Refusal("no room"))
    with pytest.raises(RefusedError, match="no room"):
        ours.receive(Hello, seconds=5)
    os.close(file)


def test_neighbouring_versions_understand_each_other(ends):
    """What the other version added is passed over; what it does not send yet has a default."""
    ours, _, theirs = ends
    later = b'{"type":"Offer","ports":[{"kind":"host","name":"host","descriptors":1,"queues":4}],"others":[],"new":{}}'
    earlier = b'{"type":"Go","stopped_ns":5}'
    for text in (later, earlier):
        theirs.sendall(struct.pack("!II", len(text), 0) + text)
    offer, _ = ours.receive(Offer, seconds=5)
    assert offer.ports == [PortItem("host", "host", 1)]
    assert ours.receive(Go, seconds=5)[0] == Go(5, [])
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type":"Offer","ports":[{"kind":"host","name":"h","descriptors":-1}]}', type=Offer)
