"""Policies from files: what is read, what is left, what is noticed."""

from __future__ import annotations

import os

import pytest

from engine.desired.policy.document import Limits
from engine.source.policies import PolicyFolder, read_files

POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s}\nspec: {}\n"


def names(reading):
    return sorted(value.name for _, value in reading.objects)


def test_folder(tmp_path):
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


def test_poll_reads_on_change_only(tmp_path):
    folder = PolicyFolder(tmp_path)
    assert names(folder.poll()) == []
    assert folder.poll() is None
    (tmp_path / "a.yaml").write_text(POLICY % "a")
    assert names(folder.poll()) == ["a"]
    assert folder.poll() is None
    new = tmp_path / "new"
    new.write_text(POLICY % "b")
    os.replace(new, tmp_path / "a.yaml")
    assert names(folder.poll()) == ["b"]
    (tmp_path / "a.yaml").unlink()
    assert names(folder.poll()) == []


def test_poll_survives_a_missing_folder(tmp_path):
    folder = PolicyFolder(tmp_path / "none")
    assert len(folder.poll().problems) == 1
    assert folder.poll() is None
