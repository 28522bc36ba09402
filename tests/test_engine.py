"""One run of one experiment, through the Python interface."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import nern
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.tasks.digits import Digits
from nern.config.loading import load_experiment
from nern.engine import Engine
from nern.errors import ConfigError, Interrupted
from nern.interfaces import Data, Preprocessing
from nern.registry.discovery import create_registry
from tests.helpers import DISTILLATION, RECONSTRUCTION, network, same, trained, weights_file, write_experiment

QUICK = {"phases.0.iterations": 3, "phases.1.iterations": 3}


def test_a_user_trains_evaluates_saves_and_loads(tmp_path: Path) -> None:
    engine = Engine.from_yaml(write_experiment(tmp_path), {**QUICK, "evaluate_every": 2})
    with pytest.raises(ConfigError, match=r"there is no representation in .* yet"):
        engine.evaluate()
    result = engine.fit()
    measured = engine.evaluate()
    assert (measured.original_top1, measured.reconstructed_top1) == (result.original_top1, result.reconstructed_top1)
    engine.save(tmp_path / "mine.nern")
    assert (tmp_path / "mine.nern").read_bytes() == (tmp_path / "run" / "model.nern").read_bytes()
    rebuilt = nern.load(tmp_path / "mine.nern").reconstruct()
    assert same(rebuilt.state_dict(), engine.reconstruct().state_dict())
    assert list(rebuilt.state_dict()) == list(network().state_dict())


def test_accuracy_is_what_counting_by_hand_gives(tmp_path: Path) -> None:
    engine = Engine.from_yaml(write_experiment(tmp_path), QUICK)
    result = engine.fit()
    data = Digits().open(Preprocessing((0.3,), (0.4,), (1, 8, 8)), 0.1, 0)
    for net, top1 in ((network(), result.original_top1), (engine.reconstruct(), result.reconstructed_top1)):
        right = total = 0
        for images, labels in data.batches("test", 100, torch.device("cpu")):
            assert labels is not None
            with torch.no_grad():
                right += int((net(images).argmax(1) == labels).sum())
            total += len(labels)
        assert total == 397
        assert top1 == pytest.approx(100 * right / total)


def test_the_same_configuration_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    for name in ("a", "b", "c"):
        Engine.from_yaml(path, {**QUICK, "output": str(tmp_path / name), "seed": 1 if name == "c" else 0}).fit()
    assert (tmp_path / "a" / "model.nern").read_bytes() == (tmp_path / "b" / "model.nern").read_bytes()
    assert not same(trained(tmp_path / "a"), trained(tmp_path / "c"))


def test_torchs_own_random_state_does_not_matter_and_is_left_alone(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    for number, name in enumerate(("a", "b")):
        torch.manual_seed(number)
        Engine.from_yaml(path, {**QUICK, "output": str(tmp_path / name)}).fit()
        following = torch.rand(1)
        torch.manual_seed(number)
        assert torch.equal(following, torch.rand(1))
    assert same(trained(tmp_path / "a"), trained(tmp_path / "b"))


def test_half_precision_originals_come_back_in_half_precision(tmp_path: Path) -> None:
    half = weights_file(tmp_path / "half.safetensors", dtype=torch.float16)
    engine = Engine.from_yaml(write_experiment(tmp_path), {**QUICK, "architecture.weights": str(half)})
    result = engine.fit()
    original, state = load_file(str(half)), nern.load(tmp_path / "run" / "model.nern").reconstruct().state_dict()
    assert {name: (value.dtype, value.shape) for name, value in original.items()} == {n: (v.dtype, v.shape) for n, v in state.items()}
    assert torch.equal(original["bn1.weight"], state["bn1.weight"])
    assert result.bytes.original == half.stat().st_size


# -- held-out and test images ----------------------------------------------------------------------------------------


def rows(images: Iterable[Tensor]) -> set[bytes]:
    """Images as comparable things."""
    return {image.numpy().tobytes() for batch in images for image in batch}


@pytest.mark.parametrize("seed", [0, 7])
def test_held_out_images_are_never_trained_on_nor_tested_on(seed: int) -> None:
    data = Digits().open(Preprocessing((0.3,), (0.4,), (1, 8, 8)), 0.1, seed)
    cpu = torch.device("cpu")
    inputs = data.inputs(63, 5, cpu)
    seen = rows(inputs(step) for step in range(40))  # two epochs of 1,260 images
    heldout, test = (rows(images for images, _ in data.batches(split, 50, cpu)) for split in ("heldout", "test"))
    assert (len(seen), len(heldout), len(test)) == (1260, 140, 397)
    assert not seen & heldout
    assert not heldout & test
    assert not seen & test


@attrs.define
class Watched(Data):
    """Digits that write down which splits are asked for, and how many steps were trained by then."""

    data: Data
    asked: list[tuple[str, int]]
    steps: list[int]

    @property
    def classes(self) -> int | None:  # type: ignore[override]
        return self.data.classes

    @property
    def splits(self) -> frozenset[str]:  # type: ignore[override]
        return self.data.splits

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        draw = self.data.inputs(batch, seed, device)

        def inputs(step: int) -> Tensor:
            self.steps.append(step)
            return draw(step)

        return inputs

    def batches(self, split: Any, batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        self.asked.append((split, len(self.steps)))
        return self.data.batches(split, batch, device)


def test_the_trained_network_meets_the_test_set_only_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    open_digits = Digits.open

    def watched(self: Digits, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        return Watched(open_digits(self, preprocessing, heldout, seed), asked, [])

    monkeypatch.setattr(Digits, "open", watched)
    phase = {**DISTILLATION, "iterations": 6}
    result = Engine.from_yaml(write_experiment(tmp_path, phases=[phase], evaluate_every=2)).fit()
    splits = [split for split, _ in asked]
    assert asked[:2] == [("heldout", 0), ("test", 0)]  # the original, before the first step
    assert set(splits[2:4]) == {"heldout"}
    first_test = splits.index("test", 2)
    assert set(splits[2:first_test]) == {"heldout"}
    assert set(splits[first_test:]) == {"test"}
    assert all(steps == 6 for split, steps in asked[2:] if split == "test")
    assert splits[2:].count("test") <= 2  # the final and the chosen network, once each
    assert [line["heldout"] for line in metrics(tmp_path / "run") if "heldout" in line]
    assert result.checkpoints["final"]["iteration"] == 6


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_result_says_which_checkpoint_is_which(tmp_path: Path) -> None:
    """The chosen one is the closest to the original's predictions on the held-out images, and it is the one in the artifact."""
    optimizer = {"name": "adamw", "lr": 0.05, "schedule": "constant"}  # so large that steps go astray
    path = write_experiment(tmp_path, phases=[{**DISTILLATION, "iterations": 8, "losses": {"kd": {}}, "optimizer": optimizer}])
    result = Engine.from_yaml(path, {"evaluate_every": 1, "seed": 2, "precision": "float32"}).fit().to_dict()
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result))
    measured = [(line["iteration"], line["heldout"]) for line in metrics(tmp_path / "run") if "heldout" in line]
    assert [iteration for iteration, _ in measured] == list(range(1, 9))
    chosen = max(measured, key=lambda item: (-item[1]["kl"], item[1]["agreement"], item[0]))[0]
    others = [max(measured, key=lambda item, name=name: (item[1][name], -item[1]["kl"]))[0] for name in ("top1", "agreement")]
    assert len({chosen, *others, 8}) == 4  # choosing by accuracy, by agreement or the last one would be another choice
    assert result["checkpoints"]["chosen"]["iteration"] == chosen
    assert result["checkpoints"]["chosen"]["heldout"] == dict(measured)[chosen]
    assert result["checkpoints"]["final"]["iteration"] == 8
    assert result["checkpoints"]["final"]["heldout"] == dict(measured)[8]
    assert result["reconstructed_top1"] == result["checkpoints"]["chosen"]["test"]["top1"]
    assert Engine.from_run(tmp_path / "run").evaluate().reconstructed_top1 == result["reconstructed_top1"]


