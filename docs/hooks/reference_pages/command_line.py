"""The page of the command line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from mkdocs.exceptions import PluginError

from reference_pages.markdown import escape, table


def verbs(group: click.Group) -> str:
    """The page of the command line."""
    text = f"""# Command line

{group.help}

`nern VERB --help` prints the same. With `--json`, stdout is one JSON object and messages go to stderr. The exit code is 0
when all is done, 2 after a mistake that nern explains in a line, 130 after an interruption, and 1 after anything else.

"""
    for path, command in commands(group):
        text += verb(path, command)
    return text


def commands(group: click.Group, path: str = "nern") -> Iterator[tuple[str, click.Command]]:
    """Every verb with its path such as `nern train`, including verbs of groups."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def verb(path: str, command: click.Command) -> str:
    """The section of one verb."""
    if not command.help:
        raise PluginError(f"{path} has no help")
    context = click.Context(command, info_name=path, show_default=True)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            if not parameter.help:
                raise PluginError(f"{path} {parameter.opts[0]} has no help")
            value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            described = parameter.get_help_record(context)  # the help text with the default, as --help prints it
            text = described[1] if described else parameter.help
            rows.append((", ".join(f"`{option}{value}`" for option in parameter.opts), escape(text)))
    options = table(("option", "what it does"), rows) if rows else ""
    shown = (command.epilog or "").partition("Example:")[2].strip()
    examples = f"```text\n{shown}\n```\n\n" if shown else ""
    return f"## `{path}`\n\n{inspect.cleandoc(command.help)}\n\n```text\n{usage}\n```\n\n{examples}{options}\n"
