"""Which next hops get a shortcut: doubles of the kernel's answers, a plane double that logs."""

import errno
import struct
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

import pytest

from engine.apply import neighbour_message, shortcut
from engine.apply.egress import Egress
from engine.apply.plane import Forwarding
from engine.apply.shortcut import Shortcuts
from engine.errors import KernelError
from engine.model import TunnelPort, Via
from fastpath.values import Shortcut
from tests.engine.apply.test_neighbour_message import attribute, route, told
from tests.engine.fakes import FakePlane, FakePort

ETH, OTHER = 3, 4
OWN, NEAR, NEXT = b"\2" + bytes(4) + b"\1", b"\2" + bytes(4) + b"\2", b"\2" + bytes(4) + b"\3"
TUNNEL = TunnelPort("vxlan/192.0.2.1:4789", "vxlan", ip_address("192.0.2.1"), 4789, 1)
TO_B = Via("tunnel", TUNNEL.key, "b", ip_address("192.0.2.2"), 4789, b"\2" * 6, 1450)
TO_C = replace(TO_B, peer="c", remote=ip_address("198.51.100.3"))
GATEWAY = ip_address("192.0.2.254")
P1, P2 = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")


@dataclass
class Kernel:
    """What it would answer; `log` has what was asked of it, and what was opened and closed."""

    log: list
    devices: dict = field(default_factory=lambda: {TO_B.remote: ETH, TO_C.remote: ETH})
    gateways: dict = field(default_factory=lambda: {TO_C.remote: GATEWAY})
    neighbours: list = field(default_factory=lambda: [told(TO_B.remote, NEAR), told(GATEWAY, NEXT)])
    egress: dict = field(default_factory=lambda: {ETH: Egress("eth0", 1500, OWN, segments=True)})
    mtus: dict = field(default_factory=dict)
    refuses: bool = False
    taps: int = 0
    opened: object = None  # the last

    def next_sequence(self):
        return 1

    def close(self):
        pass

    def answers(self, message):
        kind = struct.unpack_from("=IH", message)[1]
        if kind == neighbour_message.GET_NEIGHBOUR:
            return [(neighbour_message.NEW_NEIGHBOUR, data) for data in self.neighbours]
        if kind == neighbour_message.NEW_NEIGHBOUR:
            self.log.append("use")
            return []
        found = neighbour_message.attributes(message, 16 + 12, len(message))
        remote = next(ip_address(message[start:end]) for kind, start, end in found if kind == 1)
        if remote not in self.devices:
            raise OSError(errno.ENETUNREACH, "no route")
        via = (attribute(5, self.gateways[remote].packed),) if remote in self.gateways else ()
        return [(24, route(4, attribute(4, struct.pack("=I", self.devices[remote])), *via))]

    def redirect(self, open_tap, device):
        if self.refuses:
            self.log.append("refuse")
            raise KernelError("no TAP", where="shortcut")
        self.taps, over = self.taps + 1, device
        self.log.append(f"open {device}")
        number = 100 + self.taps

        class Opened:
            tap = type("Tap", (), {"fd": number, "name": f"towpath-to{number}"})
            stands, index, device = True, number, over
            disturbed = staticmethod(lambda: setattr(Opened, "stands", False))
            close = staticmethod(lambda: self.log.append(f"close {device}"))

        self.opened = Opened
        return Opened


@pytest.fixture
def world(monkeypatch):
    """(shortcuts, forwarding, kernel), with routes to two peers, one behind a gateway."""
    plane = FakePlane()
    plane.reclaimer = type("Reclaimer", (), {"synchronize": staticmethod(lambda: plane.log.append("synchronize"))})
    kernel = Kernel(plane.log)
    monkeypatch.setattr(shortcut, "RouteSocket", lambda: kernel)
    monkeypatch.setattr(shortcut, "look_at", lambda devices: {d: kernel.egress[d] for d in set(devices) if d in kernel.egress})
    monkeypatch.setattr(shortcut, "path_mtu", lambda local, remote, port: kernel.mtus.get((local, remote), 1500))
    monkeypatch.setattr(shortcut.Redirection, "open", kernel.redirect)
    forwarding = Forwarding(plane)
    forwarding.attach(("tunnel", TUNNEL.key), FakePort("t"))
    forwarding.set_route(P1, (TO_B,))
    forwarding.set_route(P2, (TO_B, TO_C))
    shortcuts = Shortcuts(forwarding, lambda: None)
    yield shortcuts, forwarding, kernel
    shortcuts.close()


