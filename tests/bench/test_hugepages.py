"""Huge pages are reserved for a while, and only those are given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.lookup import hugepages as module
from bench.lookup.hugepages import hugepages


class Kernel:
    """The file, of a kernel that has room for so many pages."""

    def __init__(self, reserved: int, room: int) -> None:
        self.reserved, self.room = reserved, room

    def read_text(self) -> str:
        return f"{self.reserved}\n"

    def write_text(self, text: str) -> None:
        self.reserved = min(int(text), self.room)


@pytest.mark.parametrize("reserved", [0, 3])
def test_they_are_reserved_and_given_back(reserved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "nr_hugepages"
    file.write_text(f"{reserved}\n")
    monkeypatch.setattr(module, "RESERVED", file)
    with hugepages(64) as huge:
        assert huge
        assert int(file.read_text()) == reserved + 32
        file.write_text(str(reserved + 32 + 5))  # somebody else's
    assert int(file.read_text()) == reserved + 5


def test_a_kernel_without_them_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESERVED", tmp_path / "missing")
    with hugepages(64) as huge:
        assert not huge


def test_a_part_is_given_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(reserved=3, room=20)
    monkeypatch.setattr(module, "RESERVED", kernel)
    with hugepages(64) as huge:
        assert not huge
        assert kernel.reserved == 3
    assert kernel.reserved == 3


def test_never_below_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(reserved=0, room=100)
    monkeypatch.setattr(module, "RESERVED", kernel)
    with hugepages(64):
        kernel.reserved = 2
    assert kernel.reserved == 0
