"""What every store must do, and what the journal must survive."""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import pytest

from engine.errors import KernelError
from engine.pod import store as stores
from engine.pod.store import ConflictError, FileStore, MemoryStore, change


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    made = MemoryStore() if request.param == "memory" else FileStore(tmp_path / "a.journal")
    yield made
    if request.param == "file":
        made.close()


# -- the contract --------------------------------------------------------------
def test_what_was_put_is_got(store):
    assert store.get("a") is None
    first = store.put("a", b'{"x":1}', 0)
    assert store.get("a") == first
    second = store.put("a", b'{"x":2}', first.revision)
    assert second.revision > first.revision
    assert store.get("a").value == b'{"x":2}'
    store.delete("a", second.revision)
    assert store.get("a") is None
    store.delete("a", 0)


def test_a_change_of_something_else_than_was_read_is_refused(store):
    first = store.put("a", b"1", 0)
    store.put("a", b"2", first.revision)
    for revision in (0, first.revision, first.revision + 100):
        with pytest.raises(ConflictError):
            store.put("a", b"3", revision)
        with pytest.raises(ConflictError):
            store.delete("a", revision)
    with pytest.raises(ConflictError):
        store.put("b", b"3", 7)
    assert store.get("a").value == b"2"


def test_a_key_that_came_back_has_a_new_revision(store):
    first = store.put("a", b"1", 0)
    store.delete("a", first.revision)
    assert store.put("a", b"1", 0).revision > first.revision


def test_items_are_those_below_a_prefix_in_order(store):
    for key in ("b/2", "a/1", "b/1", "bb"):
        store.put(key, b'"%b"' % key.encode(), 0)
    assert [key for key, _ in store.items("b/")] == ["b/1", "b/2"]


def test_change_reads_again_when_others_were_faster(store):
    store.put("a", b"1", 0)
    others = iter([b"10", b"20"])

    def rewrite(value):
        other = next(others, None)
        if other is not None:
            store.put("a", other, store.get("a").revision)
        return b"%d" % (int(value) + 1)

    change(store, "a", rewrite)
    assert store.get("a").value == b"21"
    change(store, "a", lambda _: None)
    assert store.get("a") is None


def test_change_gives_up(store):
    store.put("a", b"1", 0)

    def rewrite(value):
        store.put("a", b"%d" % (int(value) + 1), store.get("a").revision)
        return b"0"

    with pytest.raises(ConflictError, match="5 times"):
        change(store, "a", rewrite, tries=5)


# -- the journal ---------------------------------------------------------------
def entries(store):
    return dict(store.items(""))


def grown(path, operations=9):
    """A journal, and what it held after each of its changes."""
    store = FileStore(path)
    random_numbers = random.Random(7)
    states, sizes = [{}], [path.stat().st_size]
    for number in range(operations):
        key = f"block/{random_numbers.randrange(4)}"
        present = store.get(key)
        if present and random_numbers.random() < 0.3:
            store.delete(key, present.revision)
        else:
            store.put(key, b'{"n":%d,"text":"\\n \xc3\xa9"}' % number, present.revision if present else 0)
        states.append(entries(store))
        sizes.append(path.stat().st_size)
    store.close()
    return states, sizes


def test_a_journal_cut_at_any_byte_holds_the_last_whole_change(tmp_path):
    states, sizes = grown(tmp_path / "whole.journal")
    data = (tmp_path / "whole.journal").read_bytes()
    assert len(states) == 10
    for cut in range(len(data) + 1):
        path = tmp_path / "cut.journal"
        path.write_bytes(data[:cut])
        store = FileStore(path)
        expected = states[max((i for i, size in enumerate(sizes) if size <= cut), default=0)]
        assert entries(store) == expected, f"cut at {cut}"
        added = store.put("block/new", b"1", 0)
        store.close()
        again = FileStore(path)
        assert entries(again) == {**expected, "block/new": added}
        again.close()
        os.unlink(path)


