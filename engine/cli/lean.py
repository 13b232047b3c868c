"""Commands that start at once: click's own, and rich_click only when somebody asks for their help.

Owns: how such a command's help is dressed.
Never: loads more than click before that.
Invariant: their help looks as that of every other command.
"""

from __future__ import annotations

import click


class LeanCommand(click.Command):
    def get_help(self, ctx: click.Context) -> str:
        return _dressed(self, ctx)


class LeanGroup(click.Group):
    def get_help(self, ctx: click.Context) -> str:
        return _dressed(self, ctx)


def _dressed(command: click.Command, ctx: click.Context) -> str:
    """The help of a twin that rich_click knows how to show."""
    import rich_click

    class Listed(rich_click.RichGroup):
        """Its commands in our order."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(self.commands)

    twin: rich_click.RichCommand
    if isinstance(command, click.Group):
        known = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
        commands = {name: found for name, found in known.items() if found is not None}
        twin = Listed(name=command.name, commands=commands, params=command.params, help=command.help)
    else:
        twin = rich_click.RichCommand(name=command.name, params=command.params, help=command.help)
    names = ctx.help_option_names
    return twin.get_help(
        rich_click.RichContext(twin, parent=ctx.parent, info_name=ctx.info_name, help_option_names=names)
    )
