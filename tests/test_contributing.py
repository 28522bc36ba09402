"""What contributors are told agrees with the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import nern
from nern.registry.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]


def rooms(package: Path) -> set[str]:
    """Modules and folders of a package, as the map names them."""
    modules = {f"nern/{entry.name}" for entry in package.iterdir() if entry.suffix == ".py"}
    return modules | {f"nern/{entry.name}" for entry in package.iterdir() if entry.is_dir() and entry.name != "__pycache__"}


def check_map(text: str, package: Path) -> None:
    """Raises AssertionError with the names that the map lacks, or has too many."""
    named = set(re.findall(r"^\| `(nern/[^`]+)` \|", text, flags=re.MULTILINE))
    assert named == rooms(package), f"missing: {sorted(rooms(package) - named)}, gone: {sorted(named - rooms(package))}"


def test_the_map_names_every_room() -> None:
    check_map((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), ROOT / "nern")


@pytest.mark.parametrize("change", ["new", "gone"])
def test_a_map_with_a_missing_or_a_superfluous_room_is_found(tmp_path: Path, change: str) -> None:
    package = tmp_path / "nern"
    package.mkdir()
    (package / "ordering.py").touch()
    text = "| `nern/ordering.py` | orders |\n"
    check_map(text, package)
    (package / "ordering.py").unlink() if change == "gone" else (package / "attic").mkdir()
    named = r"missing: \[\], gone: \['nern/ordering.py'\]" if change == "gone" else r"missing: \['nern/attic'\]"
    with pytest.raises(AssertionError, match=named):
        check_map(text, package)


def test_every_make_target_that_is_named_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+) ", text))
    assert {"test", "lint", "type", "docs"} <= named <= targets


def test_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'name = "{citation["title"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert citation["version"] == nern.__version__
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_citation_names_the_papers_authors_in_their_order() -> None:
    paper = ROOT.parent / "shared/000_5cba0d0d75182e1d.txt"
    if not paper.exists():
        pytest.skip(f"needs the paper's text, which is not at ../shared/{paper.name}")
    lines = paper.read_text(encoding="utf-8").splitlines()
    byline = re.sub(r"<sup>.*?</sup>|\\\*", "", next(line for line in lines if line.startswith("Maor")))
    reference = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert [f"{author['given-names']} {author['family-names']}" for author in reference["authors"]] == byline.split(", ")
    assert reference["title"].upper() == lines[0].removeprefix("# ").upper()


def test_the_changelog_has_a_section_for_this_version() -> None:
    assert f"\n## [{nern.__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_plugin_form_offers_every_extension_point() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/plugin.yml").read_text(encoding="utf-8"))
    (point,) = [field for field in form["body"] if field.get("id") == "point"]
    assert point["attributes"]["options"] == list(KINDS)


def test_the_package_is_typed() -> None:
    assert (ROOT / "nern/py.typed").exists()


# -- what runs elsewhere ---------------------------------------------------------------------------------------------


def check_workflow(text: str, project: str) -> None:
    """Raises AssertionError where the public workflow tests what is not there, or another Python than the package asks for."""
    workflow = yaml.safe_load(text)
    jobs = workflow["jobs"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', project)
    assert oldest is not None
    assert oldest[1] in jobs["linux"]["strategy"]["matrix"]["python"], "the oldest Python of the package is not tested"
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    missing = [target for command in commands for target in re.findall(r"^make (\w+)", command) if target not in targets]
    missing += [path for command in commands for path in re.findall(r"\btests/\S+", command) if not (ROOT / path).exists()]
    assert not missing, f"there is no {missing}"


def test_the_workflow_tests_what_is_there() -> None:
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    check_workflow(text, project)
    with pytest.raises(AssertionError, match="the oldest Python"):
        check_workflow(text, project.replace(">=3.10", ">=3.11"))
    with pytest.raises(AssertionError, match="tests/attic"):
        check_workflow(text.replace("tests/kernels", "tests/attic"), project)
    with pytest.raises(AssertionError, match="coffee"):
        check_workflow(text.replace("make test", "make coffee"), project)


def test_the_package_says_where_to_read_and_ask() -> None:
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"^\[project\.urls\]\n(.*?)\n\n", metadata, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    assert re.findall(r"^(\w+) = \"https://", section[1], flags=re.MULTILINE) == ["Documentation", "Source", "Changelog", "Issues"]
