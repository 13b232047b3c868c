"""Addresses that a delegated plugin does not take back at once: they stay written down until it does."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from engine.cni import addition
from engine.errors import KernelError, TowpathError
from tests.engine.cni.home import Home, ending, failing
from tests.engine.cni.runtime import finished, runtime_of
from tests.engine.cni.test_delegate import ended
from tests.engine.namespaces import device, ip, path_of, wait_for
from tests.engine.nodes import two_nodes

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


class Stubborn:
    """A plugin that gives one address and fails as long as it is told to; `held` is what it has given."""

    def __init__(self, folder):
        self.folder = folder / "plugins"
        self.folder.mkdir()
        self.lease = self.folder / "lease"
        self.refusing = self.folder / "refusing"
        self.keys = {"path": self.folder, "ipam": {"type": "stubborn"}}
        self.gives("10.1.0.77")

    def gives(self, address, status=0):
        answer = json.dumps({"cniVersion": "1.1.0", "ips": [{"address": f"{address}/24"}]})
        program = self.folder / "stubborn"
        program.write_text(
            f"#!/bin/sh\nif [ $CNI_COMMAND = ADD ]; then touch {self.lease}; echo '{answer}'; exit {status}; fi\n"
            f"[ $CNI_COMMAND = DEL ] || exit 0\n[ -e {self.refusing} ] && exit 3\nrm -f {self.lease}\n"
        )
        program.chmod(0o755)

    def refuse(self):
        self.refusing.touch()

    def give_in(self):
        self.refusing.unlink()

    @property
    def holds(self):
        return self.lease.exists()


@pytest.fixture
def plugin(tmp_path):
    return Stubborn(tmp_path)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("engine.cni.collection.FIRST_PAUSE", 0.0)


def is_owed(home, sandbox, plugin):
    """The pod is out, and its address is not forgotten."""
    assert plugin.holds
    assert device(sandbox) is None
    assert home.node.residents.pods() == ()
    assert [attachment.container for attachment in home.node.residents.leaving] == ["c1"]
    assert "not given back" in home.node.problems()[0].what


def is_made_up_for(home, plugin):
    home.verbs.collect()
    home.settle()
    assert plugin.holds
    plugin.give_in()
    home.verbs.collect()
    home.settle()
    assert not plugin.holds
    assert home.node.residents.attachments == []
    assert home.node.problems() == []


def delete(home, sandbox, plugin):
    assert home.delete("c1", **plugin.keys)["code"] == 105


def collect_garbage(home, sandbox, plugin):
    assert home.ask("GC", **{"cni.dev/valid-attachments": []}, **plugin.keys)["code"] == 105


def collect_what_is_gone(home, sandbox, plugin):
    ip("netns", "del", sandbox)
    home.node._keeper.vigil.check()
    home.verbs.collect()
    home.settle()


@pytest.mark.parametrize("remove", [delete, collect_garbage, collect_what_is_gone])
def test_what_is_not_taken_back_is_tried_again(home, sandbox, plugin, monkeypatch, remove):
    monkeypatch.setattr("engine.cni.collection.GRACE", 0.0)
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    plugin.refuse()
    remove(home, sandbox, plugin)
    is_owed(home, sandbox, plugin)
    is_made_up_for(home, plugin)


@pytest.mark.parametrize("fault", ["its answer", "the address", "the device", "the answer", "nobody takes it"])
def test_an_addition_that_cannot_be_undone_at_once_is_undone_later(home, sandbox, plugin, monkeypatch, fault):
    plugin.refuse()
    acknowledge = fault != "nobody takes it"
    if fault == "its answer":
        plugin.gives("10.1.0.77", status=3)
    elif fault == "the address":
        plugin.gives("10.77.0.1")
    elif fault == "the device":
        monkeypatch.setattr(home.node._keeper.datapath.pods, "_open_tun", _refuse)
    elif fault == "the answer":
        monkeypatch.setattr(addition, "success", _refuse)
    said = home.add("c1", sandbox, acknowledge=acknowledge, **plugin.keys)
    assert ("code" in said) is acknowledge
    is_owed(home, sandbox, plugin)
    assert home.node.ipam_check().leaks == []
    is_made_up_for(home, plugin)


def _refuse(*_, **__):
    raise KernelError("no room")


def test_a_plugin_is_not_asked_for_what_cannot_be_written_down(home, sandbox, plugin, monkeypatch):
    with failing(monkeypatch, home.node.residents._store, "put", KernelError("no space left")):
        assert home.add("c1", sandbox, **plugin.keys)["code"] == 100
    assert not plugin.holds
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    assert [attachment.pod for attachment in home.node.residents.attachments] == ["pods@c1"]
    assert home.delete("c1", **plugin.keys) is None


HURRIED = """
from engine import daemon

