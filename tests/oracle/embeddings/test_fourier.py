"""Fourier features, against complex exponentials and Hugging Face's SAM."""

import numpy as np
import pytest
import torch

from posenc.oracle.embeddings.fourier import codes

RNG = np.random.default_rng(0)
B, V = RNG.normal(size=(5, 2)), RNG.uniform(-1, 1, size=(3, 4, 2))


def test_it_is_the_real_and_imaginary_part_of_an_exponential() -> None:
    wave = np.exp(2j * np.pi * (V @ B.T))
    np.testing.assert_allclose(codes(V, directions=B), np.concatenate((wave.real, wave.imag), -1), rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        codes(V, directions=B, order="sin_cos"), np.concatenate((wave.imag, wave.real), -1), rtol=0, atol=1e-14
    )


def test_it_is_the_embedding_of_sam() -> None:
    sam = pytest.importorskip("transformers.models.sam.modeling_sam")
    from transformers import SamVisionConfig

    theirs = sam.SamPositionalEmbedding(SamVisionConfig(num_pos_feats=5)).double()
    matrix = theirs.positional_embedding.detach().numpy()
    expected = theirs(torch.from_numpy((V + 1) / 2)).detach().numpy()  # which takes points from 0 to 1
    np.testing.assert_allclose(codes(V, directions=matrix.T, order="sin_cos"), expected, rtol=0, atol=1e-13)


def test_a_quarter_turn_by_hand() -> None:
    np.testing.assert_allclose(codes([[0.25, 9.0]], directions=[[1.0, 0.0]]), [[0, 1]], rtol=0, atol=1e-15)
