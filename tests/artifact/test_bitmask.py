from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nern.artifact.bitmask import WORTH, compress, restore
from nern.support.bits import pack_bits, unpack_bits


@given(st.lists(st.booleans(), max_size=40))
def test_bits_are_packed_most_significant_first_and_come_back(bits):
    packed = pack_bits(torch.tensor(bits, dtype=torch.bool))
    text = "".join("1" if bit else "0" for bit in bits)
    whole = text + "0" * (-len(text) % 8)
    assert packed.tolist() == [int(whole[at : at + 8], 2) for at in range(0, len(whole), 8)]
    assert unpack_bits(packed, len(bits)).tolist() == bits


def tensors(zeros: float) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    weight = torch.randn(60, 50, generator=source)
    weight[torch.rand(60, 50, generator=source) < zeros] = 0
    return {
        "predictor.weight": weight,
        "predictor.bias": torch.randn(50, generator=source),
        "predictor.count": torch.zeros(900, dtype=torch.int64),
        "embedding.matrix": torch.zeros(900),
    }


@pytest.mark.parametrize("zeros", [0.3, 0.9, 1.0])
def test_tensors_come_back_and_their_bytes_are_a_bit_each_and_the_values(zeros):
    before = tensors(zeros)
    stored, names = compress(before, "predictor")
    assert names == ["predictor.weight"]
    assert set(stored) == {"predictor.bias", "predictor.count", "embedding.matrix", "predictor.(mask)", "predictor.(values)"}
    assert stored["predictor.(mask)"].numel() == 375  # 3,000 bits
    assert stored["predictor.(values)"].numel() == int((before["predictor.weight"] != 0).sum())
    after = restore(stored, "predictor", names, before)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_what_would_not_shrink_the_file_stays_as_it_is():
    full = tensors(0.0)
    assert compress(full, "predictor") == (full, [])
    few = {"predictor.weight": torch.ones(100)}
    few["predictor.weight"][:50] = 0  # 200 bytes less 13: not worth two names
    assert WORTH > 4 * 50 - 13
    assert compress(few, "predictor")[1] == []


def test_parts_that_do_not_fit_are_refused():
    before = tensors(0.5)
    stored, names = compress(before, "predictor")
    with pytest.raises(ValueError, match="predictor: 1 values are stored, the mask counts"):
        restore({**stored, "predictor.(values)": torch.ones(1)}, "predictor", names, before)
    with pytest.raises(ValueError, match="bytes of bits are stored"):
        restore(stored, "predictor", names, {**before, "predictor.weight": torch.zeros(7, 7)})