def given(forwarding):
    """Peer -> its shortcut, as the plane has it."""
    return {
        slot.vias[0].peer: slot.value.shortcut
        for slot in forwarding.slots.values()
        if not slot.members and slot.value.shortcut is not None
    }


def test_each_peer_gets_the_address_of_its_next_hop_and_all_one_device(world):
    shortcuts, forwarding, kernel = world
    shortcuts.settle([TUNNEL])
    assert given(forwarding) == {"b": Shortcut(101, NEAR, OWN, mtu=1500), "c": Shortcut(101, NEXT, OWN, mtu=1500)}
    assert kernel.log.count("open 3") == 1
    assert shortcuts.report() == {TUNNEL.key: "TCP whole through eth0 to 2 of 2 peers"}


def test_the_same_again_asks_nothing(world):
    shortcuts, _, kernel = world
    shortcuts.settle([TUNNEL])
    kernel.answers = None
    shortcuts.settle([TUNNEL])


def test_the_descriptor_is_closed_after_every_worker_let_go_of_it(world):
    shortcuts, forwarding, kernel = world
    shortcuts.settle([TUNNEL])
    kernel.log.clear()
    shortcuts.settle([replace(TUNNEL, offload="udp")])
    assert given(forwarding) == {}
    assert [entry for entry in kernel.log if not entry.startswith("adjacency")] == ["synchronize", "close 3"]
    assert len(kernel.log) == 4, "both peers' adjacencies were set before"
    assert shortcuts.report() == {}


@pytest.mark.parametrize(
    ("egress", "words"),
    [
        (Egress("eth0", 1500, OWN), "through sockets: eth0 does not segment tunnels"),
        (Egress("ppp0", 1500, b"", objection="ppp0 is no Ethernet"), "through sockets: ppp0 is no Ethernet"),
    ],
)
def test_a_device_that_is_no_end_of_one(world, egress, words):
    shortcuts, forwarding, kernel = world
    kernel.egress[ETH] = egress
    shortcuts.settle([TUNNEL])
    assert given(forwarding) == {}
    assert "open 3" not in kernel.log
    assert shortcuts.report() == {TUNNEL.key: words}
    assert shortcuts.complaint() == ""
    shortcuts.settle([replace(TUNNEL, offload="tap")])
    assert bool(given(forwarding)) is not bool(egress.objection), "asked for by name it need not segment"
    assert shortcuts.complaint() == egress.objection


def test_what_a_device_neither_cuts_nor_sums_leaves_in_trains(world):
    """Asked for by name also where it sums."""
    shortcuts, forwarding, kernel = world
    kernel.egress[ETH] = Egress("eth0", 1500, OWN, sums=False)
    shortcuts.settle([TUNNEL])
    assert given(forwarding)["b"] == Shortcut(101, NEAR, OWN, cuts=False, mtu=1500)
    assert shortcuts.report() == {TUNNEL.key: "trains of datagrams straight through eth0 to 2 of 2 peers"}
    kernel.egress[ETH] = Egress("eth0", 1500, OWN)
    shortcuts.settle([replace(TUNNEL, offload="tap")])
    assert given(forwarding)["b"] == Shortcut(101, NEAR, OWN, cuts=False, mtu=1500)
    kernel.egress[ETH] = Egress("eth0", 1500, OWN, segments=True)
    shortcuts.refresh()
    assert given(forwarding)["b"] == Shortcut(101, NEAR, OWN, mtu=1500)


def test_a_refusal_is_not_tried_again_before_the_configuration_is_another(world):
    shortcuts, forwarding, kernel = world
    kernel.refuses = True
    shortcuts.settle([TUNNEL])
    shortcuts.refresh()
    assert kernel.log.count("refuse") == 1
    assert "no TAP" in shortcuts.report()[TUNNEL.key]
    kernel.refuses = False
    shortcuts.settle([replace(TUNNEL, offload="tap")])
    assert set(given(forwarding)) == {"b", "c"}


