"""What is removed without being asked for now keeps out of the way: of additions, of a successor, and of the log."""

from __future__ import annotations

import logging
import time
from itertools import pairwise

import pytest

from engine.cni import collection, verbs
from engine.cni.server import Server
from tests.engine.cni.home import Home, ending
from tests.engine.namespaces import ip

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]

OWED = 20


class Counting:
    """A plugin that gives addresses; its deletions are counted, and then do what `deletes` says."""

    def __init__(self, folder):
        self.folder = folder / "plugins"
        self.folder.mkdir()
        self.keys = {"path": self.folder, "ipam": {"type": "counting"}}
        self.deletes("exit 0")

    def deletes(self, script):
        program = self.folder / "counting"
        program.write_text(
            f"#!/bin/sh\nd={self.folder}\n"
            "if [ $CNI_COMMAND = DEL ]; then echo $CNI_CONTAINERID >> $d/deletions; " + script + "; exit; fi\n"
            "echo x >> $d/additions; n=$(wc -l < $d/additions)\n"
            """echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.'$((n + 100))'/24"}]}'\n"""
        )
        program.chmod(0o755)

    @property
    def deletions(self):
        file = self.folder / "deletions"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def plugin(tmp_path):
    return Counting(tmp_path)


def add_many(home, sandbox, plugin, network="net{}"):
    for number in range(OWED):
        keys = {**plugin.keys, "name": network.format(number), "defaultRoute": False}
        added = home.ask("ADD", f"old{number}", sandbox, f"eth{number}", **keys)
        assert added["ips"], added


@pytest.fixture
def rebooted(tmp_path, sandbox, plugin, monkeypatch):
    """A node after a reboot: every attachment of before is owed to the plugin."""
    with ending(tmp_path, "killed") as home:
        add_many(home, sandbox, plugin)
    for number in range(OWED):
        ip("link", "del", f"eth{number}", namespace=sandbox)
    monkeypatch.setattr("engine.pod.residents._boot_id", lambda: "another")
    with Home(tmp_path) as home:
        yield home


def pass_on(home, seconds):
    home.node.loop.clock = lambda: time.monotonic() + seconds


def test_an_addition_does_not_wait_for_plugins_that_hang_over_what_is_owed(rebooted, sandbox, plugin):
    plugin.deletes("exec sleep 60")
    rebooted.verbs.collect()
    rebooted.turn_until(lambda: len(plugin.deletions) == collection.PLUGINS_AT_ONCE)
    said = rebooted.begin("ADD", "new", sandbox, **plugin.keys)
    rebooted.turn_until(lambda: said)
    assert said[0]["ips"]
    assert len(plugin.deletions) == collection.PLUGINS_AT_ONCE
    plugin.deletes("exit 0")
    rebooted.verbs._collection._plugins.interrupt()
    rebooted.settle()
    pass_on(rebooted, collection.FIRST_PAUSE + 1)
    rebooted.verbs.collect()
    rebooted.settle()
    assert [attachment.container for attachment in rebooted.node.residents.attachments] == ["new"]
    assert rebooted.delete("new", **plugin.keys) is None


def test_a_plugin_that_fails_is_asked_less_and_less_and_says_so_once(rebooted, plugin, caplog):
    plugin.deletes("exit 3")
    asked, later = [], 0.0
    with caplog.at_level(logging.WARNING):
        for _ in range(200):
            pass_on(rebooted, later)
            before = len(plugin.deletions)
            rebooted.verbs.collect()
            rebooted.settle()
            if len(plugin.deletions) > before:
                assert sorted(set(plugin.deletions)) == sorted(f"old{number}" for number in range(OWED))
                asked.append(later)
            later += 10.0
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses[:4] == pytest.approx([20, 30, 50, 90], abs=10.1)
    assert max(pauses) <= collection.LONGEST_PAUSE + 10
    said = [record.getMessage() for record in caplog.records if "old7" in record.getMessage()]
    assert len(said) == 2, said
    plugin.deletes("exit 0")
    pass_on(rebooted, later + collection.LONGEST_PAUSE)
    rebooted.verbs.collect()
    rebooted.settle()
    assert rebooted.node.residents.attachments == []


def test_a_successor_does_not_wait_for_plugins_that_hang(rebooted, plugin, monkeypatch):
    monkeypatch.setattr(collection, "PATIENCE", 0.2)
    plugin.deletes("exec sleep 60")
    server = Server(rebooted.node.loop, rebooted.folder / "cni.sock", rebooted.verbs)
    rebooted.verbs.collect()
    rebooted.turn_until(lambda: len(plugin.deletions) == collection.PLUGINS_AT_ONCE)
    server.rest()
    rebooted.verbs.collect()
    rebooted.turn_until(lambda: server.idle)
    assert len(plugin.deletions) == collection.PLUGINS_AT_ONCE, "no other was begun"
    assert len(rebooted.node.residents.leaving) == OWED, "which is written down"
    plugin.deletes("exit 0")
    server.resume()
    rebooted.verbs.collect()
    rebooted.settle()
    assert rebooted.node.residents.attachments == [], "it did not come"
    server.close()


def test_an_addition_does_not_wait_for_plugins_that_hang_over_garbage(home, sandbox, plugin):
    add_many(home, sandbox, plugin, network="pods")
    plugin.deletes("exec sleep 60")
    swept = home.begin("GC", **{"cni.dev/valid-attachments": []}, **plugin.keys)
    home.turn_until(lambda: len(plugin.deletions) == verbs.GARBAGE_AT_ONCE)
    said = home.begin("ADD", "new", sandbox, **plugin.keys)
    home.turn_until(lambda: said)
    assert said[0]["ips"]
    assert len(plugin.deletions) == verbs.GARBAGE_AT_ONCE
    assert swept == []
    plugin.deletes("exit 0")
    home.verbs._plugins.interrupt()
    home.settle()
    assert swept[0]["code"] == 105
    home.ask("GC", **{"cni.dev/valid-attachments": []}, **plugin.keys)
    assert home.node.residents.attachments == []
