"""Networks that take several inputs, as a tuple or by name, or one that is no image: represented, resumed, measured, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import nern
from nern.builtin.architectures.module import OwnModule
from nern.errors import DataError, OptionError
from nern.toolkit.given import inputs_and_targets
from tests.own.test_represent import represent


class Captioned(nn.Module):
    """An image [1, 8, 8] and six tokens to three classes; what `scale` multiplies is one by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.table, self.head = nn.Conv2d(1, 6, 3), nn.Embedding(9, 6), nn.Linear(6, 3)

    def forward(self, image: Tensor, tokens: Tensor, scale: Tensor | None = None) -> Tensor:
        mixed = self.stem(image).relu().mean((2, 3)) + self.table(tokens).mean(1)
        logits: Tensor = self.head(mixed if scale is None else mixed * scale)
        return logits


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(tokens).mean(1))
        return logits


def parts(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(count, 1, 8, 8), torch.randint(9, (count, 6)), torch.randint(3, (count,))


def items(make: Callable[..., Any]) -> Any:
    return [make(image, tokens, int(label)) for image, tokens, label in zip(*parts(), strict=True)]


def in_memory() -> Any:
    image, tokens, labels = parts()
    return (image, tokens), labels


FORMS: dict[str, Callable[[], Any]] = {
    "tuple in memory": in_memory,
    "names in memory": lambda: dict(zip(("image", "tokens", "label"), parts(), strict=True)),
    "tuples in a loader": lambda: DataLoader(items(lambda image, tokens, label: ((image, tokens), label)), batch_size=7),
    "names in a loader": lambda: DataLoader(items(lambda image, tokens, label: {"image": image, "tokens": tokens, "labels": label})),
    "names and labels": lambda: DataLoader(items(lambda image, tokens, label: ({"tokens": tokens, "image": image}, label)), batch_size=7),
    "batches": lambda: [((image[None], tokens[None]), label[None]) for image, tokens, label in zip(*parts(), strict=True)],
}


@pytest.mark.parametrize("form", FORMS)
def test_several_inputs_of_every_form(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, test = Captioned().eval(), in_memory()
    if "name" in form:
        test = {"image": test[0][0], "tokens": test[0][1]}, test[1]
    result = represent(model, FORMS[form](), tmp_path, test=test)
    image, tokens, labels = parts()
    for network, reported in ((model, result.original_top1), (nern.load(result.artifact, into=Captioned()), result.reconstructed_top1)):
        right = network(image, tokens).argmax(1) == labels
        assert reported == pytest.approx(100 * float(right.double().mean()))
    assert set(nern.load(result.artifact).state_dict()) == set(model.state_dict())


@pytest.mark.parametrize("names", [False, True], ids=["in order", "by name"])
def test_a_run_with_several_inputs_is_measured_and_exported_from_its_folder(names: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    image, tokens, labels = parts()
    data: Any = {"image": image, "tokens": tokens, "label": labels} if names else ((image, tokens), labels)
    result = represent(Captioned(), data, tmp_path)
    engine = nern.Engine.from_run(result.run_dir)
    assert engine.evaluate().reconstructed_top1 == result.reconstructed_top1
    nern.export(engine.artifact, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    expected = engine.reconstruct()(image, tokens)
    torch.testing.assert_close(program(image=image, tokens=tokens) if names else program(image, tokens), expected)
    runtime = pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "nern[export]"')
    pytest.importorskip("onnxscript", reason='needs onnxscript: pip install "nern[export]"')
    nern.export(engine.artifact, tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    given = dict(zip([value.name for value in session.get_inputs()], (image.numpy(), tokens.numpy()), strict=True))
    assert set(given) == ({"image", "tokens"} if names else {"inputs0", "inputs1"})
    torch.testing.assert_close(torch.from_numpy(session.run(None, given)[0]), expected.detach(), rtol=1e-4, atol=1e-5)


def test_one_input_that_is_no_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, tokens, labels = parts()
    result = represent(Tokens(), (tokens, labels), tmp_path)
    engine = nern.Engine.from_run(result.run_dir)
    assert engine.experiment.architecture.inputs == {"0": [6, "int64"]}  # type: ignore[attr-defined]
    assert engine.evaluate().original_top1 == result.original_top1


def test_what_is_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be called image, .*, or as the network's argument \(picture, words\)"):
        inputs_and_targets({"sound": torch.zeros(2)}, ["picture", "words"])
    image, tokens, labels = parts()
    with pytest.raises(DataError, match=r"the network cannot take the data: inputs \[2, 6\], \[2, 1, 8, 8\]"):
        represent(Captioned(), ((tokens, image), labels), tmp_path)
    for wrong, message in (({"a": [0]}, "lengths above 0"), ({"a": [2, "int65"]}, "a type of torch"), ({"1": [2]}, "positions from 0 on")):
        with pytest.raises(OptionError, match=message):
            OwnModule(inputs=wrong)  # type: ignore[arg-type]