def test_a_peer_of_which_something_is_unknown_stays_with_the_sockets(world):
    shortcuts, forwarding, kernel = world
    kernel.neighbours.pop()
    shortcuts.settle([TUNNEL])
    assert set(given(forwarding)) == {"b"}
    del kernel.devices[TO_B.remote]
    shortcuts.refresh()
    assert given(forwarding) == {}
    assert shortcuts.report() == {TUNNEL.key: "through sockets: no Ethernet address of a peer is known"}


def test_a_peer_by_another_device_goes_by_that(world):
    shortcuts, forwarding, kernel = world
    kernel.devices[TO_B.remote], kernel.egress[OTHER] = OTHER, Egress("eth1", 1500, OWN, segments=True)
    kernel.neighbours.append(told(TO_B.remote, NEXT, device=OTHER))
    shortcuts.settle([TUNNEL])
    assert {peer: link.tap for peer, link in given(forwarding).items()} in ({"b": 101, "c": 102}, {"b": 102, "c": 101})
    assert shortcuts.report() == {TUNNEL.key: "TCP whole through eth0, eth1 to 2 of 2 peers"}
    kernel.egress[OTHER] = Egress("eth1", 1500, OWN, sums=False)
    shortcuts.refresh()
    said = "TCP whole through eth0; trains of datagrams straight through eth1 to 2 of 2 peers"
    assert shortcuts.report() == {TUNNEL.key: said}
    kernel.log.clear()
    kernel.devices[TO_B.remote] = ETH
    shortcuts.refresh()
    assert kernel.log[-2:] == ["synchronize", "close 4"]


@pytest.mark.parametrize("look", [Shortcuts.mend, Shortcuts.refresh])
def test_a_device_that_is_gone_is_replaced(world, look):
    shortcuts, forwarding, kernel = world
    shortcuts.settle([TUNNEL])
    shortcuts.mend()
    assert kernel.taps == 1, "it stands"
    kernel.opened.stands = False
    kernel.log.clear()
    look(shortcuts)
    assert {peer: link.tap for peer, link in given(forwarding).items()} == {"b": 102, "c": 102}
    assert kernel.log[0] == f"open {ETH}", "before the other's descriptor is free for it"
    assert kernel.log[-2:] == ["synchronize", f"close {ETH}"]


def test_a_device_that_cannot_be_replaced_leaves_the_sockets_and_the_reason(world):
    shortcuts, forwarding, kernel = world
    shortcuts.settle([TUNNEL])
    kernel.opened.stands, kernel.refuses = False, True
    shortcuts.mend()
    assert given(forwarding) == {}
    assert "no TAP" in shortcuts.report()[TUNNEL.key]
    assert kernel.log[-2:] == ["synchronize", f"close {ETH}"]


def test_a_path_that_once_carried_less_is_left_alone_until_something_was_announced(world):
    shortcuts, forwarding, kernel = world
    shortcuts.settle([TUNNEL])
    kernel.mtus[TUNNEL.local, TO_B.remote] = 1400
    shortcuts.check()
    assert set(given(forwarding)) == {"c"}
    kernel.mtus.clear()  # the kernel forgets what it learned of a path
    shortcuts.refresh(announced=False)
    assert set(given(forwarding)) == {"c"}
    shortcuts.refresh()
    assert set(given(forwarding)) == {"b", "c"}


def test_only_a_stale_neighbour_that_is_sent_to_is_asked_for(world):
    shortcuts, _, kernel = world
    kernel.neighbours = [told(TO_B.remote, NEAR, state=0x04), told(GATEWAY, NEXT)]
    shortcuts.settle([TUNNEL])
    shortcuts.check()
    assert kernel.log.count("use") == 1
    shortcuts.check()  # nothing was sent since
    assert kernel.log.count("use") == 1


