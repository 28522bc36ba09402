"""The built site lacks nothing that the code offers, and these checks can fail."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import attrs
import click
import pytest
from torch import Tensor

import nern
from nern.cli.main import cli
from nern.config import experiment
from nern.interfaces import Draw, Sampler
from nern.registry.registry import Registry
from tests.docs.site_reading import (
    Site,
    every_hook,
    undocumented_hooks,
    undocumented_keys,
    undocumented_names,
    undocumented_options,
    undocumented_verbs,
)

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("extension_points", "command_line", "descriptions")


@pytest.fixture(scope="session")
def site(docs_site: Path) -> Site:
    return Site.read(docs_site)


@pytest.fixture(scope="session")
def reference() -> SimpleNamespace:
    """Every function of the hook of the site that makes the reference pages."""
    sys.path.insert(0, str(ROOT / "docs" / "hooks"))  # as mkdocs does
    try:
        modules = [importlib.import_module(name) for name in ("reference", *(f"reference_pages.{name}" for name in PAGES))]
    finally:
        sys.path.pop(0)
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items() if not name.startswith("_")})


def keys() -> dict[str, list[str]]:
    """Every key of the configuration, by the class it belongs to."""
    classes = [cls for cls in vars(experiment).values() if attrs.has(cls) and cls.__module__ == experiment.__name__]
    names = {cls.__name__: [field.name for field in attrs.fields(cls)] for cls in classes}
    names["LossTerm"].remove("loss")  # in a file the term is the loss: its name, its options, weight and warmup
    return names


def module_of(name: str) -> str:
    return nern._MODULES.get(name, "nern")


def commands(group: click.Group, path: str = "nern") -> dict[str, click.Command]:
    by_path: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        by_path[f"{path} {name}"] = command
        if isinstance(command, click.Group):
            by_path |= commands(command, f"{path} {name}")
    return by_path


def test_every_hook_and_argument(site: Site) -> None:
    assert undocumented_hooks(site, every_hook()) == []


def test_every_component_and_option(site: Site, registry: Registry) -> None:
    assert undocumented_options(site, registry) == []


def test_every_configuration_key(site: Site) -> None:
    assert keys().keys() >= {"Experiment", "Phase", "Pretrain", "LossTerm"}
    assert undocumented_keys(site, keys()) == []


def test_every_public_name(site: Site) -> None:
    names = [name for name in nern.__all__ if name != "__version__"]
    assert undocumented_names(site, names, module_of) == []
    assert site.row("api/index.html", "public-names", "nern.__version__")


def test_every_verb_and_option(site: Site) -> None:
    assert undocumented_verbs(site, commands(cli)) == []


def test_every_preset(site: Site) -> None:
    from nern.config.sources import presets

    sections = site.pages["reference/presets.html"].text
    assert [name for name in presets() if "/" not in name and name not in sections] == []
    assert [name for name in presets() if name not in " ".join(sections.values()).split()] == []


def test_underscores_are_escaped_once(site: Site) -> None:
    shown = {path: " ".join(page.text.values()) for path, page in site.pages.items()}
    assert [path for path, text in shown.items() if "\\_" in text] == []


def test_the_project_s_own_pages_are_there_and_stray_ones_are_not(site: Site) -> None:
    assert {"changelog.html", "contributing.html", "compatibility.html", "gallery.html", "recipes/index.html"} <= set(site.pages)
    assert [path for path in site.pages if path.startswith("results/")] == []


# -- the checks can fail ---------------------------------------------------------------------------------------------


@attrs.frozen
class Secret(Sampler):
    batch: int = nern.option(1, help="kernels")

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        return lambda step: None


def offering(name: str, cls: type) -> SimpleNamespace:
    @nern.hookimpl
    def nern_samplers() -> Mapping[str, type]:
        return {name: cls}

    return SimpleNamespace(nern_samplers=nern_samplers)


def test_an_undocumented_hook_or_argument_is_found(site: Site) -> None:
    def nern_secrets() -> None: ...
    def nern_step(phase: str, iteration: int, secret: int) -> None: ...

    hooks = {"nern_secrets": nern_secrets, "nern_step": nern_step}
    assert undocumented_hooks(site, hooks) == ["nern_secrets", "nern_step(secret)"]


def test_an_undocumented_component_or_option_is_found(site: Site, registry: Registry) -> None:
    registry.register(offering("secret", Secret), "secrets")
    assert undocumented_options(site, registry) == ["sampler secret"]
    known = Registry()
    known.register(offering("all", Secret), "secrets")  # the page has a sampler 'all', which has no option 'batch'
    assert undocumented_options(site, known) == ["sampler all.batch"]


def test_an_undocumented_key_name_or_verb_is_found(site: Site) -> None:
    assert undocumented_keys(site, {"Phase": ["iterations", "secret"], "Secret": ["x"]}) == ["Phase.secret", "Secret.x"]
    assert undocumented_names(site, ["Engine", "Secret"], module_of) == ["Secret"]

    @click.command()
    @click.option("--secret", help="x")
    def train(secret: str) -> None: ...

    assert undocumented_verbs(site, {"nern train": train, "nern secret": train}) == ["nern train --secret", "nern secret"]


def test_the_build_refuses_what_has_no_description(reference: SimpleNamespace, registry: Registry) -> None:
    from mkdocs.exceptions import PluginError

    @attrs.frozen
    class Undocumented(Secret):
        """Has an option that says nothing."""

        batch: int = attrs.field(default=1, kw_only=True)

    registry.register(offering("undocumented", Undocumented), "one")
    with pytest.raises(PluginError, match="sampler 'undocumented': no help for batch"):
        reference.extension_point("sampler", registry)
    with pytest.raises(PluginError, match="nern_secret has no docstring"):
        reference.documented(lambda: None, "nern_secret")

    @click.command()
    @click.option("--secret")
    def verb(secret: str) -> None:
        """Does something."""

    with pytest.raises(PluginError, match="nern verb --secret has no help"):
        reference.verb("nern verb", verb)


class Measured:
    """Has one attribute that says what it is, and one that does not."""

    described: int = 0
    """A number."""
    secret: int = 0  # a comment is on no page
    _own: int = 0


def test_the_build_refuses_an_attribute_that_says_nothing(reference: SimpleNamespace) -> None:
    from mkdocs.exceptions import PluginError

    assert reference.undescribed_attributes(Measured) == ["secret"]
    with pytest.raises(PluginError, match="Measured: no docstring below secret"):
        reference.check_attributes(Measured)


@pytest.mark.parametrize(
    ("page", "places"),
    {
        "api/interfaces.html": ["Data.classes", "Data.splits", "Preprocessing.size", "LossContext.budget", "Kernels.values"],
        "api/kernels.coordinates.html": ["LayerMapping.parameter", "LayerMapping.shape", "KernelGrid.small_kernels"],
        "api/run.evaluation.html": ["Score.figures", "Score.key"],
        "api/run.results.html": ["Result.bytes", "Result.choice", "Evaluation.original"],
        "api/artifact.artifact.html": ["Bytes.base", "Artifact.sha256"],
        "extend/loss.html": ["Loss.needs", "Loss.needs_targets"],
    }.items(),
)
def test_attributes_and_signatures_are_shown(site: Site, page: str, places: list[str]) -> None:
    sections = site.pages[page].text
    module = "nern.interfaces" if page.startswith("extend") else f"nern.{page.removeprefix('api/').removesuffix('.html')}"
    assert [place for place in places if not sections.get(f"{module}.{place}", "").strip()] == []
    if page == "api/interfaces.html":
        signature = " ".join(sections["signature-preprocessing"].split())
        assert "Preprocessing( mean: tuple[float, ...] = (0.485, 0.456, 0.406)," in signature and "resize: int | None = None," in signature


def test_unlisted_pages_are_reachable(reference: SimpleNamespace) -> None:
    nav = reference.complete_navigation([{"Home": "index.md"}, {"API": "api/"}], ["index.md", "new.md", "api/a.md"], ["api/a.md"])
    assert nav == [{"Home": "index.md"}, {"API": ["api/a.md"]}, {"More": ["new.md"]}]


# -- reading it ------------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_from_elsewhere(site: Site) -> None:
    away = {address for page in site.pages.values() for address in page.fetched if address.startswith(("http", "//"))}
    assert away == set()


def test_equations_are_mathml(docs_site: Path) -> None:
    pages = {name: (docs_site / "method" / f"{name}.html").read_text() for name in ("embedding", "losses", "smoothness")}
    assert "arithmatex" not in "".join(pages.values())
    numbers = [number for page in pages.values() for number in range(1, 10) if f'equation-number">({number})' in page]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert "<mfrac>" in pages["losses"]


def hook(name: str) -> ModuleType:
    """A module of docs/hooks."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_unknown_command_in_an_equation_is_refused() -> None:
    from mkdocs.exceptions import PluginError

    equations = hook("equations")
    with pytest.raises(PluginError, match="nonsense"):
        equations.mathml(r"\nonsense{x}", "inline")
    assert 'equation-number">(3)' in equations.display(r"x = 1 \tag{3}")


def test_long_words_of_code_may_break_in_a_table_and_nothing_else_changes() -> None:
    code = "<code>quick phases.reconstruction.iterations=8000 lr=0.1 a/b {}</code>"
    html = f"<p>{code}</p><table><td>{code} phases.distillation.iterations=400</td></table>"
    rewritten = hook("tables").on_page_content(html)
    assert rewritten.replace('<div class="wide">', "").replace("</div>", "").replace("<wbr>", "") == html
    assert rewritten.count("<wbr>") == 2 and "phases.<wbr>reconstruction.<wbr>iterations=8000" in rewritten.partition("<table>")[2]
