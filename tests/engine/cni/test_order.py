"""Who waits for whom: what removes without being asked for a container keeps out of the way of its calls."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager

import pytest

from tests.engine.cni.home import Home, failing
from tests.engine.namespaces import device, ip, namespaces

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.cni.collection.GRACE", 0.0)
    with Home(tmp_path) as made:
        yield made


def collect_garbage(home):
    home.begin("GC", **{"cni.dev/valid-attachments": []})


def collect_what_is_gone(home):
    home.node._keeper.vigil.check()
    home.verbs.collect()


@pytest.mark.parametrize("collect", [collect_garbage, collect_what_is_gone])
def test_a_container_that_comes_while_its_predecessor_is_collected_stays(home, slow_kernel, collect):
    begun, finish = slow_kernel
    with namespaces(2) as (old, new):
        assert home.add("c1", old)["ips"]
        ip("netns", "del", old)
        collect(home)
        home.turn_until(begun.is_set)
        added = home.begin("ADD", "c1", new)
        home.node.loop.turn()
        assert not added, "it waits for its turn"
        finish.set()
        home.settle()
        assert added[0]["ips"]
        assert [found.namespace.endswith(new) for found in home.node.residents.attachments] == [True]
        assert home.given() == ["pods/c1/eth0"]
        assert device(new) is not None
        home.verbs.collect()
        home.settle()
        assert home.ask("CHECK", "c1", new, prevResult=added[0]) is None
        assert home.delete("c1") is None


@pytest.mark.parametrize("collect", [collect_garbage, collect_what_is_gone])
def test_what_waits_for_a_container_looks_again_before_it_removes(home, collect, slow_kernel):
    begun, finish = slow_kernel
    with namespaces(2) as (old, new):
        assert home.add("c1", old)["ips"]
        ip("netns", "del", old)
        deleted, added = home.begin("DEL", "c1"), home.begin("ADD", "c1", new)
        home.turn_until(begun.is_set)
        collect(home)
        finish.set()
        home.settle()
        assert deleted == [None]
        assert added[0]["ips"], "the newcomer was not what was to be collected"
        assert device(new) is not None
        assert home.delete("c1") is None


def test_an_addition_in_flight_is_no_garbage(home):
    with namespaces(1) as (name,):
        said = home.begin("ADD", "c1", name, acknowledge=None)
        home.turn_until(lambda: said)
        collect_garbage(home)
        home.verbs.collect()
        home.node.loop.turn()
        assert device(name) is not None
        assert home.given() == ["pods/c1/eth0"]
        (acknowledge,) = home.unacknowledged
        acknowledge(True)
        home.settle()
        assert home.delete("c1") is None


# -- deletions that waited in the spool ---------------------------------------------------
THIS_BOOT, EARLIER_BOOT = (f"{number:08x}-0000-0000-0000-000000000000" for number in (2, 1))


def collect_the_spool(home):
    home.verbs.collect()
    home.settle()
    assert list(home.spool.iterdir()) == []


@pytest.mark.parametrize("deletion", [f"{THIS_BOOT} 99", f"{EARLIER_BOOT} 500"])
def test_a_deletion_that_waited_does_not_hit_what_was_added_after_it(home, deletion):
    with namespaces(1) as (name,):
        assert home.add("c1", name, asked=f"{THIS_BOOT} 100")["ips"]
        home.remember("c1", deletion)
        collect_the_spool(home)
        assert device(name) is not None
        assert home.given() == ["pods/c1/eth0"]
        assert home.delete("c1") is None


def test_a_deletion_that_waited_hits_what_was_there_before_it(home):
    with namespaces(1) as (name,):
        assert home.add("c1", name, asked=f"{THIS_BOOT} 100")["ips"]
        home.remember("c1", f"{THIS_BOOT} 101")
        collect_the_spool(home)
        assert device(name) is None
        assert home.given() == []


def test_a_deletion_that_waits_is_done_before_its_container_is_added_anew(home, monkeypatch):
    with namespaces(1) as (name,):
        assert home.add("c1", name, asked=f"{THIS_BOOT} 100")["ips"]
        home.remember("c1", f"{THIS_BOOT} 101")
        with failing(monkeypatch, home.node, "begin_to_detach"):
            refused = home.add("c1", name, asked=f"{THIS_BOOT} 102")
        assert refused["code"] == 11, "the runtime believes that it is deleted"
        assert len(list(home.spool.iterdir())) == 1
        assert home.add("c1", name, asked=f"{THIS_BOOT} 103")["ips"]
        collect_the_spool(home)
        assert device(name) is not None
        assert home.delete("c1") is None


def test_deletions_from_two_networks_are_both_done(home):
    """A container that left one network, could not come into another, and left that as well: none is lost."""
    with namespaces(1) as (name,):
        assert home.add("c1", name, asked=f"{THIS_BOOT} 100")["ips"]
        home.remember("c1", f"{THIS_BOOT} 101")
        home.remember("c1", f"{THIS_BOOT} 102", network="other")
        assert home.add("c1", name, asked=f"{THIS_BOOT} 103", name="third")["ips"], "after both"
        assert list(home.spool.iterdir()) == []
        assert [found.network for found in home.node.residents.attachments] == ["third"]
        assert home.delete("c1", name="third") is None


@pytest.mark.parametrize("asks", [lambda home, _: collect_the_spool(home), lambda home, name: home.add("c1", name)])
def test_a_deletion_that_an_earlier_plugin_wrote_is_done(home, asks):
    """One that was not replaced yet, or had written it before: no network is in the name."""
    with namespaces(1) as (name,):
        assert home.add("c1", name, asked=f"{THIS_BOOT} 100")["ips"]
        file = home.remember("c1", f"{THIS_BOOT} 101", name="c1@eth0.del")
        before = device(name)["ifindex"]
        asks(home, name)
        assert not file.exists()
        assert (device(name) or {"ifindex": 0})["ifindex"] != before
        assert home.delete("c1") is None


NOBODY = 65534


def kept_aside(home):
    """The names of what was not believed, with nothing beside it that would be done."""
    (folder,) = home.spool.iterdir()
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(("name", "owner"), [("pods@c2@eth0.del", 0), ("c2@eth0.del", 0), ("pods@c1@eth0.del", NOBODY)])
def test_what_somebody_put_into_the_spool_is_not_done_but_kept(home, name, owner):
    with namespaces(1) as (sandbox,):
        assert home.add("c1", sandbox, asked=f"{THIS_BOOT} 100")["ips"]
        os.chown(home.remember("c1", f"{THIS_BOOT} 101", name=name), owner, -1)
        home.verbs.collect()
        home.settle()
        assert kept_aside(home) == [name]
        assert device(sandbox) is not None
        assert home.delete("c1") is None


def test_nothing_is_added_while_nobody_can_tell_what_is_to_be_deleted(home, monkeypatch):
    with namespaces(1) as (sandbox,):
        with failing(monkeypatch, os, "scandir", OSError(errno.EMFILE, "Too many open files")):
            assert home.add("c1", sandbox)["code"] == 11
        with failing(monkeypatch, os, "scandir", OSError(errno.EMFILE, "Too many open files")):
            home.verbs.collect()
        assert home.add("c1", sandbox)["ips"]
        assert home.delete("c1") is None


@contextmanager
def deletion_under_way(home, slow_kernel):
    """One of the spool's, of a container that was added; `set` of what it yields lets it end."""
    begun, finish = slow_kernel
    with namespaces(1) as (name,):
        assert home.add("c1", name)["ips"]
        home.remember("c1", f"{THIS_BOOT} 101")
        home.verbs.collect()
        home.turn_until(begun.is_set)
        yield finish


