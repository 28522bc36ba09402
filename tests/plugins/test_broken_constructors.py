"""Components that raise while they are made: in their constructor, in a check of an option, or in their main method."""

from __future__ import annotations

import pytest
import yaml

import nern
from nern.artifact.components import component
from nern.cli.main import run
from nern.config.structuring import structure_component
from nern.errors import ConfigError
from nern.studies.embedding_similarity import embedding_similarity
from tests.plugins.odd_components import RESNET, REST, RIGHT, Table, Tiny, is_named, is_named_before_the_first_step, offered, rows

#: What raises → (the code, where the message stands besides the component's place, what is said).
MADE = {
    "constructor": ("def __attrs_post_init__(self): raise ValueError('no good')", "", "raised ValueError: no good"),
    "key": ("def __attrs_post_init__(self): boom()", "", "raised KeyError: 'boom'"),
    "exit": ("def __attrs_post_init__(self): raise SystemExit(3)", "", "raised SystemExit: 3"),
    "check": ("own: int = nern.option(1, help='x', check=boom)", ".own", "raised KeyError: 'boom'"),
    "check exits": ("def leave(*anything): raise SystemExit(3)\nown: int = nern.option(1, help='x', check=leave)", ".own",
        "raised SystemExit: 3"),
    "check of attrs": ("own: int = nern.option(1, help='x', check=attrs.validators.gt(3))", ".own", "raised ValueError: 'own' must be > 3"),
    "converter": ("own: int = attrs.field(default=1, converter=boom, kw_only=True)", "", "raised KeyError: 'boom'"),
    "default": ("own: int = attrs.field(kw_only=True)\n@own.default\ndef fallback(self): boom()", "", "raised KeyError: 'boom'"),
}  # fmt: skip
#: Extension point → the method that makes or starts what does the work. Observers have none, and launchers start with a sweep.
MAIN = {
    "architecture": "build", "embedding": "build", "predictor": "build", "base": "build", "sampler": "start", "loss": "__call__",
    "optimizer": "start", "task": "open", "metric": "batch", "smoother": "order",
}  # fmt: skip

BROKEN: Table = {kind: {f"{kind} {what}": (code, said) for what, (code, _, said) in MADE.items()} for kind in RIGHT}
for kind, method in MAIN.items():
    BROKEN[kind][f"{kind} main"] = (f"def {method}(self, *given): raise ValueError('no good')", "raised ValueError: no good")
BROKEN["architecture"]["layers leave"] = ("def layers(self, network): raise SystemExit(0)", "")
CONSTRUCTORS = [row for row in rows(BROKEN) if row.values[1].removeprefix(f"{row.values[0]} ") in MADE]


@pytest.mark.parametrize(("kind", "what", "said"), CONSTRUCTORS)
def test_an_error_while_a_component_is_made_names_it(kind, what, said, odd) -> None:
    with pytest.raises(ConfigError) as caught:
        structure_component(kind, {"name": offered(what)}, odd.registry, "the file")
    option = MADE[what.removeprefix(f"{kind} ")][1]
    place = f"the file: {option.removeprefix('.')}: " if option else "the file: "
    assert str(caught.value).startswith(place)
    is_named(str(caught.value).removeprefix(place), kind, what, said)


@pytest.mark.parametrize("kind", RIGHT)
def test_a_file_that_names_the_component_says_the_same(kind, odd) -> None:
    for what in ("constructor", "check", "exit"):
        said = MADE[what][2]
        with pytest.raises(ConfigError) as caught:
            component(kind, {"name": offered(f"{kind} {what}")}, odd.registry)
        is_named(str(caught.value), kind, f"{kind} {what}", said)


@pytest.mark.parametrize("kind", [kind for kind in RIGHT if kind != "launcher"])
def test_a_configuration_says_in_which_section_the_component_stands(kind, odd) -> None:
    with pytest.raises(ConfigError) as caught:
        odd.engine(kind, f"{kind} constructor")
    place, section, message = str(caught.value).split(": ", 2)
    assert place.endswith("odd.yaml")
    assert kind in section or section == "phases.0.losses.odd"
    is_named(message, kind, f"{kind} constructor", "raised ValueError: no good")


@pytest.mark.parametrize("kind", MAIN)
def test_an_error_in_the_main_method_names_the_component(kind, odd) -> None:
    is_named_before_the_first_step(odd, kind, f"{kind} main", "raised ValueError: no good")


def test_a_plugin_that_exits_does_not_end_a_command_in_silence(odd, capsys) -> None:
    path = odd.folder / "leaves.yaml"
    path.write_text(yaml.safe_dump({**REST, "architecture": {**RESNET, "name": "layers-leave"}, "pretrain": {"epochs": 1}}))
    plugin = str(odd.folder / "nern_odd.py")
    assert run(["pretrain", str(path), "-o", str(odd.folder / "leaves.safetensors"), "--plugin", plugin]) == 2
    assert "component nern_odd:layers-leave (architecture): raised SystemExit: 0 (" in capsys.readouterr().err


def test_a_figure_of_embeddings_names_the_one_that_fails(odd) -> None:
    what = "embedding main"
    with pytest.raises(ConfigError) as caught:
        embedding_similarity(odd.registry.find("embedding", offered(what)).cls())
    is_named(str(caught.value), "embedding", what, "raised ValueError: no good")


@pytest.mark.parametrize("kind", ["embedding", "predictor"])
def test_a_network_of_ones_own_names_the_component_that_fails(kind, odd, tmp_path) -> None:
    what = f"{kind} main"
    overrides = {f"{kind}.name": offered(what)}
    with pytest.raises(ConfigError) as caught:
        nern.represent(Tiny(), overrides=overrides, size=(1, 8, 8), output=tmp_path / "run", registry=odd.registry)
    is_named(str(caught.value), kind, what, "raised ValueError: no good")
