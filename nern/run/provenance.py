"""Records what figures depend on besides the configuration: versions, processor and arithmetic."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Versions, processor and arithmetic of a run, as `result.json` records them."""
    from nern.support.version import __version__

    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "nern": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "processor": processor,
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