def test_a_deletion_that_comes_while_another_one_is_carried_out_is_not_lost(home, slow_kernel):
    with deletion_under_way(home, slow_kernel) as finish:
        home.remember("c1", f"{THIS_BOOT} 102")
        finish.set()
        home.settle()
        assert len(list(home.spool.iterdir())) == 1
        collect_the_spool(home)


def test_a_deletion_that_nobody_can_understand_does_not_wait_for_ever(home):
    home.remember("c1", f"{THIS_BOOT} 101", b"nonsense")
    home.verbs.collect()
    home.settle()
    assert kept_aside(home) == ["pods@c1@eth0.del"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_deletion_that_cannot_be_read_now_is_read_later(home, monkeypatch, number):
    with namespaces(1) as (name,):
        assert home.add("c1", name)["ips"]
        home.remember("c1", f"{THIS_BOOT} 101")
        before = os.open

        def refuse(path, *more, **options):
            if str(path).startswith(str(home.spool)):
                raise OSError(number, os.strerror(number), path)
            return before(path, *more, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            home.verbs.collect()
            home.settle()
        assert len(list(home.spool.iterdir())) == 1
        collect_the_spool(home)
        assert device(name) is None


def test_a_deletion_that_hangs_gathers_no_others_behind_it(home, slow_kernel):
    with deletion_under_way(home, slow_kernel) as finish:
        under_way = len(home.verbs._tasks)
        for _ in range(3):
            home.verbs.collect()
        assert len(home.verbs._tasks) == under_way
        finish.set()
        home.settle()
        assert list(home.spool.iterdir()) == []
