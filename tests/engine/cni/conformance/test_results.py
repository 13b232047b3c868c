"""What each verb answers in each version."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.engine.cni.runtime import SHIM, VERSIONS
from tests.engine.namespaces import path_of

pytestmark = [pytest.mark.root, pytest.mark.needs("ip")]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_life_in_each_version(runtime, sandbox, version):
    runtime.version = version
    added = runtime.add("c1", sandbox)
    result = added.json
    assert (added.status, result["cniVersion"]) == (0, version)
    for entry, family in zip(result["ips"], "46", strict=True):
        assert entry["interface"] == 0
        assert entry["address"].endswith({"4": "/32", "6": "/128"}[family])
        assert entry.get("version") == (None if version >= "1.0.0" else family)
    assert ("mtu" in result["interfaces"][0]) == (version >= "1.1.0")
    assert result["interfaces"][0]["sandbox"] == path_of(sandbox)
    checked = runtime.check("c1", sandbox, result)
    assert checked.code == (0 if version >= "0.4.0" else 1)
    assert runtime.collect([("c1", "eth0")]).code == (0 if version >= "1.1.0" else 1)
    assert runtime.call("STATUS").code == (0 if version >= "1.1.0" else 1)
    assert runtime.delete("c1", sandbox, prevResult=result).status == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_the_daemons_version_is_the_shims(runtime, version):
    said = runtime.call("VERSION", text=json.dumps({"cniVersion": version}).encode())
    assert said.json == {"cniVersion": version, "supportedVersions": VERSIONS}


def test_status_tells_that_nothing_is_left(runtime):
    assert runtime.call("STATUS").status == 0
    assert runtime.call("STATUS", ipam={"pools": ["10.99.0.0/24"]}).code == 50


def test_the_shim_stands_where_the_tests_look():
    assert SHIM.exists()
    assert shutil.which(str(SHIM))
