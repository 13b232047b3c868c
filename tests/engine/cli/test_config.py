"""`towpath config`: what is printed, where, and the exit codes."""

import json

import pytest
from click.testing import CliRunner

from engine.cli.config import command

GOOD = '[node]\nname = "node-a"\nprefixes = ["10.244.1.0/24"]\n[network]\nencapsulation = "ipip"\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "towpath.toml"
    path.write_text(GOOD)
    return path


def run(*arguments, **environment):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], env=environment)


def test_check_good(file):
    result = run("check", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file} is valid: node node-a, ipip, 0 peers, 0 pods, 0 routes\n"


def test_check_bad_says_every_mistake_on_stderr(file):
    file.write_text(GOOD.replace("10.244.1.0", "10.244.1.1").replace("ipip", "ipsec"))
    result = run("check", file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f'{file}:3: node.prefixes[0]: "10.244.1.1/24" has host bits set (write "10.244.1.0/24")',
        f'{file}:5: network.encapsulation: "ipsec" is not one of "vxlan", "udp", "ipip", "none" (choose one of these)',
    ]


def test_check_missing_file(tmp_path):
    result = run("check", tmp_path / "none")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/none: there is no such file (create it, or name another)\n"


def test_check_as_json(file):
    result = run("check", file, "-o", "json")
    assert json.loads(result.stdout) == {"file": str(file), "valid": True, "mistakes": []}
    file.write_text(GOOD.replace("name", "nam"))
    result = run("check", file, "-o", "json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "file": str(file),
        "valid": False,
        "mistakes": [
            {
                "where": f"{file}:2: node.nam",
                "line": 2,
                "key": "node.nam",
                "what": "is not a known key",
                "remedy": "did you mean name?",
            }
        ],
    }


def test_file_from_the_environment(file):
    assert run("check", TOWPATH_CONFIG=str(file)).exit_code == 0


def test_overrides(file):
    result = run("check", file, "--set", "network.mtu=12")
    assert result.exit_code == 2
    assert "flag network.mtu: network.mtu: 12 is not a whole number" in result.stderr
    result = run("check", file, "--set", "network.mtu")
    assert result.stderr == 'flag --set: "network.mtu" has no value (write --set network.mtu=1400)\n'
    assert "TOWPATH_LOG_LEVEL" in run("check", file, TOWPATH_LOG_LEVEL="loud").stderr


def test_show(file):
    lines = [line.rstrip() for line in run("show", file, "--set", "workers.cpus=3,4").stdout.splitlines()]
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert rows["key"] == "value set by"
    assert rows["node.prefixes"] == f"10.244.1.0/24 {file}:3"
    assert rows["node.gateway4"] == "10.244.1.1 node.prefixes"
    assert rows["node.gateway6"] == "- default"
    assert rows["host.enabled"] == "true default"
    assert rows["workers.cpus"] == "3, 4 flag workers.cpus"
    assert rows["node.underlay"] == "- default"
    assert rows["network.port"] == "- profile towpath"


def test_show_as_json(file):
    rows = json.loads(run("show", file, "-o", "json").stdout)
    assert {"key": "network.encapsulation", "value": "ipip", "origin": f"{file}:5"} in rows
    assert all(set(row) == {"key", "value", "origin"} for row in rows)


def test_show_bad(file):
    file.write_text("x")
    result = run("show", file)
    assert result.exit_code == 2
    assert "is not valid TOML" in result.stderr


def test_show_wraps_nothing_in_a_pipe(file):
    file.write_text(GOOD + '[control]\nsocket = "/' + "a" * 100 + '"\n')
    assert "a" * 100 in run("show", file).stdout


def test_schema():
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"]["node"]["required"] == ["prefixes"]
