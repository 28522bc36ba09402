"""Options that several verbs share, and what `--help` says of every verb."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from nern.cli.main import cli
from nern.config.sources import presets
from nern.studies.pruning import RATIOS
from tests.helpers import command_line, write_experiment

Capture = pytest.CaptureFixture[str]


def verbs(group: click.Group = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for every verb, groups included."""
    context = click.Context(group, parent=parent, info_name=group.name if parent else "nern", **group.context_settings)
    yield context
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, context)
        else:
            yield click.Context(command, parent=context, info_name=name)


VERBS = {context.command_path: context for context in verbs()}
LEAVES = [path for path, context in VERBS.items() if not isinstance(context.command, click.Group)]


def options(path: str) -> dict[str, click.Option]:
    command = VERBS[path].command
    return {name: option for option in command.params if isinstance(option, click.Option) for name in option.opts}


def arguments(path: str) -> set[str | None]:
    return {parameter.name for parameter in VERBS[path].command.params if isinstance(parameter, click.Argument)}


# -- one name, one meaning -------------------------------------------------------------------------------------------


def test_every_verb_prints_json() -> None:
    assert [path for path in LEAVES if "--json" not in options(path)] == []


def test_every_verb_that_opens_an_experiment_or_a_run_chooses_plugins() -> None:
    opening = [path for path in LEAVES if arguments(path) & {"experiment", "run", "file"}]
    assert {"nern train", "nern config", "nern evaluate", "nern reconstruct", "nern prune", "nern plot kernels"} <= set(opening)
    for path in [*opening, "nern plugins"]:
        assert {"--plugin", "--no-plugin"} <= options(path).keys(), path


def test_shared_options_have_the_same_help_everywhere() -> None:
    for name in ("--json", "--plugin", "--no-plugin"):
        assert len({options(path)[name].help for path in LEAVES if name in options(path)}) == 1
    for path in LEAVES:
        output = options(path).get("--output")
        if output is not None:
            assert output is options(path)["-o"]
            assert (output.help or "").startswith("Where to write "), path


def test_every_verb_that_writes_says_where_with_o() -> None:
    assert {path for path in LEAVES if "-o" not in options(path)} == {"nern evaluate", "nern info", "nern plugins"}


# -- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", VERBS)
def test_help_ends_with_an_example_that_the_verb_takes(path: str) -> None:
    context = VERBS[path]
    shown = context.command.get_help(context).splitlines()
    assert shown[-2].strip() == "Example:"
    words = shlex.split(shown[-1])
    assert " ".join(words).startswith(path)
    command: click.Command = cli
    parent, words = None, words[1:]
    while isinstance(command, click.Group):
        parent = click.Context(command, parent=parent)
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words, parent=parent)  # raises UsageError where an option or argument is wrong


@pytest.mark.parametrize("path", LEAVES)
def test_help_shows_defaults(path: str) -> None:
    context = VERBS[path]
    for option in {id(option): option for option in options(path).values()}.values():
        record = option.get_help_record(context)
        assert record is not None
        needs_none = option.is_flag or option.required or (option.multiple and option.name in ("plugins", "disabled"))
        assert needs_none or "[default: " in record[1], f"{path} {option.opts}"


def test_the_default_ratios_are_those_of_the_study() -> None:
    option = options("nern prune")["--ratios"]
    assert option.type.convert(option.default, option, VERBS["nern prune"]) == list(RATIOS)


# -- what they do ----------------------------------------------------------------------------------------------------


def test_presets_as_json_and_as_a_file(capsys: Capture, tmp_path: Path) -> None:
    assert command_line("presets", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["presets"]
    assert [entry["name"] for entry in listed] == list(presets())
    assert command_line("presets", "digits", "--json", "-o", tmp_path / "mine.yaml") == 0
    assert json.loads(capsys.readouterr().out)["values"] == yaml.safe_load(presets()["digits"])
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == presets()["digits"]
    assert command_line("presets", "digits", "-o", tmp_path / "nowhere" / "mine.yaml") == 2
    assert "mine.yaml (No such file or directory); name another file with -o" in capsys.readouterr().err
    assert command_line("presets", "-o", tmp_path / "all.yaml") == 2
    assert "-o writes the YAML of one preset" in capsys.readouterr().err


def test_config_as_json_and_as_a_file(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    assert command_line("config", path, "seed=3") == 0
    text = capsys.readouterr().out
    assert command_line("config", path, "seed=3", "--json", "-o", tmp_path / "resolved.yaml") == 0
    assert json.loads(capsys.readouterr().out) == yaml.safe_load(text)
    assert (tmp_path / "resolved.yaml").read_text(encoding="utf-8") == text


def test_o_is_the_run_directory_and_cannot_be_given_twice(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    steps = ["phases.0.iterations=1", "phases.1.iterations=1"]
    assert command_line("train", path, *steps, "-o", tmp_path / "here", "--json") == 0
    assert json.loads(capsys.readouterr().out)["run_dir"] == str(tmp_path / "here")
    assert command_line("train", path, *steps, "-o", tmp_path / "a", f"output={tmp_path / 'b'}") == 2
    assert "both name the run directory; give one of them" in capsys.readouterr().err


def test_a_local_plugin_on_the_command_line_is_written_into_the_configuration(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import attrs, nern\n\n@attrs.frozen\nclass Mine(nern.Sampler):\n"
        '    """Every kernel."""\n\n    def start(self, norms, layers, seed):\n        return lambda step: None\n\n'
        "@nern.hookimpl\ndef nern_samplers():\n    return {'mine': Mine}\n"
    )
    path = write_experiment(tmp_path)
    assert command_line("config", path, "phases.reconstruction.sampler.name=mine", "--plugin", tmp_path / "mine.py") == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["phases"][0]["sampler"]["name"], values["plugins"]) == ("mine:mine", [str(tmp_path / "mine.py")])
    assert command_line("config", path, "phases.reconstruction.sampler.name=mine") == 2
