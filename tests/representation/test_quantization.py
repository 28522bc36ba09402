"""Numbers of fewer bytes in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import nern
from nern import ConfigError, Engine, TrainingError
from nern.artifact.encoding import decode, encode
from nern.cli.main import run
from nern.representation.quantization import NAMES, NumberFormat, row_steps
from nern.run.results import Result
from nern.support.bits import pack_integers, unpack_integers

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
    run(["prune", str(tmp_path / "float16"), "--ratios", "0.6", "--finetune", "2", "-o", str(tmp_path / "pruned")])
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
    representation.storage = NumberFormat("float16")
    with pytest.raises(TrainingError, match=r"'predictor\.first\.bias' is too large for float16; resume with storage=bfloat16 or float32"):
        representation.round()


# -- integers --------------------------------------------------------------------------------------------------------------

INTEGERS = [name for name in NAMES if name.startswith("int")]
numbers = st.floats(-3e4, 3e4, width=32).map(lambda value: 0.0 if abs(value) < 1e-20 else value)


@pytest.mark.parametrize("name", INTEGERS)
@given(rows=st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4))
def test_rows_are_rounded_to_the_nearest_whole_step(name: str, rows: list[list[float]]) -> None:
    most = 2 ** (int(name[3:]) - 1) - 1
    value = torch.tensor(rows)
    steps, rounded = row_steps(value, int(name[3:])), NumberFormat(name).rounded(value)
    for own, step, rounded_row in zip(value.double(), steps.double(), rounded.double(), strict=True):
        largest = float(own.abs().max()) / most
        assert largest * (1 - 1e-7) <= float(step) <= largest * (1 + 2.0**-15) * (1 + 1e-7)
        counts = rounded_row / step if largest else rounded_row
        assert torch.equal(counts, counts.round()) and float(counts.abs().max()) <= most
        assert float((own - rounded_row).abs().max()) <= float(step) / 2 * (1 + 1e-6)
    assert torch.equal(NumberFormat(name).rounded(rounded), rounded)  # what is rounded is rounded to itself


@pytest.mark.parametrize("bits", range(4, 9))
def test_integers_are_packed_most_significant_bit_first_and_come_back(bits: int) -> None:
    most = 2 ** (bits - 1) - 1
    values = torch.arange(-most, most + 1, dtype=torch.int8)
    text = "".join(format(value % 2**bits, f"0{bits}b") for value in values.tolist())
    text += "0" * (-len(text) % 8)
    packed = pack_integers(values, bits)
    assert packed.tolist() == [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]
    assert torch.equal(unpack_integers(packed, len(values), bits), values)
    with pytest.raises(ValueError, match="bytes of integers are stored"):
        unpack_integers(packed[:-1], len(values), bits)


def test_what_a_block_sees_is_rounded_and_what_it_leaves_is_not() -> None:
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(5, 4), torch.randn(7, 5)
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    with NumberFormat("int4").rounded_while(layer.parameters()):
        layer(inputs).square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layer.named_parameters())
    weight = NumberFormat("int4").rounded(before["weight"])
    assert not torch.equal(weight, before["weight"])
    output = inputs.double() @ weight.double().T + before["bias"].half().double()
    torch.testing.assert_close(layer.weight.grad.double(), 2 * output.T @ inputs.double(), rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError), NumberFormat("int4").rounded_while(layer.parameters()):
        raise RuntimeError
    assert torch.equal(layer.weight, before["weight"])


@pytest.mark.parametrize("storage", ["int8", "int6", "int4"])
def test_integers_are_trained_with_measured_and_stored(tmp_path: Path, storage: str) -> None:
    engine, result = fit(tmp_path, storage)
    bits, file = int(storage[3:]), tmp_path / storage / "model.nern"
    assert file.stat().st_size == result.bytes.total
    parameters = dict(engine.representation.named_parameters())
    for section, size in (("predictor", result.bytes.predictor), ("embedding", result.bytes.embedding)):
        own = [value for name, value in parameters.items() if name.startswith(section)]
        expected = sum(-(-value.numel() * bits // 8) + 4 * len(value) if value.dim() == 2 else 2 * value.numel() for value in own)
        assert size == expected
    loaded = nern.load(file)
    assert loaded.representation.storage.name == storage
    assert all(torch.equal(value, parameters[name]) for name, value in loaded.representation.named_parameters())
    rebuilt = loaded.reconstruct()
    assert all(torch.equal(a, b) for a, b in zip(rebuilt.parameters(), engine.reconstruct().parameters(), strict=True))
    assert Engine.from_run(tmp_path / storage).evaluate().reconstructed_top1 == result.reconstructed_top1
    loaded.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == file.read_bytes()


def test_losses_and_held_out_figures_are_those_of_the_file(tmp_path: Path) -> None:
    """A step with no learning rate to speak of: what is logged is what the file's own numbers give."""
    settings = {key: value for key, value in SETTINGS.items() if not key.startswith("phases")}
    settings |= {"storage": "int4", "precision": "float32", "output": str(tmp_path / "run"), "log_every": 1}
    settings |= {"phases.distillation": None, "phases.0.iterations": 1, "phases.0.optimizer.lr": 1e-30, "phases.0.sampler.name": "all"}
    engine = Engine.from_yaml("digits", settings)
    result = engine.fit()
    networks = engine.original(), nern.load(result.artifact).reconstruct()
    original, rebuilt = (network.state_dict() for network in networks)
    names = [layer.parameter for layer in engine.representation.grid.layers]
    errors = torch.cat([(original[name] - rebuilt[name]).double().reshape(-1) for name in names])
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["losses"]["reconstruction"] for line in logged if "losses" in line)
    assert loss == pytest.approx(float(errors.square().mean()), rel=1e-4)
    images = torch.cat([images for images, _ in engine.data.batches("heldout", 100, torch.device("cpu"))])
    with torch.no_grad():
        p, q = (network(images).double().log_softmax(1) for network in networks)
    heldout = next(line["heldout"] for line in logged if "heldout" in line)
    assert heldout["kl"] == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_floats_are_not_trained_with(storage: str) -> None:
    layer = torch.nn.Linear(5, 4)
    before = layer.weight.detach().clone()
    with NumberFormat(storage).rounded_while(layer.parameters()):
        assert torch.equal(layer.weight, before)