def test_nothing_held_out_means_the_final_checkpoint(tmp_path: Path) -> None:
    result = Engine.from_yaml(write_experiment(tmp_path), {**QUICK, "heldout": 0.0}).fit()
    assert result.checkpoints["chosen"]["iteration"] == result.checkpoints["final"]["iteration"] == 6
    assert not [line for line in metrics(tmp_path / "run") if "heldout" in line]


def test_noise_needs_no_images_at_all(tmp_path: Path) -> None:
    values = {"task.name": "uniform-noise", **QUICK}
    result = Engine.from_yaml(write_experiment(tmp_path), values).fit()
    assert result.original_top1 is None
    assert result.reconstructed_top1 is None
    assert 0 <= result.checkpoints["chosen"]["heldout"]["agreement"] <= 100


# -- phases ----------------------------------------------------------------------------------------------------------


def test_no_network_runs_where_no_loss_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nern.networks.pair import NetworkPair
    from nern.representation.representation import Representation

    ran: list[str] = []
    predicted: list[int] = []
    for name in ("original", "reconstructed"):
        run = getattr(NetworkPair, name)

        def counted(self: Any, *arguments: Any, run: Any = run, name: str = name) -> Any:
            if len(arguments[0]) == DISTILLATION["batch"]:  # before the first step, two images try out what is fast
                ran.append(name)
            return run(self, *arguments)

        monkeypatch.setattr(NetworkPair, name, counted)
    predict = Representation.predict

    def watched(self: Representation, chosen: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled():
            predicted.append(-1 if chosen is None else len(chosen))
        return predict(self, chosen)

    monkeypatch.setattr(Representation, "predict", watched)
    phase = {**RECONSTRUCTION, "iterations": 4}
    Engine.from_yaml(write_experiment(tmp_path, phases=[phase])).fit()
    assert ran == []
    assert predicted == [4, 7] + [100] * 4  # some kernels are tried before the first step; a step takes the sampled ones alone
    phase = {**DISTILLATION, "iterations": 2}
    Engine.from_yaml(write_experiment(tmp_path, phases=[phase]), {"output": str(tmp_path / "other")}).fit()
    assert ran.count("original") == ran.count("reconstructed") == 2


def test_each_phase_is_named_in_the_metrics_and_its_rate_follows_its_own_schedule(tmp_path: Path) -> None:
    Engine.from_yaml(write_experiment(tmp_path)).fit()
    steps = [line for line in metrics(tmp_path / "run") if "losses" in line]
    assert [line["iteration"] for line in steps] == list(range(1, 25))
    assert [line["phase"] for line in steps] == ["reconstruction"] * 12 + ["distillation"] * 12
    assert set(steps[0]["losses"]) == {"reconstruction", "total"}
    assert set(steps[12]["losses"]) == {"reconstruction", "kd", "fmd", "total"}
    for start, rate in ((0, 1e-2), (12, 1e-3)):
        assert steps[start]["lr"] == pytest.approx(rate)
        assert steps[start + 6]["lr"] == pytest.approx(rate / 2)  # half way down a cosine to zero
    last = steps[-1]["losses"]
    assert last["total"] == pytest.approx(last["reconstruction"] + last["kd"] + 0.1 * last["fmd"], rel=1e-5)


# -- interruption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["ranger", "muon", "adamw", "sgd"])
def test_a_run_that_is_interrupted_twice_ends_with_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    phase = {**DISTILLATION, "optimizer": {"name": optimizer}}
    path = write_experiment(tmp_path, phases=[RECONSTRUCTION, phase], evaluate_every=3, checkpoint_every=0)

    class StopAt:
        """Ends the run from inside, at a step."""

        def __init__(self, step: int) -> None:
            self.step = step

        @nern.hookimpl
        def nern_checkpoint_saved(self, iteration: int) -> None:
            if iteration == self.step:
                raise Interrupted(f"at {iteration}")

    for step, every in ((7, 7), (19, 19)):
        loaded, registry = load_experiment(path, {"checkpoint_every": every}, create_registry(entry_points=False))
        registry.register(StopAt(step), "stop")
        with pytest.raises(Interrupted):
            Engine(loaded, registry).fit(resume=step > 7)
    interrupted = Engine.from_yaml(path).fit(resume=True)
    whole = Engine.from_yaml(path, {"output": str(tmp_path / "whole")}).fit()
    assert same(trained(tmp_path / "run"), trained(tmp_path / "whole"))
    assert interrupted.checkpoints == whole.checkpoints
    assert [line.get("losses") for line in metrics(tmp_path / "run")] == [line.get("losses") for line in metrics(tmp_path / "whole")]


def test_resuming_refuses_other_original_weights(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    Engine.from_yaml(path, QUICK).fit()
    other = weights_file(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(ConfigError, match="was started with other original weights"):
        Engine.from_yaml(path, {**QUICK, "architecture.weights": str(other)}).fit(resume=True)
    moved = (tmp_path / "original.safetensors").rename(tmp_path / "moved.safetensors")
    Engine.from_yaml(path, {**QUICK, "architecture.weights": str(moved)}).fit(resume=True)


def test_a_run_from_before_an_option_existed_goes_on_with_its_default(tmp_path: Path) -> None:
    path, config = write_experiment(tmp_path), tmp_path / "run" / "config.yaml"
    Engine.from_yaml(path, QUICK).fit()
    lines = config.read_text().splitlines()
    older = [line for line in lines if line.split(":")[0].strip() not in ("scale_layers", "balance", "cuda_graphs")]
    assert len(lines) - len(older) >= 3
    config.write_text("\n".join(older) + "\n")
    Engine.from_yaml(path, QUICK).fit(resume=True)
    config.write_text("\n".join(older) + "\n")
    with pytest.raises(ConfigError, match="was started with another scale_layers; resume it as it was"):
        Engine.from_yaml(path, {**QUICK, "scale_layers": True}).fit(resume=True)


def test_a_run_without_weights_trains_the_original_network(tmp_path: Path) -> None:
    overrides = {**QUICK, "architecture.weights": None, "pretrain.epochs": 2, "pretrain.lr": 0.05}
    engine = Engine.from_yaml(write_experiment(tmp_path), overrides)
    result = engine.fit()
    assert result.original_top1 is not None
    assert result.original_top1 > 20  # chance is 10 %
    assert (tmp_path / "run" / "original.safetensors").is_file()
    again = Engine.from_run(tmp_path / "run").evaluate()
    assert (again.original_top1, again.reconstructed_top1) == (result.original_top1, result.reconstructed_top1)


# -- a real network --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_resnet20_on_real_images(tmp_path: Path, resnet20_weights: Path, small_cifar10: Path) -> None:
    """A real network and real images through every part: its own accuracy, a finished run, a file that stands for it."""
    overrides = {
        "architecture.weights": str(resnet20_weights), "task.root": str(small_cifar10), "output": str(tmp_path / "run"),
        "phases.0.iterations": 10, "phases.1.iterations": 2, "phases.1.batch": 16, "device": "cpu",
    }  # fmt: skip
    result = Engine.from_yaml("resnet20-cifar10-fast", overrides).fit()
    assert result.original_top1 is not None
    assert result.original_top1 > 85  # 91.7 % on all 10,000 test images; here are 200 of them
    assert result.smoothness["after"] < result.smoothness["before"]
    state = nern.load(result.artifact).reconstruct().state_dict()
    assert list(state) == list(CifarResNet(depth=20).build().state_dict())
    assert result.bytes.total == Path(result.artifact).stat().st_size
