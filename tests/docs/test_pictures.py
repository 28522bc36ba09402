"""Every picture of the site can be read on light and on dark pages, and is shown somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = sorted(path for path in (ROOT / "docs" / "assets").iterdir() if path.suffix in (".png", ".jpg", ".svg"))
LEAST = 9  # pixels of text where the picture is 700 wide


def faults(text: str) -> list[str]:
    """Why an SVG cannot be read: colours that do not follow the page, or text that is too small."""
    reasons = [] if "prefers-color-scheme:dark" in text else ["has one set of colours for light and dark pages"]
    width = float(re.search(r'viewBox="0 0 ([\d.]+) ', text)[1])
    styles = [style for style in re.findall(r'<text style="([^"]*)"', text) if "font" in style]
    reasons += ["has text of a fixed colour" for style in styles if "fill: currentColor" not in style][:1]
    sizes = [float(size) for style in styles for size in re.findall(r"([\d.]+)px", style)]
    return reasons + (["has text that is too small"] if min(sizes, default=LEAST) * 700 / width < LEAST else [])


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_can_be_read_on_light_and_dark_pages(picture: Path) -> None:
    assert picture.suffix == ".svg", "a picture of pixels has one ground: write it as SVG with nern plot -o x.svg"
    assert faults(picture.read_text(encoding="utf-8")) == []
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    assert any(f"assets/{picture.name})" in page.read_text(encoding="utf-8") for page in pages), "no page shows it"


def test_a_picture_of_one_set_of_colours_is_found() -> None:
    text = '<svg viewBox="0 0 1400 700">{}<text style="font-size: {}px{}">x</text></svg>'
    follows = "<style>svg{color:#000}@media(prefers-color-scheme:dark){svg{color:#fff}}</style>"
    assert faults(text.format(follows, 20, "; fill: currentColor")) == []
    assert faults(text.format("", 20, "; fill: currentColor")) == ["has one set of colours for light and dark pages"]
    assert faults(text.format(follows, 20, "")) == ["has text of a fixed colour"]
    assert faults(text.format(follows, 10, "; fill: currentColor")) == ["has text that is too small"]