def test_a_damaged_line_costs_itself_and_is_told(tmp_path, caplog):
    store = FileStore(tmp_path / "a.journal")
    for number in range(5):
        store.put(f"k{number}", b"%d" % number, 0)
    store.close()
    data = bytearray((tmp_path / "a.journal").read_bytes())
    at = data.index(b"k2")
    data[at] ^= 1
    (tmp_path / "a.journal").write_bytes(data)
    store = FileStore(tmp_path / "a.journal")
    assert [key for key, _ in store.items("")] == ["k0", "k1", "k3", "k4"]
    assert "left out 1 damaged" in caplog.text
    assert (tmp_path / "a.journal").read_bytes() == data, "opening changes nothing"
    store.put("k5", b"5", 0)
    store.close()
    assert b"k2" not in (tmp_path / "a.journal").read_bytes()


def test_every_flipped_bit_is_found(tmp_path):
    store = FileStore(tmp_path / "a.journal")
    store.put("k", b'"value"', 0)
    store.close()
    data = (tmp_path / "a.journal").read_bytes()
    for at in range(data.index(b"\n") + 1, len(data) - 1):
        for bit in range(8):
            bent = bytearray(data)
            bent[at] ^= 1 << bit
            path = tmp_path / "bent.journal"
            path.write_bytes(bent)
            bent_store = FileStore(path)
            assert entries(bent_store) in ({}, entries(store)), (at, bit)
            bent_store.close()


def test_history_does_not_grow_for_ever(tmp_path):
    store = FileStore(tmp_path / "a.journal")
    value = b'"%b"' % (b"x" * 1000)
    for _ in range(1000):
        present = store.get("k")
        store.put("k", value, present.revision if present else 0)
    assert (tmp_path / "a.journal").stat().st_size < 400_000
    before = entries(store)
    store.close()
    again = FileStore(tmp_path / "a.journal")
    assert entries(again) == before
    again.close()


def test_a_failed_write_changes_nothing(tmp_path, monkeypatch):
    store = FileStore(tmp_path / "a.journal")
    store.put("a", b"1", 0)
    size = (tmp_path / "a.journal").stat().st_size
    monkeypatch.setattr(stores.os, "write", lambda descriptor, data: os.pwrite(descriptor, data[:5], size))
    with pytest.raises(KernelError, match="cannot be written"):
        store.put("b", b"2", 0)
    monkeypatch.undo()
    assert store.get("b") is None
    assert (tmp_path / "a.journal").stat().st_size == size
    store.put("b", b"3", 0)
    store.close()
    again = FileStore(tmp_path / "a.journal")
    assert {key: stored.value for key, stored in again.items("")} == {"a": b"1", "b": b"3"}
    again.close()


@pytest.mark.root
@pytest.mark.needs("mount", "umount")
def test_a_full_disk_is_refused_and_nothing_is_lost(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    try:
        store = FileStore(folder / "a.journal")
        written = 0
        with pytest.raises(KernelError, match="cannot be written"):
            for number in range(1000):
                store.put(f"k{number}", b'"%b"' % (b"x" * 1000), 0)
                written += 1
        assert 10 < written < 100
        assert len(entries(store)) == written
        store.close()
        again = FileStore(folder / "a.journal")
        assert len(entries(again)) == written
        again.close()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_link_and_a_file_that_is_too_large_are_refused(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "a.journal").symlink_to(tmp_path / "target")
    with pytest.raises(KernelError, match="cannot be opened"):
        FileStore(tmp_path / "a.journal")
    with (tmp_path / "b.journal").open("wb") as file:
        file.truncate(stores.LARGEST_FILE + 1)
    with pytest.raises(KernelError, match="bytes"):
        FileStore(tmp_path / "b.journal")


def test_somebody_elses_file_is_not_taken_for_a_journal(tmp_path):
    shutil.copy(__file__, tmp_path / "a.journal")
    store = FileStore(tmp_path / "a.journal")
    assert entries(store) == {}
    store.close()
