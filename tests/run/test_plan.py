"""A plan answers soon, whatever the network: what takes long is tried on a part, and said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nern
from nern.run import plan as planning
from nern.run.own_network import OwnNetwork
from nern.run.plan import TimedData
from nern.run.step_time import _extrapolated
from tests.own.test_represent import SHORT, cnn, images


class Counting(nn.Module):
    """Keeps how many images it was given each time, in all of its copies."""

    seen: list[int] = []  # noqa: RUF012 (shared on purpose)

    def __init__(self) -> None:
        super().__init__()
        self.body = cnn()

    def forward(self, x: Tensor) -> Any:
        Counting.seen.append(len(x))
        return self.body(x)


def planned(tmp_path: Path, **overrides: Any) -> planning.Plan:
    Counting.seen.clear()
    torch.manual_seed(0)
    engine = nern.Engine.from_model(Counting(), None, {**SHORT, **overrides}, size=(1, 8, 8), output=tmp_path / "run")
    return engine.plan()


def test_steps_that_would_take_too_long_are_never_tried_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = planned(tmp_path, **{"phases.distillation.batch": 96})
    assert max(Counting.seen) == 96
    assert (list(whole.phases), whole.extrapolated) == (["reconstruction", "distillation"], [])
    monkeypatch.setattr(planning, "TRIAL_SECONDS", 0.0)
    parts = planned(tmp_path, **{"phases.distillation.batch": 96})
    assert max(Counting.seen) == 8
    assert parts.seconds == pytest.approx(sum(parts.phases.values()))
    (said,) = parts.extrapolated
    assert "as far as can be told from predicting " in said
    assert said.endswith("and running the networks on 2 and 8 images in place of 96")
    assert said in str(parts)
    monkeypatch.setattr("nern.run.step_time._seconds_of_all_kernels", lambda *_, **__: 0.0)
    few = planned(tmp_path, **{"phases.distillation.batch": 96})
    assert max(Counting.seen) == 8
    assert few.extrapolated[0].endswith("as far as can be told from steps on 2 and 8 images in place of 96")


@pytest.mark.parametrize("sampler", [{"name": "uniform", "batch": 8}, {"name": "all"}], ids=lambda options: options["name"])
def test_a_step_has_parts_for_every_sampler(sampler: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "TRIAL_SECONDS", 0.0)
    assert planned(tmp_path, **{"phases.distillation.sampler": sampler}).phases["distillation"] > 0


def test_a_plan_of_coded_integers_says_about_how_large_they_are(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.Flatten(), nn.Linear(1024, 64))
    short = {"phases.distillation.iterations": 2, "phases.distillation.batch": 8, "observers": {}}

    def total(**overrides: Any) -> int:
        engine = nern.Engine.from_model(model, images(), {**short, **overrides}, recipe="small", output=tmp_path / "run")
        return engine.plan().bytes.total

    weights = sum(value.numel() for value in model.state_dict().values())
    assert 1.2 * weights / 8 < total() < 4 * weights / 8  # the recipe's 1.5 bits a weight, and what stands beside them
    for asked in (20_000, 30_000):
        assert total(bytes=asked) == pytest.approx(asked, rel=0.15)
    for copied in ("float16", "int8"):  # the classifier is trained along and coded, however the rest is copied
        assert total(bytes=20_000, copied=copied, **{"architecture.layers": "convolutions"}) == pytest.approx(20_000, rel=0.15)


def test_a_plan_counts_the_time_in_which_the_curvature_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "step_time", lambda *_: (1.0, ""))
    steps = 2  # of a second each
    for batches, seconds in ((0, 0), (100, 100 * 64 / 128)):
        own = OwnNetwork(cnn(), images(), recipe="small", steps=0.001)
        experiment, registry = own.experiment({"curvature_batches": batches}, output=tmp_path / "run")
        plan = nern.Engine(experiment, registry).plan()
        assert plan.seconds == pytest.approx(steps + seconds)
        assert "ordering" not in str(plan)  # the recipe orders no kernels


def test_a_part_of_the_steps_is_a_part_of_the_curvature_too(tmp_path: Path) -> None:
    for steps, batches in ((1.0, 500), (2.0, 500), (0.1, 50), (1e-5, 2)):
        own = OwnNetwork(cnn(), images(), recipe="small", steps=steps)
        assert own.experiment(output=tmp_path / "run")[0].curvature_batches == batches
    own = OwnNetwork(cnn(), images(), recipe="small", steps=0.1)
    assert own.experiment({"curvature_batches": 7}, output=tmp_path / "run")[0].curvature_batches == 7


def test_without_images_what_matters_is_measured_for_whole_layers(tmp_path: Path) -> None:
    for recipe, data, curvature in (("small", None, "layers"), ("small", images(), "numbers"), ("fast", None, "numbers")):
        own = OwnNetwork(cnn(), data, recipe=recipe, size=(1, 8, 8))
        assert own.experiment(output=tmp_path / "run")[0].curvature == curvature
    own = OwnNetwork(cnn(), recipe="small", size=(1, 8, 8))
    assert own.experiment({"curvature": "numbers"}, output=tmp_path / "run")[0].curvature == "numbers"


def test_times_are_extrapolated_on_a_line_that_never_falls() -> None:
    assert _extrapolated({2: 1.0, 8: 4.0}, 128) == pytest.approx(4 + 0.5 * 120)
    assert _extrapolated({2: 4.0, 8: 3.0}, 128) == 3.0
    assert _extrapolated({8: 3.0}, 128) == 3.0


def test_the_original_is_measured_on_as_many_images_as_there_is_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MEASURED_AT_A_TIME", 3)
    engine = nern.Engine.from_model(cnn(), images(), SHORT, test=images(), output=tmp_path / "run")
    data, device = engine.data, torch.device("cpu")
    timed = TimedData(data, 1e9)
    batches = list(timed.batches("test", 500, device))
    assert [len(inputs) for inputs, _ in batches] == [3] * 13 + [1]
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), images()[0])
    assert timed.whole
    hurried = TimedData(data, -1.0)
    assert len(list(hurried.batches("test", 500, device))) == 1
    assert not hurried.whole
    monkeypatch.setattr(planning, "MEASURING_SECONDS", -1.0)
    assert "original network on the first 3 test examples alone: top1" in str(engine.plan())


def test_a_rough_order_has_the_size_of_the_right_one_and_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_CACHE", str(tmp_path / "cache"))
    engine = nern.Engine.from_model(cnn(), images(), SHORT, output=tmp_path / "run")
    rough = engine.prepared(roughly=True)
    right = engine.prepared()
    assert engine.untrained(rough).bytes() == engine.untrained(right).bytes()
    assert any(not torch.equal(a.indices(), b.indices()) for a, b in zip(rough.orders, right.orders, strict=True))
    kernels = cnn().state_dict()["3.weight"].reshape(48, 9)
    first = right.orders[1].indices()[:2]
    similar = torch.cosine_similarity(kernels[first[0]][None], kernels)
    similar[first[0]] = -2
    assert int(similar.argmax()) == int(first[1])


def test_a_run_of_hours_says_what_makes_it_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "shorter:" not in str(planned(tmp_path))
    monkeypatch.setattr(planning, "LONG", 0.0)
    monkeypatch.setattr(planning, "step_time", lambda experiment, phase, *_: ({"reconstruction": 600.0}.get(phase.name, 7200.0), ""))
    said = str(planned(tmp_path))
    assert "time: about 4.5 hours here, of which 4.0 hours distillation, besides ordering the kernels" in said
    assert "phases.distillation.batch=1 takes fewer images a step" in said
