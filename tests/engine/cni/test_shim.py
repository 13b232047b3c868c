"""The shim by itself: what it says without a daemon, and what it does with hostile input."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest

from engine.cni import spool
from engine.cni.call import ACKNOWLEDGED, MESSAGE_LIMIT, is_later, pack, unpack
from engine.cni.task import Outcome, Tasks
from engine.errors import KernelError
from tests.engine.cni.runtime import SHIM, Runtime, finished

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture
def runtime(tmp_path):
    """A node whose daemon is away."""
    folder = tmp_path / "spool"
    spool.open_spool(folder)
    return Runtime(tmp_path / "cni.sock", folder)


def test_the_shim_is_static_and_small():
    done = subprocess.run(["file", "-b", SHIM], capture_output=True, text=True) if shutil.which("file") else None
    assert SHIM.stat().st_size < 2 << 20
    if done is not None and "dynamically" in done.stdout:
        pytest.skip("this C library cannot be linked statically")


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_are_told_without_a_daemon(runtime, version):
    said = runtime.call("VERSION", text=json.dumps({"cniVersion": version}).encode())
    assert (said.status, said.json) == (0, {"cniVersion": version, "supportedVersions": VERSIONS})


@pytest.mark.parametrize(
    ("verb", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50), ("NONSENSE", 11)]
)
def test_what_needs_the_daemon_fails_with_its_code(runtime, verb, code):
    said = runtime.call(verb, "c1", "/run/netns/none", "eth0", text=b'{"cniVersion":"1.0.0","name":"n","type":"t",' + paths(runtime))
    assert (said.status, said.code, said.json["cniVersion"]) == (1, code, "1.0.0")
    assert said.json["msg"]
    assert spool.pending(runtime.spool) == []


def paths(runtime):
    return f'"socket":"{runtime.socket}","spool":"{runtime.spool}"}}'.encode()


def test_a_deletion_is_remembered_as_it_came(runtime):
    said = runtime.delete("c1", "/run/netns/gone", arguments="A=1")
    assert (said.status, said.output) == (0, "")
    runtime.delete("c1", "/run/netns/gone", arguments="A=1")
    (file,) = spool.pending(runtime.spool)
    assert file.name == "pods@c1@eth0.del"
    assert file.stat().st_mode & 0o777 == 0o600
    call = spool.read(file)
    assert (call.verb, call.container, call.namespace, call.interface) == ("DEL", "c1", "/run/netns/gone", "eth0")
    assert call.arguments == "A=1"
    assert json.loads(call.input)["name"] == "pods"


def test_a_deletion_remembered_says_when_it_was_asked_for(runtime):
    moments = []
    for _ in range(2):
        assert runtime.delete("c1").status == 0
        moments.append(spool.read(runtime.spool / "pods@c1@eth0.del").asked)
    assert is_later(moments[1], moments[0])
    assert not is_later(moments[0], moments[1])
    assert not is_later(moments[0], moments[0])


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("other", "other@c1@eth0.del"),
        ("n" * 253, "n" * 100 + "@c1@eth0.del"),
        ("n" * 254, "@c1@eth0.del"),
        ("../x", "@c1@eth0.del"),
        ("a@b", "@c1@eth0.del"),
        ("", "@c1@eth0.del"),
        (7, "@c1@eth0.del"),
    ],
)
def test_a_deletion_from_one_network_does_not_replace_that_from_another(runtime, network, name):
    assert runtime.delete("c1").status == 0
    assert runtime.delete("c1", name=network).status == 0
    assert {path.name for path in spool.pending(runtime.spool)} == {"pods@c1@eth0.del", name}
    assert json.loads(spool.read(runtime.spool / name).input)["name"] == network


def test_the_longest_names_fit(runtime):
    assert runtime.delete("c" * 128, interface="i" * 15, name="n" * 253).status == 0
    (file,) = spool.pending(runtime.spool)
    assert file.name == spool.name_of("n" * 253, "c" * 128, "i" * 15)
    assert spool.read(file).container == "c" * 128


@pytest.mark.root
def test_a_folder_of_somebody_else_is_no_spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(0o777)
    assert spool.open_spool(folder).stat().st_mode & 0o777 == 0o700
    os.chown(folder, 65534, -1)
    with pytest.raises(KernelError, match="no folder of ours"):
        spool.open_spool(folder)
    os.chown(folder, 0, -1)  # or nobody in a user namespace could remove it
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(KernelError, match="no folder of ours"):
        spool.open_spool(link)
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match="File exists"):
        spool.open_spool(tmp_path / "file")


BOOTS = [f"{number:08x}-0000-0000-0000-000000000000" for number in range(2)]


@pytest.mark.parametrize(
    ("asked", "other", "later"),
    [
        (f"{BOOTS[0]} 10", f"{BOOTS[0]} 9", True),
        (f"{BOOTS[0]} 9", f"{BOOTS[0]} 10", False),
        (f"{BOOTS[1]} 9", f"{BOOTS[0]} 10", True),
        ("", f"{BOOTS[0]} 10", False),
        (f"{BOOTS[0]} 9", "", False),
        ("nonsense", f"{BOOTS[0]} 10", False),
    ],
)
def test_what_was_asked_for_later(asked, other, later):
    assert is_later(asked, other) is later


@pytest.mark.parametrize("error", [None, OSError("the device is busy")])
def test_a_deletion_is_forgotten_when_it_is_done_and_not_before(runtime, error):
    runtime.delete("c1", "/run/netns/gone")
    (file,) = spool.pending(runtime.spool)
    begun, waits, ended = [], Outcome(), []

    async def delete(call):
        begun.append(call)
        await waits

    async def carry_out():
        ended.append(await spool.carry_out(file, delete))

    Tasks().begin(carry_out())
    assert [call.container for call in begun] == ["c1"]
    assert spool.pending(runtime.spool) == [file]
    assert not ended
    waits.fail(error) if error else waits.settle(None)
    assert ended == [error]
    assert spool.pending(runtime.spool) == ([] if error is None else [file])


@pytest.mark.parametrize(
    ("container", "interface"),
    [("../../etc/x", "eth0"), ("a/b", "eth0"), ("", "eth0"), ("c" * 129, "eth0"), (".hidden", "eth0"), ("c1", "../x"), ("c1", "")],
)
def test_a_deletion_under_an_evil_name_is_refused(runtime, container, interface):
    said = runtime.delete(container, interface=interface)
    assert (said.status, said.code) == (1, 4)
    assert list(runtime.spool.iterdir()) == []


def test_the_spool_is_bounded_and_belongs_to_us(runtime, tmp_path):
    for number in range(spool.FILES_LIMIT):
        (runtime.spool / f"x{number}").touch()
    assert runtime.delete("c1").code == 11
    shutil.rmtree(runtime.spool)
    assert runtime.delete("c1").code == 11, "no folder: nothing was remembered, so it may not be called done"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    runtime.spool.symlink_to(elsewhere)
    assert runtime.delete("c1").code == 11
    assert list(elsewhere.iterdir()) == []
    runtime.spool.unlink()
    runtime.spool.mkdir(mode=0o777)
    runtime.spool.chmod(0o777)
    assert runtime.delete("c1").code == 11, "others could write there"


def test_a_link_in_the_spool_is_not_followed(runtime, tmp_path):
    target = tmp_path / "target"
    target.write_text("kept")
    (runtime.spool / "pods@c1@eth0.del").symlink_to(target)
    assert runtime.delete("c1").status == 0
    assert target.read_text() == "kept"
    assert not (runtime.spool / "pods@c1@eth0.del").is_symlink()


def test_no_command_and_too_much_input(runtime):
    said = finished(runtime.start_raw({}, b"{}"))
    assert said.code == 4
    assert "CNI_COMMAND" in said.json["msg"]
    said = runtime.call("ADD", "c1", "/run/netns/x", "eth0", text=b" " * (MESSAGE_LIMIT + 1))
    assert said.code == 5
    said = finished(runtime.start_raw({"CNI_COMMAND": "ADD", "CNI_ARGS": "A" * (MESSAGE_LIMIT - 20_000) + "=1"}, b" " * 30_000))
    assert said.code == 5
    assert runtime.call("VERSION", text=b"nonsense").code == 6


# -- with something that plays the daemon -------------------------------------------
class Daemon:
    """Answers one call with `reply`; `heard` are the messages that came."""

    def __init__(self, path, reply):
        self.heard = []
        self._reply = reply
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(10)
            self.heard.append(connection.recv(MESSAGE_LIMIT + 1))
            if self._reply is not None:
                connection.send(self._reply)
                self.heard.append(connection.recv(100))

    def close(self):
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def play(runtime):
    opened = []

    def play(reply):
        opened.append(Daemon(runtime.socket, reply))
        return opened[-1]

    yield play
    for daemon in opened:
        daemon.close()


def test_a_call_is_handed_over_whole_and_an_addition_acknowledged(runtime, play):
    daemon = play(b'0\n{"ok":1}')
    text = json.dumps(runtime.configuration(dns={"search": ["x" * 100_000]})).encode()
    said = runtime.call("ADD", "c1", "/run/netns/x", "eth0", text=text, arguments="K=V")
    assert (said.status, said.json) == (0, {"ok": 1})
    daemon.close()
    call = unpack(daemon.heard[0])
    assert call.input == text
    assert call == unpack(pack(call.environment(), text, call.asked))
    assert abs(float(call.asked.split()[1]) / 1e9 - time.clock_gettime(time.CLOCK_BOOTTIME)) < 30
    assert daemon.heard[1] == ACKNOWLEDGED


def test_an_answer_that_cannot_be_printed_is_not_acknowledged(runtime, play):
    daemon = play(b'0\n{"ok":1}')
    text = json.dumps(runtime.configuration()).encode()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [SHIM], input=text, stdout=full, env={"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
        )
    daemon.close()
    assert done.returncode != 0
    assert daemon.heard[1] == b""


def test_a_refusal_is_passed_on(runtime, play):
    play(b'1\n{"code":7}')
    assert runtime.add("c1", "/run/netns/x").code == 7


@pytest.mark.parametrize("reply", [b"", b"0", b"nonsense", b"x\n{}"])
def test_an_answer_that_is_none_counts_as_no_daemon(runtime, play, reply):
    play(reply or None)
    said = runtime.add("c1", "/run/netns/x")
    assert (said.status, said.code) == (1, 11)


def test_a_dead_socket_counts_as_no_daemon(runtime):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(runtime.socket))
    assert runtime.add("c1", "/run/netns/x").code == 11
    os.unlink(runtime.socket)


def test_a_call_that_nobody_takes_ends_soon_and_one_that_is_taken_does_not(runtime):
    """As at a socket that a service manager holds, for which no daemon can start."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as held:
        held.bind(str(runtime.socket))
        held.listen()
        held.settimeout(10)
        served = runtime.start("ADD", "c0", "/run/netns/x", "eth0")
        connection, _ = held.accept()
        with connection:
            assert b"CNI_CONTAINERID=c0" in connection.recv(MESSAGE_LIMIT)
            begun = time.monotonic()
            untaken = [runtime.start(verb, "c1", "/run/netns/x", "eth0") for verb in ("ADD", "STATUS", "DEL")]
            said = [finished(process, 30) for process in untaken]
            waited = time.monotonic() - begun
            connection.send(b'0\n{"ok":1}')
            assert finished(served).json == {"ok": 1}, "it waited longer than the others"
    assert [(answer.status, answer.code) for answer in said] == [(1, 11), (1, 50), (0, 0)]
    assert [path.name for path in spool.pending(runtime.spool)] == ["pods@c1@eth0.del"]
    assert waited > 5, "a daemon that starts is waited for"
