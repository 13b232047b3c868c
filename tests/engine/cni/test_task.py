"""Coroutines without a loop of their own, and the lanes that they go through."""

from __future__ import annotations

import pytest

from engine.cni.aside import Aside
from engine.cni.lanes import Lanes
from engine.cni.task import Outcome, Tasks
from engine.loop import Loop
from tests.engine.namespaces import wait_for


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_a_coroutine_goes_on_with_what_it_waited_for():
    tasks, waits, said = Tasks(), [Outcome(), Outcome(), Outcome()], []

    async def work():
        said.append(await waits[0])
        try:
            await waits[1]
        except ValueError as error:
            said.append(str(error))
        said.append(await waits[2])

    waits[2].settle("known before")
    tasks.begin(work())
    assert (said, len(tasks)) == ([], 1)
    waits[0].settle(7)
    assert said == [7]
    waits[1].fail(ValueError("no"))
    assert (said, len(tasks)) == ([7, "no", "known before"], 0)


def test_what_a_coroutine_raises_harms_nobody(caplog):
    tasks, wait, said = Tasks(), Outcome(), []

    async def careless():
        await wait
        raise RuntimeError("a fault")

    async def patient(other):
        await other
        said.append("ended")

    tasks.begin(patient(tasks.begin(careless())))
    wait.settle(None)
    assert (said, len(tasks)) == (["ended"], 0)
    assert "a fault" in caplog.text


@pytest.mark.parametrize("fault", [None, RuntimeError("a fault")])
def test_a_lane_is_free_again_whatever_happened_in_it(loop, fault):
    tasks, lanes, said = Tasks(), Lanes(loop), []
    waits = [Outcome() for _ in range(3)]

    async def go(number, lane):
        async with lanes.passage(lane):
            said.append(number)
            await waits[number]
            if fault:
                raise fault

    for number, lane in enumerate([("c1", "eth0"), ("c1", "eth0"), ("c2", "eth0")]):
        tasks.begin(go(number, lane))
    assert said == [0, 2]
    waits[2].settle(None)
    assert ("c2", "eth0") not in lanes
    waits[0].settle(None)
    loop.turn()
    assert said == [0, 2, 1]
    waits[1].settle(None)
    assert ("c1", "eth0") not in lanes
    assert len(tasks) == 0


def test_what_a_thread_raises_is_raised_where_it_is_waited_for(loop):
    tasks, aside, said = Tasks(), Aside(loop, "test"), []

    def fail():
        raise OSError("no")

    async def work():
        said.append(await aside.run(lambda: 7))
        for what in (fail, aside.close, lambda: 8):  # the last one comes when nothing is begun any more
            try:
                said.append(await aside.run(what))
            except (OSError, RuntimeError) as error:
                said.append(type(error))

    tasks.begin(work())
    wait_for(lambda: loop.turn() or len(tasks) == 0)
    assert said == [7, OSError, None, RuntimeError]
