"""`towpath run`: the node daemon in the foreground."""

from __future__ import annotations

import click

from engine.cli.lean import LeanCommand

DEFAULT_FILE = "/etc/towpath/towpath.toml"


@click.command(cls=LeanCommand)
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(),
    default=DEFAULT_FILE,
    show_default=True,
    envvar="TOWPATH_CONFIG",
    help="The configuration file; it is watched, and read again when it changes.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key, like network.mtu=1400.")
@click.option(
    "--keep-going",
    is_flag=True,
    help="Start although something cannot be had (a pod's namespace, a port); it is tried again and again.",
)
@click.option(
    "--takeover",
    is_flag=True,
    help="Take the place of the daemon that runs, without losing a packet; start as usual when there is none.",
)
def command(file: str, settings: tuple[str, ...], keep_going: bool, takeover: bool) -> None:
    """Run the node daemon until SIGTERM or SIGINT. SIGHUP reads the configuration again.

    Exit code 0: stopped, or another daemon has taken over. 2: the configuration is not valid. 3: the kernel
    refused something; nothing is left behind then.
    """
    from engine.daemon import Daemon

    Daemon(file, dict(_setting(text) for text in settings), keep_going=keep_going, takeover=takeover).run()


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} has no value; write --set network.mtu=1400", param_hint="--set")
    return key.strip(), value.strip()
