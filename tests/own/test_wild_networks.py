"""Networks as people write them: other number types, state that forward passes change, outputs of other forms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

import nern
from nern.errors import ConfigError
from tests.helpers import same
from tests.own.test_represent import images, represent


class Net(nn.Module):
    """A convolution and a classifier; `form` says what is unusual about it."""

    def __init__(self, form: str = "") -> None:
        super().__init__()
        self.form = form
        self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        if self.form == "counts":
            self.calls += 1
        logits = self.head(self.conv(x).relu().mean((2, 3)))
        forms = {
            "loss inside": lambda: (logits, [logits.square().mean()]),
            "loss first": lambda: {"loss": logits.square().mean(), "logits": logits},
            "anchors": lambda: {"boxes": logits, "anchors": torch.ones(7, 4)},
            "first alone": lambda: logits[0],
        }
        return forms.get(self.form, lambda: logits)()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_in_other_types_are_represented_in_float32_and_stored_in_their_own(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net().to(dtype)
    nn.init.normal_(model.head.bias)  # in float64, numbers that float32 cannot hold
    result = represent(model, images(), tmp_path)
    state = nern.load(result.artifact).state_dict()
    assert {value.dtype for value in state.values()} == {dtype}
    assert torch.equal(state["head.bias"], model.head.bias)


def test_a_network_that_counts_its_calls_is_left_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net("counts")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = represent(model, images(), tmp_path)
    assert same(model.state_dict(), before)
    assert nern.load(result.artifact).state_dict()["calls"] == 0


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("loss inside", r"a tuple of 2; each tensor in it must have one entry for each example, and these have the shapes \[2, 4\], \[\];"),
        ("loss first", r"a dictionary with loss, logits; .* shapes \[\], \[2, 4\]; let forward return only what belongs to the examples"),
        ("anchors", r"a dictionary with boxes, anchors; .* shapes \[2, 4\], \[7, 4\]"),
        ("first alone", r"the network gives a tensor of shape \[4\] for 2 examples; its outputs must have one entry for each example"),
    ],
)
def test_outputs_that_do_not_belong_to_examples_are_refused_before_training(form: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        represent(Net(form), images()[0], tmp_path)


def test_a_network_that_is_compiled_is_represented_like_the_one_inside(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    result = represent(torch.compile(model, backend="eager"), images(), tmp_path)
    state = nern.load(result.artifact).state_dict()
    assert set(state) == set(model.state_dict()) and torch.equal(state["head.bias"], model.head.bias)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten()), "model has no values for '0.weight' yet, which its first forward pass makes"),
        (Net().to("meta"), "model has no values for 'conv.weight', which stands on the meta device; load its weights first"),
    ],
)
def test_a_network_without_values_is_refused(model: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        represent(model, images()[0], tmp_path)
    assert is_lazy(next(model.parameters())) or next(model.parameters()).is_meta


def test_inputs_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture\.size: inputs of 1 × 99999999 × 99999999 do not fit into memory"):
        represent(Net(), None, tmp_path, size=(1, 99999999, 99999999))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model is TorchScript, in which no weight can be replaced; give the"):
        represent(torch.jit.trace(Net().eval(), images()[0][:2]), images(), tmp_path)
