"""Datapaths on real devices, over a plane double."""

from __future__ import annotations

from contextlib import contextmanager

from engine.apply.plane import kernel_openers
from engine.datapath import Datapath
from engine.pod.namespace import run_inside
from tests.engine.fakes import FakePlane
from tests.engine.namespaces import path_of


@contextmanager
def datapaths(folder, host=None):
    """What starts one, as a run after another: its host is this namespace, or `host`. Each is given up at the end."""
    opened = []

    def inside(work):
        return work() if host is None else run_inside(path_of(host), work, where="test")

    def start():
        opened.append(inside(lambda: Datapath(folder, openers=kernel_openers(), plane=FakePlane())))
        return opened[-1]

    try:
        yield start
    finally:
        for datapath in opened:
            inside(datapath.abandon)
