"""Many prefixes as arrays: read, given back, compared."""

import random
from ipaddress import ip_network

import pytest

from engine.desired.policy.nets import Nets


def texts(count, seed=3):
    draw = random.Random(seed)
    four = [str(ip_network((draw.getrandbits(32), draw.randint(0, 32)), strict=False)) for _ in range(count)]
    six = [str(ip_network((draw.getrandbits(128), draw.randint(0, 128)), strict=False)) for _ in range(count)]
    return [text for pair in zip(four, six, strict=True) for text in pair]


def test_what_is_read_comes_back():
    written = texts(500)
    prefixes = list(map(ip_network, written))
    nets = Nets.parse(written)
    assert list(nets) == sorted(prefixes, key=lambda prefix: prefix.version)
    assert nets == Nets.of(prefixes)
    assert hash(nets) == hash(Nets.of(prefixes))
    assert len(nets) == 1000
    assert nets[7] == list(nets)[7]
    assert nets[2:4] == tuple(nets)[2:4]
    assert nets != Nets.parse(written[:-1])
    assert nets != prefixes


def test_bare_addresses_and_host_bits():
    nets = Nets.parse(["10.1.2.3/8", "192.0.2.1", "fe80::1/10", "0.0.0.0/0", "::/0", "::1"])
    assert [str(net) for net in nets] == ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0", "fe80::/10", "::/0", "::1/128"]
    assert repr(nets) == "Nets(10.0.0.0/8, 192.0.2.1/32, 0.0.0.0/0, fe80::/10, ...)"


def test_nothing():
    assert list(Nets.parse([])) == []
    assert not Nets.of(())
    assert Nets.parse([]) == Nets.of(())


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0/8", "10.0.0.0/8/8", "010.0.0.0/8", "::/129", "::1%1/128",
     "10.0.0.0/255.0.0.0", "10.0.0.0/\u0663", "a", "10.0.0.0 /8", "1:2:3", "fe80::/1234"],
)  # fmt: skip
def test_what_is_no_prefix_is_named(text):
    with pytest.raises(ValueError) as caught:
        Nets.parse(["10.0.0.0/8", text])
    assert str(caught.value) == text
