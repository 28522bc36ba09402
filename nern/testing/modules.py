"""Checks of torch modules that components build."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nern.support.files import write_tensors
from nern.support.seeding import generator, seeded
from nern.testing.assertions import close, expect


def build_seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a module under the seed of the checks."""
    with seeded(0, "nern.testing"):
        module = build()
    expect(isinstance(module, nn.Module), f"build() must return a torch module, returned {type(module).__name__}")
    return module


def check_gradients(module: nn.Module, outputs: Tensor, what: str) -> None:
    """Check that every trained parameter gets a finite gradient from the outputs."""
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    if not trained:
        return
    factors = torch.randn(outputs.shape, generator=generator(0, "factors"))
    (outputs * factors).sum().backward()  # type: ignore[no-untyped-call]
    for name, value in trained:
        expect(value.grad is not None, f"no gradient reaches parameter '{name}' of the {what}")
        expect(bool(cast(Tensor, value.grad).isfinite().all()), f"the gradient of parameter '{name}' of the {what} is not finite")
    module.zero_grad(set_to_none=True)


def check_state(module: nn.Module, build: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor], what: str) -> None:
    """Check that a module built under another seed gives the same outputs after loading the state dict."""
    with seeded(1, "nern.testing"):
        fresh = build()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.01 * torch.randn(value.shape, generator=generator(0, "trained")))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "module.safetensors"
            write_tensors(path, module.state_dict())
            try:
                fresh.load_state_dict(load_file(str(path)))
            except RuntimeError as error:
                raise AssertionError(f"the {what}'s state dict does not load into a fresh one: {' '.join(str(error).split())}") from error
        same = torch.equal(run(module), run(fresh))
    expect(same, f"the {what} has state that is not in its state dict: a loaded one gives other outputs")


def check_moves(module: nn.Module, run: Callable[[nn.Module], Tensor], what: str) -> None:
    """Check that all tensors of the module move to another device with it, and, where there is a GPU, that results there are the same.

    Args:
        run: function that applies a module to inputs on the module's device.
    """
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute not in ("_parameters", "_buffers", "_modules") and any(isinstance(item, Tensor) for item in _flat(value)):
                place = f"{name}.{attribute}" if name else attribute
                raise AssertionError(f"tensor '{place}' of the {what} is neither parameter nor buffer: it stays behind on a device move")
    module.eval()
    with torch.no_grad():
        try:
            run(copy.deepcopy(module).to("meta"))
        except (RuntimeError, NotImplementedError) as error:  # some operations need values, which tensors on the meta device do not have
            mixed = re.search(r"same device|expected device|on device", str(error))
            expect(not mixed, f"the {what} mixes devices after a move: {' '.join(str(error).split())}")
        if torch.cuda.is_available():
            before = run(module)
            moved = run(copy.deepcopy(module).to("cuda"))
            expect(moved.device.type == "cuda", f"the {what} on the GPU gives outputs on the {moved.device}")
            close(moved.cpu(), before, f"the {what} gives other outputs on the GPU", 1e-2)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters and buffers."""
    for value in [*module.parameters(), *module.buffers()]:
        return value.device
    return torch.device("cpu")
