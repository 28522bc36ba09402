"""Chooses the device and the floating-point arithmetic of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nern.errors import DataError
from nern.training.processes import local_rank


def choose_device(name: str) -> torch.device:
    """The device with a name (`auto`, `cpu`, `cuda`, `cuda:1`, …); each of several processes on a machine gets a GPU of its own.

    Raises:
        DataError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DataError(f"device '{name}' is not a device: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DataError(f"device '{name}' is not one that nern computes on: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if device.index is None and local_rank() is not None:
            device = torch.device("cuda", local_rank())
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = f"there are {count} GPUs" if count else "torch finds no GPU here"
            raise DataError(f"device '{name}' was asked for, but {there}; set device=cpu or device=auto")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype with a name: `float32`, `bfloat16`, or `auto`, which is bfloat16 where the processor has instructions for it."""
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    return torch.bfloat16 if _computes_bfloat16(device) else torch.float32


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    checks = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
    return any(check() for check in checks if check is not None)


@contextmanager
def fast_float32(device: torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 (10 bits of mantissa) while a block runs."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
