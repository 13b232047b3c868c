"""A node in the test's own process, whose clock, patience and luck a test can turn."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import replace

from engine import Node, parse
from engine.cni import spool
from engine.cni.call import checked, pack
from engine.cni.verbs import Verbs
from tests.engine.namespaces import path_of, wait_for


def _underlay():
    """An address of this machine that is nobody's but this process's: other test runs open the same port."""
    number = os.getpid()  # below 2^22
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class Home:
    """A node and what serves a runtime's calls, in a folder; calls come without a socket."""

    def __init__(self, folder, prefix="10.1.0.0/24"):
        text = (
            f'[node]\nname = "a"\nunderlay = ["{_underlay()}/8"]\nprefixes = ["{prefix}"]\n[host]\nenabled = false\n'
            f'[state]\ndirectory = "{folder / "state"}"\n[control]\nsocket = "{folder / "control.sock"}"\n'
        )
        self.folder = folder
        self.node = Node(parse(text, file="x"))
        self.unacknowledged = []

    def __enter__(self):
        self.node.start()
        self.spool = spool.open_spool(self.folder / "spool")
        self.verbs = Verbs(self.node, self.spool)
        return self

    def __exit__(self, *_):
        for attachment in self.node.residents.attachments:
            self.node.detach([attachment.key])
        self.verbs.close()
        self.node.stop()
        self.node.loop.close()

    def begin(self, verb, container="", namespace="", interface="eth0", *, acknowledge=True, asked="", path="", **keys):
        """Where the answer appears: None for success without output. `acknowledge` None: an ADD is left `unacknowledged`."""
        said = []

        def answer(reply, ended):
            said.append(json.loads(reply.body) if reply.body else None)
            if ended is not None and acknowledge is None:
                self.unacknowledged.append(ended)
            elif ended is not None:
                ended(acknowledge)

        variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": interface}
        if namespace:
            variables["CNI_NETNS"] = path_of(namespace)
        if path:
            variables["CNI_PATH"] = str(path)
        text = json.dumps({"cniVersion": "1.1.0", "name": "pods", **keys}).encode()
        self.verbs.serve(replace(checked(variables, text), asked=asked), answer)
        return said

    def remember(self, container, asked, text=None, *, network="pods", name=""):
        """As the shim leaves a deletion when nobody answers: its file."""
        variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0"}
        if text is None:
            text = json.dumps({"cniVersion": "1.1.0", "name": network}).encode()
        file = self.spool / (name or spool.name_of(network, container, "eth0"))
        file.write_bytes(pack(variables, text, asked))
        return file

    def turn_until(self, condition):
        return wait_for(lambda: self.node.loop.turn() or condition())

    def settle(self):
        """Let everything that is under way come to its end."""
        self.turn_until(lambda: not self.verbs.busy)

    def ask(self, *call, **keys):
        said = self.begin(*call, **keys)
        self.settle()
        (answer,) = said
        return answer

    def add(self, container, namespace, **keys):
        return self.ask("ADD", container, namespace, **keys)

    def delete(self, container, **keys):
        return self.ask("DEL", container, **keys)

    def given(self):
        """The handles of all addresses in use."""
        return [given.taken.handle for given in self.node.addresses.given()]


@contextmanager
def ending(folder, way):
    """A home that is `killed`, which undoes nothing, or `stopped`; whoever comes next finds what it wrote."""
    home = Home(folder).__enter__()
    try:
        yield home
        home.settle()
    finally:
        home.verbs.close()
        (home.node.leave if way == "killed" else home.node.stop)()
        home.node.loop.close()


@contextmanager
def failing(monkeypatch, owner, name, error=None, times=1):
    """The first calls of `owner.name` raise; how many did is what the block gets."""
    before = getattr(owner, name)
    failed = []

    def fail(*arguments, **keys):
        if len(failed) < times:
            failed.append(arguments)
            raise error or RuntimeError("a fault of ours")
        return before(*arguments, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        yield failed
    assert failed, f"{name} was never called"
