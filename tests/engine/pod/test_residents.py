"""Attachments in the journal: what a crash, a reboot and a namespace that is gone make of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest

from engine.config import parse
from engine.errors import KernelError
from engine.model import Bandwidth, Identity, PortMapping
from engine.pod import accounts
from engine.pod.addresses import Addresses
from engine.pod.ipam.allocator import NoAddressError
from engine.pod.residents import Attachment, PortWish, Residents
from engine.pod.store import FileStore, MemoryStore

CONFIG = parse('[node]\nname = "a"\nprefixes = ["10.1.0.0/24", "fd00:1::/64"]\n', file="x")


def attachment(container="c1", interface="eth0", network="pods", addresses=("10.1.0.2",), **keys):
    name = f"{network}@{container}:{interface}"
    return Attachment(network, container, interface, name, f"/run/netns/{container}", (4, 7), tuple(addresses), **keys)


def test_what_was_put_is_there_after_a_crash(tmp_path):
    store = FileStore(tmp_path / "a.journal")
    residents = Residents(store, boot="1")
    residents.put(attachment())
    residents.put(attachment("c2"))
    residents.put(msgspec.structs.replace(attachment("c2"), confirmed=True))
    residents.discard(attachment().key)
    again = Residents(FileStore(tmp_path / "a.journal"), boot="1")
    assert again.attachments == [msgspec.structs.replace(attachment("c2"), confirmed=True)]
    assert [pod.name for pod in again.pods()] == ["pods@c2:eth0"]


def test_of_an_earlier_boot_only_what_a_plugin_has_to_be_told_is_left(tmp_path):
    before = Residents(FileStore(tmp_path / "a.journal"), boot="1")
    before.put(attachment())
    before.put(attachment("delegated", ipam="host-local"))
    for _ in range(2):
        after = Residents(FileStore(tmp_path / "a.journal"), boot="2")
        assert after.pods() == ()
        assert [found.container for found in after.attachments] == ["delegated"]
        assert after.leaving == after.attachments
        assert after.look(10.0), "whatever has its numbers now is another namespace"
    after.discard(attachment("delegated").key)
    assert Residents(FileStore(tmp_path / "a.journal"), boot="2").attachments == []


def test_who_was_let_go_is_no_pod_after_a_crash(tmp_path):
    residents = Residents(FileStore(tmp_path / "a.journal"), boot="1")
    residents.put(attachment())
    residents.put(attachment("c2"))
    residents.let_go([attachment().key])
    size = (tmp_path / "a.journal").stat().st_size
    residents.let_go([attachment().key])
    assert (tmp_path / "a.journal").stat().st_size == size, "once is enough"
    again = Residents(FileStore(tmp_path / "a.journal"), boot="1")
    assert [pod.name for pod in again.pods()] == ["pods@c2:eth0"]
    assert [found.key for found in again.leaving] == [attachment().key]


def test_who_is_let_go_on_a_full_disk_goes_all_the_same(monkeypatch):
    store = MemoryStore()
    residents = Residents(store, boot="1")
    residents.put(attachment())
    with monkeypatch.context() as patch:
        patch.setattr(store, "put", _refuse)
        residents.let_go([attachment().key])
    assert residents.pods() == ()
    residents.let_go([attachment().key])
    assert Residents(store, boot="1").pods() == (), "written down once there is room"


def _refuse(*_):
    raise KernelError("no space left")


def test_an_entry_that_cannot_be_read_costs_itself(tmp_path, caplog):
    store = MemoryStore()
    Residents(store, boot="1").put(attachment())
    store.put("attachment/x", b'{"network": 7}', 0)
    assert len(Residents(store, boot="1").attachments) == 1
    assert "ignoring attachment" in caplog.text


def test_who_is_gone_is_no_pod_but_written_down():
    residents = Residents(MemoryStore(), boot="1")
    residents.put(attachment())
    residents.put(attachment("c2"))
    assert not residents.look(10.0, lambda _: True)
    assert residents.look(20.0, lambda found: found.container != "c1")
    assert not residents.look(30.0, lambda found: found.container != "c1")
    assert [pod.name for pod in residents.pods()] == ["pods@c2:eth0"]
    assert residents.gone_before(19.0) == []
    assert [found.container for found in residents.gone_before(20.0)] == ["c1"]
    assert residents.look(40.0, lambda _: True), "back again"
    assert residents.gone_before(100.0) == []
    residents.let_go([attachment().key])
    assert [pod.name for pod in residents.pods()] == ["pods@c2:eth0"]
    assert residents.get(attachment().key) is not None
    residents.discard(attachment().key)
    assert residents.get(attachment().key) is None


def test_a_pod_carries_what_was_asked_for():
    wished = attachment(
        routes=("10.0.0.0/8",),
        orchestrator=("default", "web"),
        labels=(("app", "web"),),
        ports=(PortWish(80, 8080, "tcp", "192.0.2.1"), PortWish(53, 53, "udp")),
        bandwidth=(1000, 2000, 10, 20),
    )
    pod = wished.as_pod()
    assert pod.routes == (ip_network("10.0.0.0/8"),)
    assert pod.identity == Identity("default", "web", (("app", "web"),))
    assert pod.ports == (PortMapping(80, 8080, "tcp", ip_address("192.0.2.1")), PortMapping(53, 53, "udp", None))
    assert pod.bandwidth == Bandwidth(1000, 2000, 10, 20)
    assert pod.namespace_id == (4, 7)
    assert msgspec.json.decode(msgspec.json.encode(wished), type=Attachment) == wished


def test_names_are_unique_and_fit_an_alias():
    residents = Residents(MemoryStore(), boot="1")
    assert residents.name_for("default/web", "0123456789abcdef", "eth0", ()) == "default/web@0123456789ab"
    assert residents.name_for("default/web", "0123456789abcdef", "net1", ()) == "default/web@0123456789ab:net1"
    residents.put(msgspec.structs.replace(attachment(), pod="default/web@0123456789ab"))
    assert residents.name_for("default/web", "0123456789abXXXX", "eth0", ()) == "default/web@0123456789abXXXX:eth0"
    longest = residents.name_for("x" * 600, "c" * 128, "i" * 15, ("x" * 100 + "@" + "c" * 12 + ":" + "i" * 15,))
    assert len(f"towpath:{longest}") <= 255


# -- with the addresses ------------------------------------------------------------
@pytest.fixture
def residents():
    return Residents(MemoryStore(), boot="1")


def test_a_crash_between_two_writings_is_settled(residents):
    addresses = Addresses(MemoryStore(), CONFIG)
    kept = attachment(addresses=addresses.assign("pods/c1/eth0", (4, 6)))
    kept = msgspec.structs.replace(kept, addresses=tuple(map(str, kept.addresses)))
    residents.put(kept)
    addresses.assign("pods/lost/eth0", (4,))
    residents.put(attachment("untaken", addresses=("10.1.0.99",)))
    residents.put(attachment("delegated", addresses=("10.1.0.98",), ipam="host-local"))
    kinds = sorted(leak.kind for leak in accounts.check(addresses, residents, CONFIG).leaks)
    assert kinds == ["leaked", "missing"]
    addresses.settle(residents)
    assert accounts.check(addresses, residents, CONFIG).leaks == []
    assert {given.taken.handle for given in addresses.given()} == {"pods/c1/eth0", "pods/untaken/eth0"}
    addresses.settle(residents)
    assert len(list(addresses.given())) == 3


def test_every_kind_of_leak_is_told(residents):
    addresses = Addresses(MemoryStore(), CONFIG)
    residents.put(attachment(addresses=map(str, addresses.assign("pods/c1/eth0", (4,)))))
    smaller = parse(
        '[node]\nname = "a"\nprefixes = ["10.1.0.0/24", "fd00:1::/64"]\n[ipam]\npools = ["10.1.0.128/25"]\n'
        '[[pods]]\nname = "late"\nnamespace = "n"\naddresses = ["10.1.0.2"]\n',
        file="x",
    )
    addresses.configure(smaller)
    residents.look(0.0, lambda _: False)
    leaks = accounts.check(addresses, residents, smaller).leaks
    assert sorted(leak.kind for leak in leaks) == ["gone", "outside", "twice"]
    assert all(leak.remedy and leak.handle == "pods/c1/eth0" for leak in leaks)


def test_addresses_under_an_earlier_name_of_the_node_are_given_only_when_that_is_allowed():
    """A node that is called otherwise has another's blocks in its journal."""
    store = MemoryStore()
    text = '[node]\nname = "{}"\nprefixes = ["10.1.0.0/29"]\n[ipam]\nborrow = {}\n'
    earlier, own, borrowing = (
        Addresses(store, parse(text.format(name, allowed), file="x"))
        for name, allowed in (("before", "false"), ("after", "false"), ("after", "true"))
    )
    assert earlier.assign("one", (4,)) == (ip_address("10.1.0.2"),)
    with pytest.raises(NoAddressError):
        own.assign("two", (4,))
    assert borrowing.assign("two", (4,)) == (ip_address("10.1.0.3"),)