def test_a_kernel_that_cannot_be_asked_is_asked_again(world, monkeypatch, caplog):
    shortcuts, forwarding, kernel = world

    def refuse(*_):
        raise OSError(errno.EMFILE, "too many open files")

    asked = shortcut.RouteSocket
    monkeypatch.setattr(shortcut, "RouteSocket", refuse)
    shortcuts.settle([TUNNEL])
    assert "too many open files" in caplog.text
    assert given(forwarding) == {}
    monkeypatch.setattr(shortcut, "RouteSocket", asked)
    looked = shortcut.look_at
    monkeypatch.setattr(shortcut, "look_at", refuse)
    shortcuts.settle([TUNNEL])
    assert given(forwarding) == {}
    monkeypatch.setattr(shortcut, "look_at", looked)
    kernel.neighbours = [told(TO_B.remote, NEAR, state=0x04), told(GATEWAY, NEXT)]
    shortcuts.settle([TUNNEL])
    assert set(given(forwarding)) == {"b", "c"}
    monkeypatch.setattr(shortcut, "RouteSocket", refuse)
    kernel.mtus[TUNNEL.local, TO_C.remote] = 1400
    shortcuts.check()
    assert set(given(forwarding)) == {"b"}, "what else nobody announces was looked at all the same"


def test_nothing_is_remembered_of_peers_that_are_gone(world):
    shortcuts, forwarding, _ = world
    shortcuts.settle([TUNNEL])
    shortcuts.check()
    assert len(shortcuts._sent) == 2
    forwarding.set_route(P2, (TO_B,))
    shortcuts.settle([TUNNEL])
    shortcuts.check()
    assert list(shortcuts._sent) == [forwarding.slot_of((TO_B,)).number]
    forwarding.remove_route(P1)
    forwarding.remove_route(P2)
    shortcuts.settle([TUNNEL])
    shortcuts.check()
    assert shortcuts._sent == {}


NEW_FILTER, DELETE_FILTER = 44, 45


def filtered(kind, index, parent=0xFFFFFFF2):
    """The announcement of a filter of a device."""
    about = struct.pack("=4xiIII", index, 0, parent, 0)
    return struct.pack("=IHHII", 16 + len(about), kind, 0, 0, 0) + about


def test_announcements_are_followed(world, monkeypatch):
    shortcuts, forwarding, kernel = world
    shortcuts.settle([TUNNEL])
    kernel.log.clear()

    def announce(*data):
        told = list(data)

        class Bell:
            def recv(self, _):
                if not told:
                    raise BlockingIOError
                found = told.pop(0)
                if isinstance(found, OSError):
                    raise found
                return found

        monkeypatch.setattr(shortcuts, "_bell", Bell())
        shortcuts.attend()

    bell = shortcuts._bell
    announce(told(TO_B.remote, NEAR, state=0x04))
    assert kernel.log == [], "the address is the same"
    announce(told(TO_B.remote, NEXT))
    assert given(forwarding)["b"] == Shortcut(101, NEXT, OWN, mtu=1500)
    announce(told(TO_B.remote, NEXT, kind=neighbour_message.DELETE_NEIGHBOUR))
    assert set(given(forwarding)) == {"c"}
    announce(told(ip_address("192.0.2.77"), NEXT), told(TO_B.remote, NEXT, device=9))
    assert set(given(forwarding)) == {"c"}, "others' neighbours"
    kernel.log.clear()
    announce(filtered(NEW_FILTER, 101), filtered(DELETE_FILTER, 7), filtered(DELETE_FILTER, 101, parent=0xFFFFFFF3))
    assert kernel.log == [], "a filter that comes, another device's that goes, and one on the way out"
    announce(filtered(DELETE_FILTER, 101))
    assert given(forwarding)["c"] == Shortcut(102, NEXT, OWN, mtu=1500)
    assert kernel.log[0] == "open 3" and kernel.log[-2:] == ["synchronize", "close 3"]
    announce(OSError(errno.ENOBUFS, "lost some"))
    assert set(given(forwarding)) == {"b", "c"}, "looked at anew"
    assert kernel.opened.tap.fd == 103, "its filter may be gone"
    for number in range(103, 108):
        announce(filtered(DELETE_FILTER, number))
    assert given(forwarding) == {} and "somebody keeps removing" in shortcuts.report()[TUNNEL.key]
    monkeypatch.setattr(shortcuts, "_bell", bell)