daemon.COLLECT_PAUSE = 0.2
"""


@pytest.fixture
def killed(tmp_path, plugin):
    """Makes a daemon, and a runtime that asks it; the daemon is killed when its plugin has `begun`, which waits for `go_on`."""
    (tmp_path / "sitecustomize.py").write_text(HURRIED)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    plain = (plugin.folder / "stubborn").read_text()

    def hang(verb):
        """In a process that nobody waits for, and that has its own session."""
        wait = f"echo $$ > {begun}.new; mv {begun}.new {begun}; while [ ! -e {go_on} ]; do sleep 0.02; done"
        part = "touch" if verb == "ADD" else "rm -f"
        late = f"{wait}; {part} {plugin.lease}; touch {go_on}.seen"
        first = f"#!/bin/sh\nif [ $CNI_COMMAND = {verb} ] && [ ! -e {begun} ]; then\n"
        (plugin.folder / "stubborn").write_text(f"{first}setsid sh -c '{late}' &\nwait\nexit 1\nfi\n" + plain)

    def kill_amid(node, verb):
        hang(verb)
        running = ask(node, verb)
        wait_for(begun.exists)
        node.stop(signal.SIGKILL)
        assert finished(running).code == (11 if verb == "ADD" else 0)  # a deletion is in the spool
        node.start(environment=environment)
        return Path("/proc", begun.read_text().strip())

    def ask(node, verb):
        runtime = runtime_of(node)
        text = json.dumps(runtime.configuration(ipam=plugin.keys["ipam"])).encode()
        variables = {"CNI_CONTAINERID": "c1", "CNI_NETNS": path_of(node.pod_namespaces[0]), "CNI_IFNAME": "eth0"}
        return runtime.start_raw({**variables, "CNI_COMMAND": verb, "CNI_PATH": str(plugin.folder)}, text)

    with two_nodes(tmp_path) as (node, _):
        node.write(pods=0, peers=False)
        node.start(environment=environment)
        yield node, ask, kill_amid
    go_on.touch()  # whoever runs on


def test_a_plugin_of_a_killed_daemon_gives_nothing_any_more(killed):
    """It has started another program, in a session of its own. The next daemon asks for what it may have given before."""
    node, _, kill_amid = killed
    orphan = kill_amid(node, "ADD")
    wait_for(lambda: ended(orphan))
    journal = node.folder / "state" / "attachments.journal"
    wait_for(lambda: journal.read_text().rstrip().endswith("null]"))
    assert node.pods() == {}
    wait_for(lambda: node.status().problems == [])


def test_a_plugin_of_a_killed_daemon_takes_nothing_from_whoever_comes_next(killed, plugin):
    node, ask, kill_amid = killed
    assert finished(ask(node, "ADD")).code == 0
    orphan = kill_amid(node, "DEL")
    assert finished(ask(node, "ADD")).code == 0
    assert ended(orphan)
    assert plugin.holds
    assert finished(ask(node, "DEL")).code == 0
    assert not plugin.holds


def test_a_plugin_that_did_not_run_has_nothing_to_take_back(home, sandbox):
    assert home.add("c1", sandbox, path=home.folder, ipam={"type": "nobody"})["code"] == 7
    assert home.node.residents.attachments == []


def test_what_is_tried_again_stays_a_problem_meanwhile(home, sandbox, plugin):
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    plugin.refuse()
    delete(home, sandbox, plugin)
    begun, go_on = home.folder / "begun", home.folder / "go-on"
    program = plugin.folder / "stubborn"
    program.write_text(f"#!/bin/sh\ntouch {begun}\nwhile [ ! -e {go_on} ]; do sleep 0.02; done\nrm {plugin.lease}\n")
    home.verbs.collect()
    home.turn_until(begun.exists)
    is_owed(home, sandbox, plugin)
    go_on.touch()
    home.settle()
    assert home.node.problems() == []


@pytest.mark.parametrize("wanted", ["10.1.0.77", "pods@c1"])
def test_what_is_owed_to_a_plugin_that_is_no_more_can_be_written_off(home, sandbox, plugin, wanted):
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    with pytest.raises(TowpathError):
        home.node.ipam_release(wanted)
    (plugin.folder / "stubborn").unlink()
    assert home.delete("c1", **plugin.keys)["code"] == 7
    assert home.node.ipam_release(wanted).handle == "pods/c1/eth0"
    assert home.node.residents.attachments == []
    assert home.node.problems() == []


def test_what_a_plugin_may_have_given_can_be_written_off_too(home, sandbox, plugin):
    plugin.refuse()
    plugin.gives("10.1.0.77", status=3)
    assert home.add("c1", sandbox, **plugin.keys)["code"] == 105
    assert home.node.ipam_release("pods@c1").handle == "pods/c1/eth0"
    assert home.node.residents.attachments == []
    assert home.node.problems() == []


def test_what_is_written_off_while_its_plugin_is_asked_is_no_problem_afterwards(home, sandbox, plugin):
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    begun, go_on = home.folder / "begun", home.folder / "go-on"
    program = plugin.folder / "stubborn"
    program.write_text(f"#!/bin/sh\ntouch {begun}\nwhile [ ! -e {go_on} ]; do sleep 0.02; done\nexit 3\n")
    said = home.begin("DEL", "c1", **plugin.keys)
    home.turn_until(begun.exists)
    assert home.node.ipam_release("10.1.0.77").handle == "pods/c1/eth0"
    go_on.touch()
    home.settle()
    assert said[0]["code"] == 105
    assert home.node.problems() == []


def test_an_addition_that_has_just_begun_cannot_be_written_off(home, sandbox, plugin):
    go_on = home.folder / "go-on"
    program = plugin.folder / "stubborn"
    program.write_text(program.read_text().replace("; echo", f"; while [ ! -e {go_on} ]; do sleep 0.02; done; echo"))
    said = home.begin("ADD", "c1", sandbox, **plugin.keys)
    home.turn_until(lambda: plugin.holds)
    with pytest.raises(TowpathError):
        home.node.ipam_release("pods@c1")
    go_on.touch()
    home.settle()
    assert said[0]["ips"]
    assert home.delete("c1", **plugin.keys) is None


def test_a_plugin_may_give_again_what_is_owed_to_it(home, sandbox, plugin):
    """It knows best whose the address is, once nothing stands that has it."""
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    assert home.ask("ADD", "c2", sandbox, "eth1", **plugin.keys, defaultRoute=False)["code"] == 103
    plugin.refuse()
    delete(home, sandbox, plugin)
    assert home.ask("ADD", "c2", sandbox, **plugin.keys)["ips"][0]["address"].startswith("10.1.0.77/")
    assert home.node.ipam_check().leaks == []
    plugin.give_in()
    home.verbs.collect()
    home.settle()
    assert [attachment.container for attachment in home.node.residents.attachments] == ["c2"]
    assert home.delete("c2", **plugin.keys) is None


def test_the_next_addition_waits_for_what_is_to_be_taken_back(home, sandbox, plugin):
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    plugin.refuse()
    delete(home, sandbox, plugin)
    assert home.add("c1", sandbox, **plugin.keys)["code"] == 105
    plugin.give_in()
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    assert home.delete("c1", **plugin.keys) is None
    assert not plugin.holds


def test_a_full_disk_keeps_what_cannot_be_written_off(home, sandbox, plugin, monkeypatch):
    assert home.add("c1", sandbox, **plugin.keys)["ips"]
    with failing(monkeypatch, home.node.residents._store, "delete", KernelError("no space left")):
        assert home.delete("c1", **plugin.keys)["code"] == 100
    assert home.delete("c1", **plugin.keys) is None
    assert home.node.residents.attachments == []
    assert home.node.problems() == []


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_the_next_daemon_makes_up_for_it(tmp_path, sandbox, plugin, way):
    with ending(tmp_path, way) as home:
        assert home.add("c1", sandbox, **plugin.keys)["ips"]
        plugin.refuse()
        delete(home, sandbox, plugin)
    with Home(tmp_path) as home:
        home.verbs.collect()
        home.settle()
        is_owed(home, sandbox, plugin)
        is_made_up_for(home, plugin)


def test_what_an_earlier_boot_left_is_taken_back(tmp_path, sandbox, plugin, monkeypatch):
    with ending(tmp_path, "killed") as home:
        assert home.add("c1", sandbox, **plugin.keys)["ips"]
    ip("link", "del", "eth0", namespace=sandbox)
    monkeypatch.setattr("engine.pod.residents._boot_id", lambda: "another")
    plugin.refuse()
    with Home(tmp_path) as home:
        home.verbs.collect()
        home.settle()
        is_owed(home, sandbox, plugin)
        is_made_up_for(home, plugin)


def test_plugins_that_hang_hold_up_no_deletion(home, sandbox, plugin, monkeypatch):
    monkeypatch.setattr("engine.cni.verbs.PATIENCE", 0.1)  # they hang to the end
    assert home.add("ours", sandbox)["ips"]
    (plugin.folder / "stubborn").write_text("#!/bin/sh\nexec sleep 60\n")
    running = threading.active_count
    before = running()
    asked = [home.begin("ADD", f"c{number}", sandbox, f"net{number}", **plugin.keys) for number in range(20)]
    home.turn_until(lambda: running() >= before + 16)
    gone = home.begin("DEL", "ours")
    home.turn_until(lambda: gone)
    assert gone == [None]
    assert device(sandbox) is None
    assert asked == [[]] * 20
