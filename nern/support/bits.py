"""Packs integers into bits, most significant bit first and without gaps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_bits(values: np.ndarray, width: int) -> np.ndarray:
    """The low `width` (up to 32) bits of each integer [n], in two's complement: uint8 [n · width] of zeros and ones."""
    whole = next(size for size in (1, 2, 4) if width <= 8 * size)
    columns = np.unpackbits(values.astype(np.int64).astype(f">i{whole}").reshape(-1, 1).view(np.uint8), axis=1)
    bits: np.ndarray = columns[:, 8 * whole - width :].reshape(-1)
    return bits


def from_bits(bits: np.ndarray, width: int, *, signed: bool = False) -> np.ndarray:
    """The integers [n] int64 that `to_bits` wrote as zeros and ones [n · width] uint8, in two's complement where they are `signed`."""
    columns = bits.reshape(-1, width).astype(np.int64)
    places = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
    if signed:
        places[0] = -places[0]
    values: np.ndarray = columns @ places
    return values


def pack(bits: np.ndarray) -> Tensor:
    """Pack zeros and ones [n] into bytes, [⌈n / 8⌉] uint8; the last byte is filled up with zeros."""
    return torch.from_numpy(np.packbits(bits))


def unpack(packed: Tensor, count: int, what: str, entries: str) -> np.ndarray:
    """The zeros and ones [count] uint8 that `pack` put into bytes [⌈count / 8⌉] uint8.

    Args:
        what: name of the stored thing, for the message.
        entries: how many entries were expected, as text for the message.

    Raises:
        ValueError: there are more or fewer bytes.
    """
    if packed.numel() != (count + 7) // 8:
        raise ValueError(f"{packed.numel()} bytes of {what} are stored, {(count + 7) // 8} belong to {entries}")
    return np.unpackbits(packed.numpy(), count=count)


def pack_bits(values: Tensor) -> Tensor:
    """Pack truth values, bool [n], into bytes, [⌈n / 8⌉] uint8."""
    return pack(values.reshape(-1).cpu().numpy().astype(np.uint8))


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The truth values [count] bool that `pack_bits` put into bytes [⌈count / 8⌉] uint8.

    Raises:
        ValueError: there are more or fewer bytes.
    """
    return torch.from_numpy(unpack(packed, count, "bits", f"{count} entries").astype(bool))


def pack_integers(values: Tensor, bits: int) -> Tensor:
    """Pack the low `bits` bits of n integers, int8 in any shape, without gaps: [⌈n · bits / 8⌉] uint8."""
    return pack(to_bits(values.reshape(-1).numpy(), bits))


def unpack_integers(packed: Tensor, count: int, bits: int) -> Tensor:
    """The integers [count] int8 that `pack_integers` put into bytes [⌈count · bits / 8⌉] uint8.

    Raises:
        ValueError: there are more or fewer bytes.
    """
    integers = from_bits(unpack(packed, count * bits, "integers", f"{count} of {bits} bits"), bits, signed=True)
    return torch.from_numpy(integers.astype(np.int8))
