"""Exports are read by the other program and compared with the network itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import nern
from nern.cli.main import run
from nern.errors import ArtifactError, ConfigError
from nern.networks.state_dicts import read_state_dict
from nern.own import export as exporting
from tests.own.test_represent import SHORT, cnn, images

FILE = "from torch import nn\n\ndef net(classes):\n    from tests.own.test_represent import cnn\n    return cnn(classes)\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    nern.represent(cnn(), images(), overrides=SHORT, output=folder / "run", quiet=True).save(folder / "m.nern")
    return folder / "m.nern"


def test_torch_export_gives_the_networks_outputs(file: Path, tmp_path: Path) -> None:
    artifact, inputs = nern.load(file), images(5)[0]
    exported = nern.export(artifact, tmp_path / "m.pt2", cnn(), inputs[:2])
    again = torch.export.load(tmp_path / "m.pt2").module()
    expected = nern.load(file, into=cnn())(inputs)
    torch.testing.assert_close(again(inputs), expected)
    assert exported.difference < 1e-5
    assert exported.bytes == (tmp_path / "m.pt2").stat().st_size


def test_onnx_gives_the_networks_outputs(file: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f'needs {package}: pip install "nern[export]"')
    runtime = pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "nern[export]"')
    nern.export(nern.load(file), tmp_path / "m.onnx", cnn())
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    inputs = images(5)[0]
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), nern.load(file, into=cnn())(inputs).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
def test_state_dicts_need_no_network(file: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(file), "-o", str(tmp_path / f"m.{ending}")]) == 0
    written, expected = read_state_dict(tmp_path / f"m.{ending}"), nern.load(file).state_dict()
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], value) for name, value in expected.items())


def test_the_command_line_builds_the_network_by_reference(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own_export_net.py").write_text(FILE)
    words = ["export", str(file), "-o", str(tmp_path / "m.pt2"), "--model", f"{tmp_path}/own_export_net.py:net", "--arguments", "classes=4"]
    assert run(words) == 0
    assert "read back with a largest relative difference of" in capsys.readouterr().err


def test_what_represent_says_of_a_network_is_what_export_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file alone names no code, so the reference is given again; the run folder knows it."""
    (tmp_path / "own_export_net.py").write_text(FILE)
    torch.save(cnn().state_dict(), tmp_path / "net.pth")
    reference = ["--model", f"{tmp_path}/own_export_net.py:net", "--arguments", "classes=4"]
    short = [f"{key}={value or '{}'}" for key, value in SHORT.items()]
    represent = ["represent", str(tmp_path / "net.pth"), *reference, "--no-images", "--size", "1,8,8"]
    assert run([*represent, "-o", str(tmp_path / "net.nern"), "--run", str(tmp_path / "run"), *short]) == 0
    assert run(["export", str(tmp_path / "net.nern"), "-o", str(tmp_path / "net.pt2")]) == 2
    assert "or say what builds it with architecture.build=file.py:Class, for nern export with --model" in capsys.readouterr().err
    assert run(["export", str(tmp_path / "net.nern"), *reference, "-o", str(tmp_path / "net.pt2")]) == 0
    assert run(["export", str(tmp_path / "run"), "-o", str(tmp_path / "run.pt2")]) == 0
    inputs = images(5)[0]
    of_file, of_run = (torch.export.load(tmp_path / f"{name}.pt2").module()(inputs) for name in ("net", "run"))
    torch.testing.assert_close(of_file, nern.load(tmp_path / "net.nern", into=cnn())(inputs))
    torch.testing.assert_close(of_run, of_file)
    assert run(["export", str(tmp_path / "run"), "-o", str(tmp_path / "x.pt2"), "--arguments", "classes=4"]) == 2
    assert "--arguments are those of the network that --model names" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_with_the_reason(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = nern.load(file)
    with pytest.raises(ConfigError, match=r"m\.tflite: the file must end in \.onnx, \.pt2"):
        nern.export(artifact, tmp_path / "m.tflite")
    with pytest.raises(ArtifactError, match="handed over in memory"):
        nern.export(artifact, tmp_path / "m.pt2")

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = cnn()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) if float(x.sum()) > 0 else self.body(-x)

    with pytest.raises(nern.DataError, match="of another network"):
        nern.export(artifact, tmp_path / "m.pt2", Branches())
    monkeypatch.setattr(exporting, "_difference", lambda *_: 0.5)
    with pytest.raises(ArtifactError, match=r"differs from the reconstructed one by 0\.5; it was not written"):
        nern.export(artifact, tmp_path / "m.pt2", cnn())
    assert not (tmp_path / "m.pt2").exists()
