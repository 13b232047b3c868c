"""One daemon for the tests of a file, and after each of them the proof that it left nothing there."""

from __future__ import annotations

import pytest

from engine.views import Ipam, IpamCheck
from tests.engine.cni.runtime import runtime_of
from tests.engine.namespaces import device
from tests.engine.nodes import two_nodes


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("conformance"), pods=4) as nodes:
        nodes[0].write(pods=0, peers=False)
        yield nodes[0].start()


@pytest.fixture(autouse=True)
def nothing_is_left(node):
    """Whatever a test did, deletions of all it may have added leave nothing."""
    yield
    runtime = runtime_of(node)
    for attachment in node.ask("ipam", Ipam).addresses:
        network, container, interface = attachment.handle.split("/")
        assert runtime.delete(container, interface=interface, name=network).status == 0
    assert node.ask("ipam", Ipam).addresses == []
    assert node.ask("ipam_check", IpamCheck).leaks == []
    assert node.pods() == {}
    for name in node.pod_namespaces:
        assert device(name) is None
    assert list(runtime.spool.iterdir()) == []


@pytest.fixture
def runtime(node):
    return runtime_of(node)


@pytest.fixture
def sandbox(node):
    return node.pod_namespaces[0]
