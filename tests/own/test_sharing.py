"""The Hub, played by a folder: what is uploaded, what the card says, and that it is read back without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import nern
from nern.errors import ArtifactError
from tests.helpers import same
from tests.own.test_represent import SHORT, cnn, images

client = pytest.importorskip("huggingface_hub", reason='needs huggingface_hub: pip install "nern[hub]"')


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the Hub."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None:
            assert token is None

        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
            if repo_id.startswith("somebody-else/"):
                raise PermissionError("403 Forbidden\nsecond line")
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

        def upload_file(self, path_or_fileobj: Any, path_in_repo: str, repo_id: str, commit_message: str) -> None:
            target = root / repo_id / path_in_repo
            target.write_bytes(path_or_fileobj) if isinstance(path_or_fileobj, bytes) else shutil.copy(path_or_fileobj, target)

    def download(repo_id: str, filename: str, revision: str | None) -> str:
        file = root / repo_id / filename
        if not file.is_file() or revision == "nowhere":
            raise FileNotFoundError("404 Client Error")
        return str(file)

    monkeypatch.setattr(client, "HfApi", Api)
    monkeypatch.setattr(client, "hf_hub_download", download)
    return root


def test_a_result_is_shared_and_read_back(hub: Path, tmp_path: Path) -> None:
    result = nern.represent(cnn(), images(), overrides=SHORT, output=tmp_path / "run", quiet=True)
    assert result.push_to_hub("me/digits") == "hf://me/digits"
    assert sorted(file.name for file in (hub / "me" / "digits").iterdir()) == ["README.md", "model.nern"]
    expected = nern.load(result.artifact).state_dict()
    for reference in ("hf://me/digits", "hf://me/digits@main", "hf://me/digits/model.nern"):
        assert same(nern.load(reference).state_dict(), expected)
    assert same(nern.load("hf://me/digits", into=cnn()).state_dict(), expected)
    card = (hub / "me" / "digits" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "nern"
    assert f"| bytes | {result.bytes.original:,} | {result.bytes.total:,} |" in card
    assert f"| top1 | {result.original_top1:.4g} | {result.reconstructed_top1:.4g} |" in card
    assert str(tmp_path) not in card  # nothing of this machine's places


def test_a_refusal_of_the_hub_becomes_an_error_of_one_line(hub: Path, tmp_path: Path) -> None:
    result = nern.represent(cnn(), images(), overrides=SHORT, output=tmp_path / "run", quiet=True)
    with pytest.raises(ArtifactError, match=r"the Hub does not take somebody-else/x \(403 Forbidden\); see to the name"):
        result.push_to_hub("somebody-else/x")
    with pytest.raises(ArtifactError, match="'digits' must look like user/name"):
        result.push_to_hub("digits")
    for reference, message in (
        ("hf://me/nothing", r"cannot get hf://me/nothing \(404 Client Error\)"),
        ("hf://me", "'hf://me' must look like hf://user/repo"),
    ):
        with pytest.raises(ArtifactError, match=message):
            nern.load(reference)
    Path(result.artifact).unlink()
    with pytest.raises(ArtifactError, match="any more, which would be uploaded"):
        result.push_to_hub("me/digits")
