"""Kinds of one value: what stays the same when it is replaced."""

from ipaddress import ip_address

from engine.apply.single_values import peers_driver


def test_peers_keep_their_numbers_and_none_is_given_twice(forwarding, plane):
    peers = peers_driver(forwarding)
    b, c = ip_address("192.0.2.2"), ip_address("192.0.2.3")
    peers.set("peers", {b: "b"})
    first = plane.peers[b]
    peers.set("peers", {b: "b", c: "c"})
    assert plane.peers[b] == first != plane.peers[c]
    peers.set("peers", {c: "c"})
    peers.set("peers", {b: "b", c: "c"})
    assert len({first, *plane.peers.values()}) == 3
