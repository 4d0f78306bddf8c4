"""Coders: the formula by hand, its three activations, folding, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder, sparse_decode
from lab.circuits.transcoders.errors import CircuitError


def by_hand() -> Transcoder:
    coder = Transcoder(CoderConfig(1, 2, 1))
    with torch.no_grad():
        coder.W_enc.copy_(torch.tensor([[1.0, -1.0]]))
        coder.b_enc.copy_(torch.tensor([-1.0, 1.5]))  # b_in = 1 folded into [0, 0.5]
        coder.W_dec.copy_(torch.tensor([[1.0], [-1.0]]))
        coder.b_dec.fill_(0.5)
    return coder


def test_the_formula_by_hand() -> None:
    x = torch.tensor([[3.0], [0.0]])
    assert by_hand().encode(x).tolist() == [[2, 0], [0, 1.5]]
    assert by_hand()(x).tolist() == [[2.5], [-1.0]]


@pytest.mark.parametrize("activation", ["relu", "jumprelu"])
def test_folding_decoder_norms_changes_no_output(activation: str) -> None:
    coder = Transcoder(CoderConfig(6, 20, 5, activation=activation), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        coder.W_dec.mul_(torch.rand(20, 1) * 3)
        coder.W_dec[3] = 0
        if coder.threshold is not None:
            coder.threshold.fill_(0.2)
    x = torch.randn(50, 6)
    before = coder(x)
    coder.fold_decoder_norm()
    norms = coder.W_dec.norm(dim=1)
    assert torch.allclose(coder(x), before, atol=1e-6) and norms[3] == 0
    assert torch.allclose(norms[torch.arange(20) != 3], torch.ones(19), atol=1e-6)


def test_topk_keeps_k_and_decodes_them_alone() -> None:
    coder = Transcoder(CoderConfig(6, 20, 5, activation="topk", k=3), skip=True)
    with torch.no_grad():
        coder.W_skip.normal_()
    x = torch.randn(2, 7, 6)
    z = coder.encode(x)
    assert ((z > 0).sum(-1) <= 3).all() and (z.topk(3).values == torch.relu(coder.pre(x)).topk(3).values).all()
    assert torch.allclose(coder(x), z @ coder.W_dec + coder.b_dec + x @ coder.W_skip.T, atol=1e-6)
    with pytest.raises(CircuitError, match="topk"):
        coder.fold_decoder_norm()


def test_jumprelu_is_zero_up_to_its_threshold() -> None:
    coder = Transcoder(CoderConfig(1, 1, 1, activation="jumprelu"))
    with torch.no_grad():
        coder.W_enc.fill_(1)
        coder.threshold.fill_(0.5)
    assert coder.encode(torch.tensor([[0.5], [0.6]])).tolist() == [[0.0], [pytest.approx(0.6)]]
    with pytest.raises(CircuitError, match="topk"):
        coder.active(torch.zeros(1, 1))


def test_sparse_decoding_is_the_dense_product() -> None:
    z = torch.relu(torch.randn(9, 20) - 1)
    values, places = z.topk(20)
    weight = torch.randn(20, 5)
    assert torch.allclose(sparse_decode(values, places, weight), z @ weight, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"d_in": 0}, "d_in must be at least 1, got 0"),
        ({"activation": "softmax"}, "activation"),
        ({"activation": "topk"}, "k belongs to"),
        ({"k": 3}, "k belongs to"),
        ({"activation": "topk", "k": 99}, "k must lie in 1 ... d_sae = 8, got 99"),
    ],
)
def test_a_config_that_contradicts_itself(values: dict[str, object], said: str) -> None:
    with pytest.raises((CircuitError, TypeError), match=said):
        CoderConfig(**({"d_in": 4, "d_sae": 8, "d_out": 4} | values))


def test_what_does_not_fit_is_a_sentence() -> None:
    coder = Transcoder(CoderConfig(4, 8, 4))
    with pytest.raises(CircuitError, match="x must have width 4"):
        coder(torch.zeros(2, 5))
    with pytest.raises(CircuitError, match="z must have width 8"):
        coder.decode(torch.zeros(2, 5))
    with pytest.raises(CircuitError, match="d_in = 4 but d_out = 5"):
        SparseAutoencoder(CoderConfig(4, 8, 5))
    with pytest.raises(CircuitError, match="skip"):
        SparseAutoencoder(CoderConfig(4, 8, 4), skip=True)
    with pytest.raises(CircuitError, match="no colour"):
        CoderConfig.from_dict({"d_in": 4, "d_sae": 8, "d_out": 4, "colour": 1})


def test_the_layer_is_read_from_the_name() -> None:
    assert CoderConfig(4, 8, 4, hook_name="blocks.11.ln2.hook_normalized").layer == 11
    assert CoderConfig(4, 8, 4, hook_name="mlp.hook_in").layer is None
