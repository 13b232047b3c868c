"""Policy files: which are read, what bounds them, what holds while one is wrong, and that changes are noticed."""

from __future__ import annotations

import os
import select

import pytest

from engine.desired.policy.document import Limits
from engine.source.policies import PolicyFiles, PolicyWatch, read_files

POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s}\nspec: {}\n"
WRONG = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s}\nspec: {x: 1}\n"


def names(reading):
    return [value.name for _, value in reading.objects]


def test_which_files(tmp_path):
    (tmp_path / "a.yaml").write_text(POLICY % "a")
    (tmp_path / "b.yml").write_text(POLICY % "b")
    (tmp_path / "c.json").write_text(
        '{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "c"}, "spec": {}}'
    )
    (tmp_path / "notes.txt").write_text("{")
    (tmp_path / ".hidden.yaml").write_text("{")
    reading = read_files([tmp_path])
    assert not reading.problems
    assert names(reading) == ["a", "b", "c"]


def test_a_bad_file_leaves_the_others(tmp_path):
    (tmp_path / "a.yaml").write_text(POLICY % "a")
    (tmp_path / "b.yaml").write_text("{")
    reading = read_files([tmp_path])
    assert names(reading) == ["a"]
    (problem,) = reading.problems
    assert problem.origin.file == str(tmp_path / "b.yaml")


@pytest.mark.parametrize("what", ["missing", "fifo", "folder", "large"])
def test_what_is_no_file_is_a_problem(tmp_path, what):
    path = tmp_path / "a.yaml"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
        path = tmp_path
    elif what == "large":
        path.write_text("#" * 200)
    reading = read_files([path], Limits(size=100))
    assert len(reading.problems) == 1
    assert not reading.objects


# -- again and again -----------------------------------------------------------
def refreshed(files):
    changed = files.refresh()
    return names(files.reading()) if changed else None


def test_reads_what_changed_and_nothing_else(tmp_path, monkeypatch):
    files = PolicyFiles([tmp_path])
    assert files.closed, "nothing was read yet"
    assert refreshed(files) is None, "an empty folder says nothing"
    assert not files.closed
    (tmp_path / "a.yaml").write_text(POLICY % "a")
    assert refreshed(files) == ["a"]
    (tmp_path / "b.yaml").write_text(POLICY % "b")
    opened = []
    monkeypatch.setattr("engine.source.policies._text", lambda path, _: opened.append(path.name) or path.read_bytes())
    assert refreshed(files) == ["a", "b"]
    assert opened == ["b.yaml"]
    assert refreshed(files) is None
    new = tmp_path / "new"
    new.write_text(POLICY % "c")
    os.replace(new, tmp_path / "a.yaml")
    assert refreshed(files) == ["c", "b"]
    (tmp_path / "a.yaml").unlink()
    assert refreshed(files) == ["b"]


def test_a_mistake_leaves_the_last_good_text_in_force(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(POLICY % "a")
    files = PolicyFiles([tmp_path])
    files.refresh()
    for text in ("{", WRONG % "b", POLICY % "c" + "---\nkind: x\n"):
        path.write_text(text)
        assert refreshed(files) == ["a"]
        (problem,) = files.reading().problems
        assert str(path) in str(problem)
        assert not files.closed
    path.write_text(POLICY % "d")
    assert refreshed(files) == ["d"]
    assert not files.reading().problems


def test_without_a_good_text_a_policy_denies_and_an_unreadable_file_closes(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(WRONG % "a")
    files = PolicyFiles([tmp_path])
    assert refreshed(files) == ["a"]
    assert files.reading().objects[0][1].refusal is not None
    assert not files.closed
    path.write_text("{")
    assert refreshed(files) == []
    assert files.closed
    path.write_text(POLICY % "a")
    files.refresh()
    assert not files.closed


def test_a_folder_that_goes_away_deletes_nothing(tmp_path):
    folder = tmp_path / "policies"
    files = PolicyFiles([folder])
    files.refresh()
    assert files.closed
    folder.mkdir()
    (folder / "a.yaml").write_text(POLICY % "a")
    assert refreshed(files) == ["a"]
    assert not files.closed
    folder.rename(tmp_path / "away")
    assert refreshed(files) == ["a"]
    assert [problem.what for problem in files.reading().problems] == ["the folder is gone"]
    assert not files.closed
    folder.mkdir()
    assert refreshed(files) == []
    assert not files.reading().problems


def test_a_named_file_that_goes_away_stays_in_force(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(POLICY % "a")
    files = PolicyFiles([path])
    assert refreshed(files) == ["a"]
    path.unlink()
    assert refreshed(files) == ["a"]
    assert files.reading().problems
    assert not files.closed


# -- watching --------------------------------------------------------------------
def noticed(watch):
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    return bool(poll.poll(2000)) and watch.drain()


def test_changes_are_noticed(tmp_path):
    folder, single = tmp_path / "policies", tmp_path / "one.yaml"
    folder.mkdir()
    watch = PolicyWatch(PolicyFiles([folder, single]))
    try:
        (folder / "a.yaml").write_text(POLICY % "a")
        assert noticed(watch)
        single.write_text(POLICY % "b")
        assert noticed(watch)
        data = tmp_path / "data"
        data.mkdir()
        os.symlink(data, folder / "..data")  # as volumes of a cluster swap their content
        assert noticed(watch)
        folder.rename(tmp_path / "away")
        assert noticed(watch)
        folder.mkdir()
        assert noticed(watch)
        (folder / "c.yaml").write_text(POLICY % "c")
        assert noticed(watch)
        assert not watch.drain(), "nothing is told twice"
    finally:
        watch.close()


def test_a_file_in_the_middle_of_a_change_is_looked_at_again(tmp_path):
    files = PolicyFiles([tmp_path])
    (tmp_path / "a.yaml").write_text("")
    files.refresh()
    assert files.unsettled
    os.utime(tmp_path / "a.yaml", (1, 1))
    files.refresh()
    assert not files.unsettled
