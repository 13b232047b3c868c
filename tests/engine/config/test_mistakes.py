"""Every kind of mistake, with the whole sentence it gets: place, value, remedy."""

import pytest

from engine.config import parse
from engine.errors import ConfigError
from tests.engine.config.mistakes import peers, places, pods, routes, shape, values
from tests.engine.config.mistakes.base import BASE

MISTAKES = [row for table in (shape, values, places, peers, pods, routes) for row in table.MISTAKES.items()]


def test_base_is_valid():
    assert parse(BASE).node.name == "node-a"


@pytest.mark.parametrize(("old", "new", "sentence"), [row for _, row in MISTAKES], ids=[name for name, _ in MISTAKES])
def test_mistake(old, new, sentence):
    assert old in BASE
    with pytest.raises(ConfigError) as caught:
        parse(BASE.replace(old, new, 1), file="t.toml")
    assert str(caught.value).splitlines()[0] == sentence
    assert caught.value.exit_code == 2
    assert caught.value.line == int(sentence.split(":")[1])


def test_all_mistakes_at_once_in_the_order_of_lines():
    text = BASE.replace('"node-a"', "1").replace('"10.244.2.0/24"', '"10.244.2.1/24"').replace("via =", "vai =")
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert [mistake.key for mistake in caught.value.mistakes] == ["node.name", "peers[0].prefixes[0]", "routes[0].vai"]
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 12, 31]
    assert str(caught.value).count("\n") == 2


def test_services_beside_everybody_else():
    services = '[policy]\nservices = ["10.96.0.0/12", "198.18.1.0/24", "fd00:10::/108"]\n'
    to_host = '[[routes]]\nprefix = "198.18.1.0/24"\nvia = ["host"]\n[[routes]]'
    assert len(parse(BASE.replace("[[routes]]", services + to_host)).policy.services) == 3


def test_no_node_at_all():
    with pytest.raises(ConfigError) as caught:
        parse("")
    assert str(caught.value) == "towpath.toml: has no node (add [node])"


def test_host_name_that_cannot_be_a_node():
    with pytest.raises(ConfigError) as caught:
        parse(BASE.replace('name = "node-a"\n', ""), hostname="")
    assert str(caught.value) == (
        'towpath.toml: the node has no name, and the host name "" is not a name (add name = "node-a" under [node])'
    )


def test_nested_without_end():
    for text in ("a = " + "[" * 5000 + "]" * 5000, "a = " + "{b=" * 5000 + "1" + "}" * 5000):
        with pytest.raises(ConfigError, match="nested too deeply"):
            parse(text)


def test_number_beyond_reading():
    with pytest.raises(ConfigError, match=r"a value cannot be read: .* \(correct the value\)"):
        parse("a = " + "9" * 5000)


def test_long_value_is_cut():
    with pytest.raises(ConfigError) as caught:
        parse(BASE.replace('"192.0.2.2"', '"' + "x" * 5000 + '"'))
    assert len(str(caught.value)) < 250
    assert "xxx... is not an IP address" in str(caught.value)
