"""A test that is to be alone is alone, in however many processes the others run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.lab import wait_until
from tests.turns import Turns

ROOT = Path(__file__).parent.parent


def waiting(file):
    """How many wait for a lock on it."""
    inode = f":{file.stat().st_ino} "
    return sum(" -> " in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.fixture
def join(tmp_path):
    """Somebody new among those who take turns."""
    made = []

    def turns():
        made.append(Turns(tmp_path))
        return made[-1]

    yield turns
    for turns in made:
        turns.close()


def test_nobody_waits_for_those_who_need_not_be_alone(join):
    with join().take(alone=False), join().take(alone=False):
        pass


@pytest.mark.parametrize("first_alone", [False, True])
def test_who_is_to_be_alone_waits_for_the_first_and_is_not_overtaken(join, tmp_path, first_alone):
    order = []

    def take_part(name, *, alone):
        with turns[name].take(alone=alone):
            order.append(name)

    turns = {name: join() for name in ("first", "loner", "later")}
    threads = [
        threading.Thread(target=take_part, args=[name], kwargs={"alone": alone})
        for name, alone in (("loner", True), ("later", False))
    ]
    with turns["first"].take(alone=first_alone):
        threads[0].start()
        wait_until(lambda: waiting(tmp_path / "running"), "the loner to wait for the first")
        threads[1].start()
        wait_until(lambda: waiting(tmp_path / "queue"), "the other to wait behind it")
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["loner", "later"]


def test_nobody_waits_for_ever(join, monkeypatch):
    first, later = join(), join()
    monkeypatch.setattr("tests.turns.PATIENCE", 0.05)
    with first.take(alone=True):
        with pytest.raises(TimeoutError, match="no turn within"), later.take(alone=False):
            pass
        with pytest.raises(TimeoutError, match="no turn within"), join().take(alone=True):
            pass


CROWD = """
import os, time, pathlib, pytest
here = pathlib.Path(__file__).parent

@pytest.mark.parametrize("number", range(20))
def test_one_of_many(number):
    mine = here / f"running-{os.getpid()}"
    mine.touch()
    time.sleep(0.005)  # the time in which another might come
    mine.unlink()
"""
LONER = """
import os, time, pathlib, pytest
here = pathlib.Path(__file__).parent

@pytest.mark.alone
@pytest.mark.parametrize("number", range(10))
def test_alone(number):
    for _ in range(5):
        assert list(here.glob("running-*")) == []
        time.sleep(0.001)
    (here / f"alone-{number}").touch()
"""


def test_pytest_sees_to_it(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone: by itself\n")
    for name, text in (("test_a.py", CROWD), ("test_b.py", LONER), ("test_c.py", CROWD)):
        (tmp_path / name).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.turns",
        "-p",
        "no:cacheprovider",
        "-n",
        "3",
        "--dist",
        "loadfile",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-q", str(tmp_path)],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 passed" in done.stdout
    assert len(list(tmp_path.glob("alone-*"))) == 10
