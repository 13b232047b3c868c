"""The command line: light to start, exact in its exit codes, one sentence for a mistake."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from engine.cli import COMMANDS
from engine.cli.ask import DEFAULT_SOCKET, print_table
from engine.config.schema import ControlSection
from engine.words import counted

ROOT = Path(__file__).parents[3]
MAIN = "from engine.cli import main; main()"
HEAVY = {"numpy", "pyroute2", "asyncio", "structlog", "msgspec", "fastpath", "scapy", "engine.node", "engine.lab"}


def towpath(*arguments, **environment):
    env = {key: value for key, value in os.environ.items() if not key.startswith("TOWPATH_")}
    return subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=ROOT,
        env=env | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def imported(*arguments):
    code = f"import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {MAIN}"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["status", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments):
    code, modules = imported(*arguments)
    assert code == 0
    assert "engine.cli" in modules, "the list of modules was read"
    assert not HEAVY & modules


def test_a_daemon_that_starts_loads_nothing_that_can_wait():
    """Pods without their network wait for all of it."""
    code, modules = imported("run", "--config", "/nowhere/towpath.toml")
    assert code == 2
    assert "engine.node" in modules
    late = {"rich", "rich_click", "structlog", "asyncio", "pyroute2", "yaml", "numpy", "importlib.metadata"}
    assert not (late | {"engine.enforcement", "engine.desired.policy.compiler"}) & modules


def test_the_help_of_lean_commands_is_dressed_as_that_of_others():
    for arguments in (["--help"], ["run", "--help"], ["status", "--help"]):
        assert "╭─ Options ─" in towpath(*arguments).stdout
    listed = [line.split()[1] for line in towpath("--help").stdout.partition("Commands")[2].splitlines()[1:] if line[2:3].isalpha()]
    assert listed == list(COMMANDS)
    assert towpath().stdout == towpath("--help").stdout
    assert (towpath().returncode, towpath("--help").returncode) == (2, 0)


def test_asking_a_daemon_imports_no_data_plane_and_no_netlink():
    code, modules = imported("status", "--socket", "/nowhere/control.sock")
    assert code == 4
    assert "engine.control.client" in modules
    assert not (HEAVY - {"msgspec"}) & modules


def test_every_command_is_where_the_list_says_and_is_a_command():
    for name, words in COMMANDS.items():
        command = importlib.import_module(f"engine.cli.{name}").command
        assert isinstance(command, click.Command)
        assert command.help, f"{name} has no help"
        assert words.endswith("."), name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = towpath(name, "--help")
    assert done.returncode == 0
    assert f"towpath {name}" in done.stdout


def test_a_table_without_rows_says_so(capsys):
    print_table(("pod", "mtu#"), (), nothing="this node has no pods")
    print_table(("pod", "mtu#"), (("web", 1450),), nothing="this node has no pods")
    assert capsys.readouterr().out == "this node has no pods\npod   mtu\nweb  1450\n"


@pytest.mark.parametrize(("number", "noun", "text"), [(1, "pod", "1 pod"), (0, "pod", "0 pods"), (2, "policy", "2 policies")])
def test_numbers_of_things(number, noun, text):
    assert counted(number, noun) == text


def test_every_question_offers_both_forms():
    for name in ("status", "routes", "peers", "pods", "counters", "drops", "reload", "version"):
        command = importlib.import_module(f"engine.cli.{name}").command
        output = next(p for p in command.params if p.name == "output")
        assert list(output.type.choices) == ["table", "json"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["status", "--socket", "/nowhere/s"], 4, "/nowhere/s: no daemon answers (start one with 'towpath run'"),
        (["statsu"], 2, "no command 'statsu', did you mean 'status'?"),
        (["status", "-o", "xml"], 2, "'xml'"),
        (["status", "--nonsense"], 2, "--nonsense"),
        (["routes", "get"], 2, "ADDRESS"),
        (["run", "-c", "/nowhere/towpath.toml"], 2, "/nowhere/towpath.toml: there is no such file"),
        (["run", "--set", "x"], 2, "has no value"),
        (["completion", "tcsh"], 2, "'tcsh'"),
        (["completion"], 2, "Missing argument"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(arguments, code, words):
    done = towpath(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("towpath: ")
    assert "\x1b" not in done.stderr


def test_a_pipe_and_no_color_get_plain_text():
    assert "\x1b" not in towpath("--help").stdout
    assert "\x1b" not in towpath("--help", NO_COLOR="1", FORCE_COLOR="").stdout


def test_a_reader_that_closes_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -c '{MAIN}' --help | head -c 1", shell=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_version_works_without_a_daemon():
    done = towpath("version", "-o", "json", "--socket", "/nowhere/s")
    assert done.returncode == 0
    assert json.loads(done.stdout)["daemon"] is None
    assert towpath("--version").stdout.startswith("towpath ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    done = towpath("completion", shell)
    assert done.returncode == 0
    assert "_TOWPATH_COMPLETE" in done.stdout


def test_the_shell_is_given_commands_and_their_options():
    done = towpath(COMP_WORDS="towpath st", COMP_CWORD="1", _TOWPATH_COMPLETE="bash_complete")
    assert "plain,status" in done.stdout
    done = towpath(COMP_WORDS="towpath status --so", COMP_CWORD="2", _TOWPATH_COMPLETE="bash_complete")
    assert "plain,--socket" in done.stdout


def test_the_default_socket_is_that_of_the_configuration():
    assert ControlSection().socket == DEFAULT_SOCKET
