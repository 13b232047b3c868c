"""The host's rules: the text that nft is given, and the driver when nft or the kernel says no."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address, ip_network

import pytest

from engine.apply import host_rules as module
from engine.apply.host_rules import HostRulesDriver
from engine.apply.ruleset import is_made_by, ruleset, table_name
from engine.apply.table_record import TableRecord
from engine.config import parse
from engine.desired import desired_state
from engine.errors import KernelError
from engine.model import HostRules, PortForward, Underlay

MAKER = "0123456789abcdef"
BASE = """
[node]
name = "a"
underlay = ["192.0.2.1/24", "2001:db8::1/64"]
prefixes = ["10.1.0.0/24", "fd00:1::/64"]
[[peers]]
name = "b"
underlay = ["192.0.2.2"]
prefixes = ["10.2.0.0/24", "fd00:2::/64"]
[[pods]]
name = "web"
namespace = "web"
addresses = ["10.1.0.5", "fd00:1::5"]
ports = [{ host = 80, pod = 8080 }, { host = 80, pod = 81, protocol = "udp", address = "192.0.2.1" }]
[[pods]]
name = "db"
namespace = "db"
addresses = ["10.1.0.6"]
ports = [{ host = 80, pod = 5432, protocol = "sctp" }]
"""


def rules_of(text):
    return desired_state(parse(text).facts(), Underlay()).rules


def test_rules_of_a_configuration():
    rules = rules_of(BASE)
    assert rules.pods == (ip_network("10.1.0.0/24"), ip_network("fd00:1::/64"))
    assert ip_network("10.2.0.0/24") in rules.cluster
    web4, web6, db = map(ip_address, ("10.1.0.5", "fd00:1::5", "10.1.0.6"))
    assert rules.forwards == (
        PortForward("udp", 80, ip_address("192.0.2.1"), web4, 81),
        PortForward("sctp", 80, None, db, 5432),
        PortForward("tcp", 80, None, web4, 8080),
        PortForward("tcp", 80, None, web6, 8080),
    )
    assert rules_of(BASE + "[host]\nenabled = false") is None
    off = rules_of(BASE + '[host]\nmasquerade = "off"')
    assert (off.masquerade, off.cluster) == (False, ())


def test_text():
    text = ruleset(rules_of(BASE), MAKER)
    assert text.startswith("table inet towpath { }\ndelete table inet towpath\ntable inet towpath {\n")
    assert "    meta nfproto ipv4 tcp dport 80 dnat ip to 10.1.0.5:8080" in text
    assert "    meta nfproto ipv6 tcp dport 80 dnat ip6 to [fd00:1::5]:8080" in text
    assert "    ip daddr 192.0.2.1 udp dport 80 dnat ip to 10.1.0.5:81" in text
    assert "ip saddr @pods4 ip daddr @cluster4 return" in text
    assert '    oifname "towpath0" iifname != "towpath0" ip6 saddr @pods6 drop' in text
    off = ruleset(rules_of(BASE + '[host]\nmasquerade = "off"'), MAKER)
    assert "fully-random" not in off
    assert "saddr @pods4 drop" in off


def test_no_value_says_more_than_itself():
    assert table_name("towpath0") == "towpath"
    assert table_name("pods-1.2@x") == "towpath_pods_1_2_x"
    with pytest.raises(ValueError, match="is no device name"):
        ruleset(HostRules('x" ; flush ruleset ; "', (), ()), MAKER)


def test_a_table_tells_who_made_it():
    text = ruleset(rules_of(BASE), MAKER)
    assert is_made_by(MAKER, text)
    assert not is_made_by(MAKER[:-1], text)
    for mark in ("", "a b", "a}"):
        with pytest.raises(ValueError, match="is no mark"):
            ruleset(rules_of(BASE), mark)


def test_without_nft_only_host_ports_are_an_error(monkeypatch, tmp_path):
    heard = []
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: None)
    driver = HostRulesDriver(heard.append, TableRecord(tmp_path / "tables.json"))
    plain, ports = HostRules("towpath0", (), ()), rules_of(BASE)
    driver.set("host", plain)
    assert driver.actual() == {"host": plain}
    assert heard == [False]
    with pytest.raises(KernelError, match=r"nft is not installed .*install nftables"):
        driver.set("host", ports)
    assert driver.actual() != {"host": ports}
    driver.close()


def test_what_nft_says_is_told(monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "/dev/stdin:1:1-9: Error: no\nmore")
    monkeypatch.setattr(module.shutil, "which", lambda *_, **__: "/nft")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(KernelError, match="nft refuses: /dev/stdin:1:1-9: Error: no"):
        module.nft("x")
