"""Chunks and joined blocks are the rows that went in, in their order."""

import pytest
import torch

from lightning_leep.functional import chunks as chunks_module
from lightning_leep.functional.chunks import accumulation_dtype, joined_blocks, row_chunks
from lightning_leep.functional.leep import conditional_probability, eep_likelihood, joint_probability


def test_devices_without_float64_get_float32():
    assert accumulation_dtype(torch.device("mps")) == torch.float32
    assert accumulation_dtype(torch.device("cuda", 0)) == torch.float64


@pytest.mark.parametrize("chunk_bytes", [1, 100, 2**21])
def test_chunks_change_nothing(monkeypatch, chunk_bytes):
    theta = torch.rand(37, 5).double().softmax(dim=1)
    labels = torch.randint(3, (37,))
    whole = joint_probability(theta, labels, 3)
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES_CPU", chunk_bytes)
    chunks = list(row_chunks(theta, labels))
    assert torch.equal(torch.cat([rows for rows, _ in chunks]), theta)
    assert max(rows.nbytes for rows, _ in chunks) <= max(chunk_bytes, 8 * 5)
    torch.testing.assert_close(joint_probability(theta, labels, 3), whole, rtol=1e-14, atol=0.0)
    likelihood = eep_likelihood(theta, labels, conditional_probability(whole))
    expected = (theta @ conditional_probability(whole).T)[torch.arange(37), labels]
    torch.testing.assert_close(likelihood, expected, rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("chunk_bytes", [1, 8 * 5 * 6, 2**21])
def test_joined_blocks_are_the_rows_in_their_order(monkeypatch, chunk_bytes, dtype):
    monkeypatch.setattr(chunks_module, "CHUNK_BYTES_CPU", chunk_bytes)
    rows, labels, sizes = torch.rand(19, 5).to(dtype), torch.arange(19), [1, 2, 9, 0, 3, 4]
    blocks = [(block.clone(), target) for block, target in joined_blocks(rows.split(sizes), labels.split(sizes))]
    assert torch.equal(torch.cat([block.to(dtype) for block, _ in blocks]), rows)
    assert torch.equal(torch.cat([target for _, target in blocks]), labels)
    assert all(block.shape[0] in sizes or 8 * block.numel() <= chunk_bytes for block, _ in blocks)
    assert list(joined_blocks([], [])) == []
