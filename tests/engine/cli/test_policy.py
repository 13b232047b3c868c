"""`towpath policy`: what is printed, and the exit codes."""

import json

import pytest
from click.testing import CliRunner

from engine.cli.policy import command
from engine.errors import ConfigError

GOOD = """
namespaces: {x: {}, y: {}}
pods:
- {ns: x, name: a, ip: 10.0.0.1}
- {ns: y, name: b, ip: 10.0.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec: {ingress: [{ports: [{port: 80}]}]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "policies.yaml"
    path.write_text(GOOD)
    return path


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_check_good(file):
    result = run("check", file)
    assert (result.exit_code, result.stdout) == (0, "1 policy: 0 mistakes, 0 warnings\n")


def test_check_mistake(file):
    file.write_text(GOOD.replace("port: 80", "port: 0"))
    result = run("check", file)
    assert result.exit_code == 2
    assert (
        result.stdout.splitlines()[0]
        == f"error invalid: {file}#2: spec.ingress[0].ports[0].port: 0 is out of range (1 to 65535)"
    )
    assert result.stdout.splitlines()[-1] == "1 policy: 1 mistake, 1 warning"


def test_check_warning_is_an_error_when_strict(file):
    file.write_text(GOOD.replace("namespace: x", "namespace: z"))
    assert run("check", file).exit_code == 0
    assert run("check", "--strict", file).exit_code == 1


def test_check_json(file):
    file.write_text(GOOD.replace("namespace: x", "namespace: z"))
    answer = json.loads(run("check", "-o", "json", file).stdout)
    assert (answer["valid"], answer["policies"], answer["findings"][0]["code"]) == (True, 1, "selects-nothing")


def test_explain(file):
    result = run("explain", "y/b", "x/a", "tcp/80", "-f", file)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "y/b -> x/a tcp/80: allowed",
        "  egress allowed by default",
        "  ingress allowed by rule: tier default NetworkPolicy x/p rule 0",
    ]


def test_explain_denied(file):
    result = run("explain", "y/b", "x/a", "81", "-f", file)
    assert result.exit_code == 1
    assert "ingress denied by end-of-tier: tier default" in result.stdout


def test_explain_json(file):
    answer = json.loads(run("explain", "y/b", "x/a", "icmp", "-f", file, "-o", "json").stdout)
    assert (answer["allowed"], answer["egress"]["why"], answer["ingress"]["why"]) == (False, "default", "end-of-tier")


def test_explain_default_deny(file):
    assert run("explain", "x/a", "y/b", "-f", file, "--default-deny").exit_code == 1


@pytest.mark.parametrize(
    "arguments", [("y/bb", "x/a"), ("y/b", "x/a", "tcp"), ("y/b", "x/a", "tcp/70000"), ("y/b", "::1")]
)
def test_explain_mistakes(file, arguments):
    result = run("explain", *arguments, "-f", file)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.remedy
