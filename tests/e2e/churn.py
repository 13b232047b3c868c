"""A container runtime that adds and deletes all the time, whatever becomes of the daemon, and knows what it was told."""

from __future__ import annotations

import random
import threading

from tests.engine.cni.runtime import Runtime

TRY_AGAIN = 11
PAUSE = 0.02  # seconds between two calls


class Churn:
    """Calls the plugin of `node` for `containers` while the block runs; a container is (name, host of the lab)."""

    def __init__(self, node, containers, *, seed=0):
        directory = node.daemon.directory
        self.runtime = Runtime(directory / "cni.sock", directory / "state" / "cni")
        self.containers = containers
        self.added = self.deleted = self.postponed = 0
        self.wrong = []  # answers that no runtime should get
        self._chance = random.Random(seed)
        self._attached = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def delete_all(self):
        for name, host in self.containers:
            self._delete(name, host)

    def _work(self):
        while not self._stop.wait(PAUSE):
            name, host = self._chance.choice(self.containers)
            (self._delete if name in self._attached else self._add)(name, host)

    def _add(self, name, host):
        answer = self.runtime.add(name, host.namespace.path)
        if answer.status == 0:
            self._attached.add(name)
            self.added += 1
        elif answer.json.get("code", TRY_AGAIN) == TRY_AGAIN:  # none: the daemon died before the plugin could say thanks
            self.postponed += 1
            if self._chance.random() < 0.5:  # as the specification has it; and without it, too, the next one succeeds
                self._delete(name, host)
        else:
            self.wrong.append(answer)

    def _delete(self, name, host):
        answer = self.runtime.delete(name, host.namespace.path)
        self._attached.discard(name)
        if answer.status:
            self.wrong.append(answer)
        else:
            self.deleted += 1
