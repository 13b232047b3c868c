"""Health over HTTP, under probes and under nonsense."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request

import pytest

from engine.control.health import HealthServer
from engine.errors import KernelError
from engine.loop import Loop
from engine.views import Health


@pytest.fixture(params=["127.0.0.1", "::1"])
def served(request):
    loop = Loop()
    health = Health(live=True, ready=False)
    server = HealthServer(loop, request.param, 0, lambda: health)
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield server, health
    loop.stop()
    thread.join()
    server.close()
    loop.close()


def get(server, path):
    host, port = server.address
    try:
        with urllib.request.urlopen(
            f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"
        ) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_live_and_ready_are_two_things(served):
    server, health = served
    assert get(server, "/healthz") == 200
    assert get(server, "/readyz") == 503
    health.ready = True
    assert get(server, "/readyz") == 200
    assert get(server, "/") == 404


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"HEAD /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz SMTP/1\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"x" * 5000, b"400"),
    ],
)
def test_other_requests(served, request_bytes, code):
    with socket.create_connection(served[0].address) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(4096).split(b" ")[1] == code


def test_a_request_in_pieces(served):
    with socket.create_connection(served[0].address) as connection:
        for byte in b"GET /healthz HTTP/1.1\r\n\r\n":
            connection.send(bytes([byte]))
        assert b" 200 OK\r\n" in connection.recv(4096)


def test_many_silent_clients_do_not_keep_others_out_for_good(served):
    silent = [socket.create_connection(served[0].address) for _ in range(40)]
    for connection in silent:
        connection.close()
    assert get(served[0], "/healthz") == 200


def test_an_address_that_cannot_be_had_is_said():
    loop = Loop()
    with pytest.raises(KernelError, match=r"192.0.2.250:80: cannot listen.*health.listen"):
        HealthServer(loop, "192.0.2.250", 80, lambda: Health(live=True, ready=True))
    loop.close()
