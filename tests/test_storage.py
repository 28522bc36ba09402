"""Numbers of fewer bytes in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import nern
from nern import Engine, TrainingError
from nern.cli import run
from nern.results import Result

SETTINGS = {"architecture.width": 4, "predictor.hidden": 32, "pretrain.epochs": 1, "embedding.name": "learned"}
SETTINGS |= {"phases.0.iterations": 5, "phases.1.iterations": 2, "threads": 1}


def fit(folder: Path, storage: str) -> tuple[Engine, Result]:
    engine = Engine.from_yaml("digits", {**SETTINGS, "storage": storage, "output": str(folder / storage)})
    return engine, engine.fit()


@pytest.mark.parametrize(("storage", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_parameters_are_rounded_stored_in_half_the_bytes_and_measured_as_stored(tmp_path: Path, storage: str, bits: int) -> None:
    full, half = fit(tmp_path, "float32"), fit(tmp_path, storage)
    assert 2 * half[1].bytes.predictor == full[1].bytes.predictor
    assert 2 * half[1].bytes.embedding == full[1].bytes.embedding
    file = tmp_path / storage / "model.nern"
    assert file.stat().st_size == half[1].bytes.total
    tensors = load_file(str(file))
    exact = dict(full[0].representation.named_parameters())
    for name, value in half[0].representation.named_parameters():
        assert tensors[name].dtype == getattr(torch, storage)
        assert torch.equal(tensors[name].float(), value)
        smallest = 2.0**-24 if storage == "float16" else 0.0  # below which float16 has no number
        assert float((value - exact[name]).detach().abs().sub(exact[name].detach().abs() * 2.0**-bits).max()) <= smallest
    loaded = nern.load(file)
    rebuilt = loaded.reconstruct()
    assert all(torch.equal(a, b) for a, b in zip(rebuilt.parameters(), half[0].reconstruct().parameters(), strict=True))
    assert Engine.from_run(tmp_path / storage).evaluate().reconstructed_top1 == half[1].reconstructed_top1
    loaded.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == file.read_bytes()


def test_a_pruned_predictor_keeps_its_type(tmp_path: Path) -> None:
    fit(tmp_path, "float16")
    run(["prune", str(tmp_path / "float16"), "ratios=0.6", "finetune=2", "-o", str(tmp_path / "pruned")])
    file = tmp_path / "pruned" / "pruned-0.60.nern"
    tensors = load_file(str(file))
    assert tensors["predictor.(values)"].dtype == torch.float16
    pruned = nern.load(file)
    zeros = sum(int((value == 0).sum()) for value in pruned.representation.predictor.parameters() if value.dim() == 2)
    assert zeros >= int(0.6 * sum(value.numel() for value in pruned.representation.predictor.parameters() if value.dim() == 2))
    assert pruned.bytes().total == file.stat().st_size
    pruned.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == file.read_bytes()


def test_a_parameter_that_does_not_fit_is_named(tmp_path: Path) -> None:
    representation = fit(tmp_path, "float32")[0].representation
    with torch.no_grad():
        representation.predictor.first.bias[0] = 1e6
    with pytest.raises(TrainingError, match=r"'predictor\.first\.bias' is too large for float16; set storage=bfloat16 or float32"):
        representation.round(torch.float16)
