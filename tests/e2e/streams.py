"""A TCP connection of numbered blocks that notices what it loses, and what must survive of a pod."""

from __future__ import annotations

import socket
import threading

from engine.lab import wait_until

PATIENCE = 130.0  # seconds for TCP to notice that the path is back; its timer doubles with every try that falls into
# a gap, up to 120 s (TCP_RTO_MAX), and where a daemon is killed every second most tries fall into one


class Conversation:
    """A TCP connection that carries numbered blocks all the time, each compared."""

    def __init__(self, source, target, address):
        family = family_of(address)
        self._listener = target.socket(family, socket.SOCK_STREAM)
        self._listener.bind((address, 0))
        self._listener.listen()
        self._sender = source.socket(family, socket.SOCK_STREAM)
        self._sender.connect(self._listener.getsockname())
        self._receiver, _ = self._listener.accept()
        self.received = 0
        self.wrong = 0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self):
        number = 0
        try:
            while True:
                self._sender.sendall(number.to_bytes(8, "big") * 512)
                number += 1
        except OSError:
            return

    def _receive(self):
        expected, rest = 0, b""
        while data := self._next():
            rest += data
            while len(rest) >= 4096:
                block, rest = rest[:4096], rest[4096:]
                self.wrong += block != expected.to_bytes(8, "big") * 512
                expected += 1
            self.received += len(data)

    def _next(self):
        try:
            return self._receiver.recv(1 << 16)
        except OSError:  # `end` closed it; a connection that broke by itself is noticed by `goes_on`
            return b""

    def goes_on(self):
        """Wait until as much again has arrived as in a moment of full speed."""
        goal = self.received + (1 << 20)
        wait_until(lambda: self.received >= goal, "the connection to go on", seconds=PATIENCE)
        assert self.wrong == 0

    def end(self):
        for sock in (self._sender, self._receiver, self._listener):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        for thread in self._threads:
            thread.join(5)
        assert self.wrong == 0


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def identity(pod):
    """What must survive: the very device, and what it is called by."""
    device = pod.host.interface("eth0")
    return device.index, device.mtu, sorted(device.addresses())
