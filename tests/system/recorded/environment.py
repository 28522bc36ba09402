"""Where runs were recorded: elsewhere, the same code may give other bits."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import numpy as np
import torch

from tests.system.recorded.digests import digest


def environment() -> dict[str, Any]:
    """What the bits of a run depend on besides the code of nern."""
    packages = ("torch", "torchvision", "timm", "torch-optimizer", "numpy", "scipy", "scikit-learn", "safetensors", "pillow")
    return {
        **{name: importlib.metadata.version(name) for name in packages},
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "arithmetic": _arithmetic(),
    }


def _arithmetic() -> str:
    """A hash of products and convolutions with their gradients, without nern: processors of one name may still differ."""
    source = np.random.RandomState(2)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        for rows, inner, columns in ((500, 24, 8), (500, 8, 9), (17, 64, 64)):
            a, b = (torch.from_numpy(source.random_sample(shape)).to(dtype).requires_grad_() for shape in ((rows, inner), (inner, columns)))
            product = torch.nn.functional.gelu(a @ b)
            results += [product, *torch.autograd.grad(product.float().square().mean().sqrt(), (a, b))]
        for channels, side in ((1, 8), (4, 8), (16, 2)):
            x = torch.from_numpy(source.random_sample((16, channels, side, side))).to(dtype, memory_format=torch.channels_last)
            w = torch.from_numpy(source.random_sample((8, channels, 3, 3))).to(dtype).requires_grad_()
            maps = torch.nn.functional.conv2d(x, w, padding=1)
            results += [maps, *torch.autograd.grad(maps.float().log_softmax(1).mean(), w)]
    return digest(results)
