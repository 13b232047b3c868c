"""The `towpath` command: a group whose commands are imported when they are used.

Owns: the list of commands, the way errors are told, and the exit codes:
0 done, 1 failed, 2 usage or configuration, 3 the kernel refused, 4 no daemon.
Never: imports a command, or anything heavy, to show help or the version.
Invariant: a user's mistake ends in one sentence with place and remedy, never
in a traceback.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click
from click.exceptions import Abort, ClickException, UsageError

from engine.cli.lean import LeanGroup
from engine.errors import TowpathError

INTERRUPTED = 130  # as shells say it: 128 + SIGINT

# Command -> what it does. Each is the `command` of the module of its name in this package.
COMMANDS: dict[str, str] = {
    "run": "Run the node daemon.",
    "demo": "Show three nodes and six pods on this machine.",
    "status": "Show how the daemon is.",
    "routes": "Show the routes, or where one address goes.",
    "peers": "Show the other nodes.",
    "pods": "Show the pods of this node.",
    "cni": "Put the CNI plugin in place for container runtimes.",
    "ipam": "Show, check and release the addresses of pods.",
    "counters": "Show packets and bytes by port, and events.",
    "drops": "Show what was dropped, and why.",
    "upgrade": "Put the installed version in the daemon's place, without losing a packet.",
    "reload": "Have the daemon read its configuration again.",
    "config": "Check, show and describe the configuration.",
    "policy": "Check and apply policies, say who decides, count what rules did.",
    "flows": "Show the connections that are known, and what decided about them.",
    "checksystem": "Say what this system grants, and what it means.",
    "bench": "Measure this machine.",
    "completion": "Print the completion script of a shell.",
    "version": "Show the versions of command and daemon.",
}


class LazyGroup(LeanGroup):
    """Knows its commands by name and one line; the one that runs is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Enough of the command for lists of commands."""
        words = COMMANDS.get(cmd_name)
        return None if words is None else click.Command(cmd_name, help=words, short_help=words)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *rest = args
        if name not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, 1)
            ctx.fail(f"there is no command {name!r}{f', did you mean {near[0]!r}?' if near else ''}")
        command = import_module(f"engine.cli.{name}").command
        assert isinstance(command, click.Command)
        command.name = name
        return name, command, rest


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from engine.version import version

        click.echo(f"towpath {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def towpath() -> None:
    """Forward the packets of this node's pods to the pods of other nodes."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result = towpath.main(arguments or ["--help"], prog_name="towpath", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "towpath"
        sentence = " ".join(error.format_message().split())  # click breaks long lists of choices
        sys.exit(_tell(f"{sentence} (see {command} --help)", error.exit_code))
    except ClickException as error:
        sys.exit(_tell(error.format_message(), error.exit_code))
    except TowpathError as error:
        sys.exit(_tell(str(error), error.exit_code))
    except (Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if not arguments:  # the help was shown, and nothing done
        sys.exit(UsageError.exit_code)
    sys.exit(result if isinstance(result, int) else 0)


def _tell(message: str, code: int) -> int:
    click.echo(f"{click.style('towpath:', fg='red', bold=True)} {message}", err=True, color=_colour_on_stderr())
    return code


def _colour_on_stderr() -> bool:
    """A terminal, and nobody asked for plain text (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
