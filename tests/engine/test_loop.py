"""The poll loop: files, timers, calls from other threads, and callbacks that fail."""

from __future__ import annotations

import os
import threading

import pytest

from engine.loop import READ


def test_timers_run_in_order_when_they_are_due(loop, clock):
    seen = []
    loop.after(2, lambda: seen.append("b"))
    loop.after(1, lambda: seen.append("a"))
    loop.after(1, lambda: seen.append("a2"))
    loop.after(1, lambda: seen.append("never")).cancel()
    loop.turn()
    assert seen == []
    clock.now = 1
    loop.turn()
    assert seen == ["a", "a2"]
    clock.now = 5
    loop.turn()
    assert seen == ["a", "a2", "b"]


def test_every_goes_on_after_a_failure(loop, clock, caplog):
    calls = []

    def fail():
        calls.append(clock.now)
        raise ValueError("now and then")

    loop.every(1, fail)
    for clock.now in (1, 2, 3):
        loop.turn()
    assert calls == [1, 2, 3]
    assert "a callback failed" in caplog.text


def test_a_file_is_watched_until_it_is_forgotten(loop):
    read, write = os.pipe()
    seen = []
    try:
        loop.watch(read, READ, seen.append)
        loop.turn()
        assert seen == []
        os.write(write, b"x")
        loop.turn()
        assert seen == [READ]
        loop.forget(read)
        loop.forget(read)
        loop.turn()
        assert seen == [READ]
    finally:
        os.close(read)
        os.close(write)


def test_calls_from_another_thread_run_in_the_loops(loop):
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        assert loop.call(threading.get_ident) == thread.ident
        with pytest.raises(ZeroDivisionError):
            loop.call(lambda: 1 // 0)
    finally:
        loop.stop()
        thread.join()
    assert loop.call(threading.get_ident) == threading.get_ident()


def test_a_stop_before_the_start_is_not_lost(loop):
    loop.stop()
    loop.run()


def test_a_call_from_inside_is_run_at_once(loop):
    seen = []

    def inside():
        seen.append(loop.call(lambda: 7))
        loop.stop()

    loop.call_soon(inside)
    loop.run()
    assert seen == [7]
