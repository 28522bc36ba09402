"""Finds layers with which PyTorch crashes, by trying them in a process of their own.

The backward pass of a 1 × 1 convolution with a stride and fewer than 16 input channels writes beyond its memory on some
processors where images lie in memory channels last (oneDNN; seen with torch 2.14). That crashes the process sooner or later, or
gives wrong numbers, and no `except` can catch it. Such a layer is therefore tried in another process, whose C library checks every
block of memory that is freed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence

import torch
from torch import nn

from nern.support import cache
from nern.support.seeding import fingerprint

FEWEST_CHANNELS = 16  # with this many input channels or more, oneDNN takes another algorithm
SECONDS = 120.0  # seconds that the other process may take

#: The GNU C library's allocator that looks for writes beyond a block.
_CHECKED = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}

_TRIAL = """
import json, sys, torch
torch.set_num_threads(1)
inputs, filters, stride, groups, size = json.loads(sys.argv[1])
x = torch.randn(2, inputs, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
w = torch.randn(filters, inputs // groups, 1, 1).requires_grad_()
for i in range(4):
    torch.nn.functional.conv2d(x, w, None, stride, 0, 1, groups).square().sum().backward()
    junk = [torch.randn(1000 + 7 * i) for _ in range(50)]
"""


def crashing_layer(network: nn.Module, size: Sequence[int]) -> str | None:
    """The name of the first convolution whose backward pass crashes where images lie in memory channels last; None where none does.

    Args:
        size: channels, height and width of the network's inputs.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and is_suspicious(module) and _crashes(module, size[1:]):
            return str(name)
    return None


def is_suspicious(layer: nn.Conv2d) -> bool:
    """Whether a layer is of the kind that may crash, and has to be tried."""
    return layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < FEWEST_CHANNELS


def _crashes(layer: nn.Conv2d, size: Sequence[int]) -> bool:
    """Try a layer in another process; the verdict is kept in the cache."""
    trial = [layer.in_channels, layer.out_channels, list(layer.stride), layer.groups, list(size)]
    key = f"crash-{fingerprint(torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.processor(), trial)}"
    known = cache.load(key)
    if known is not None:
        return bool(known["crashes"])
    crashes = platform.libc_ver()[0] != "glibc"  # without this allocator, writing beyond a block would not be noticed
    if not crashes:
        command = [sys.executable, "-c", _TRIAL, json.dumps(trial)]
        try:
            done = subprocess.run(command, env={**os.environ, **_CHECKED}, capture_output=True, timeout=SECONDS, check=False)
            crashes = done.returncode != 0
        except (OSError, subprocess.TimeoutExpired):
            crashes = True
    cache.store(key, {"crashes": torch.tensor(crashes)})
    return crashes