def test_a_run_with_integers_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = fit(tmp_path, "int6")[1]
    changes = {**SETTINGS, "storage": "int6", "output": str(tmp_path / "parts"), "checkpoint_every": 3}
    Engine.from_yaml("digits", {**changes, "phases.1.iterations": 1}).fit()
    Engine.from_yaml("digits", changes).fit(resume=True)
    assert load_file(str(tmp_path / "parts" / "model.nern")).keys() == load_file(whole.artifact).keys()
    for name, value in load_file(str(tmp_path / "parts" / "model.nern")).items():
        assert torch.equal(value, load_file(whole.artifact)[name])


@pytest.mark.parametrize("storage", ["int8", "int5"])
def test_a_pruned_predictor_of_integers_stores_a_bit_for_zeros(tmp_path: Path, storage: str) -> None:
    fit(tmp_path, storage)
    run(["prune", str(tmp_path / storage), "--ratios", "0,0.6", "--finetune", "2", "-o", str(tmp_path / "pruned")])
    file = tmp_path / "pruned" / "pruned-0.60.nern"
    tensors, pruned = load_file(str(file)), nern.load(file)
    matrices = [value for value in pruned.representation.predictor.parameters() if value.dim() == 2]
    zeros, count = sum(int((value == 0).sum()) for value in matrices), sum(value.numel() for value in matrices)
    assert zeros >= int(0.6 * count)
    assert tensors["predictor.(mask)"].numel() == -(-count // 8)
    assert tensors["predictor.(values)"].numel() == -(-(count - zeros) * int(storage[3:]) // 8)
    assert pruned.bytes().total == file.stat().st_size < (tmp_path / "pruned" / "pruned-0.00.nern").stat().st_size
    pruned.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["float32", "float16", *INTEGERS])
def test_zeros_of_any_parameter_come_back(name: str) -> None:
    """A vector with many zeros beside matrices with none, few and many; a buffer of small integers; an empty matrix."""
    torch.manual_seed(0)
    state = {"predictor.dense": torch.randn(64, 40), "predictor.bias": torch.randn(3000), "predictor.few": torch.randn(64, 40)}
    state |= {
        "predictor.many": torch.randn(64, 40),
        "predictor.none": torch.randn(4, 0),
        "predictor.steps": torch.ones(16, dtype=torch.int8),
    }
    numbers = [name for name in state if name != "predictor.steps"]
    state["predictor.bias"][:2500] = 0
    state["predictor.few"][:, :6] = 0
    state["predictor.many"][:, :30] = 0
    NumberFormat(name).round((number, state[number]) for number in numbers)
    stored, sparse = encode(state, numbers, NumberFormat(name))
    assert "predictor.many" in sparse
    decoded = decode(stored, numbers, NumberFormat(name), sparse, state)
    assert decoded.keys() == state.keys()
    assert all(torch.equal(decoded[key].to(state[key].dtype), state[key]) for key in state)


def test_steps_that_do_not_fit_are_refused() -> None:
    state = {"predictor.weight": torch.randn(4, 3), "predictor.bias": torch.randn(4)}
    for name in ("int8", "int5"):
        stored, sparse = encode(state, list(state), NumberFormat(name))
        for steps in (stored["predictor.(steps)"][:-1], stored["predictor.(steps)"].repeat(2)):
            with pytest.raises(ValueError, match=rf"predictor\.\(steps\) holds {len(steps)} steps, the rows are 4"):
                decode({**stored, "predictor.(steps)": steps}, list(state), NumberFormat(name), sparse, state)


def test_a_run_whose_numbers_are_too_large_goes_on_with_another_type(tmp_path: Path) -> None:
    changes = {**SETTINGS, "output": str(tmp_path / "run"), "phases.1.optimizer": {"name": "sgd", "lr": 1e8, "schedule": "constant"}}
    changes |= {"phases.1.losses": {"reconstruction": {}}, "phases.1.iterations": 1, "phases.1.sampler.name": "all"}
    with pytest.raises(TrainingError, match="is too large for float16; resume with storage=bfloat16 or float32"):
        Engine.from_yaml("digits", {**changes, "storage": "float16"}).fit()
    result = Engine.from_yaml("digits", {**changes, "storage": "bfloat16"}).fit(resume=True)
    assert result.iterations == 6
    assert nern.load(result.artifact).representation.storage.name == "bfloat16"
    with pytest.raises(ConfigError, match="was started with another storage; resume it as it was"):
        Engine.from_yaml("digits", {**changes, "storage": "int8"}).fit(resume=True)
