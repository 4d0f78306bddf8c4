"""The books close, and every entry is what autograd finds with patterns and LayerNorm scales detached."""

from __future__ import annotations

import circuit_toys
import pytest
import torch
from torch import Tensor

from lab.circuits.transcoders.attribution.adjacency import adjacency, influence
from lab.circuits.transcoders.attribution.contributions import Attribution, attribute, attribute_run
from lab.circuits.transcoders.attribution.frozen_run import Feature, FrozenRun, LogitDiff, Neuron, Node, Root
from lab.circuits.transcoders.coders.coder import CoderConfig, SparseAutoencoder, Transcoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import HookedGPT


def run(layers: int = 3, without: tuple[int, ...] = (), skip: tuple[int, ...] = (1,)) -> FrozenRun:
    coders = {layer: coder for layer, coder in circuit_toys.coders(layers, skip=skip).items() if layer not in without}
    return FrozenRun(circuit_toys.model(layers), coders, circuit_toys.prompt())


def a_feature(frozen: FrozenRun, layer: int) -> Feature:
    return Feature(layer, int(frozen.active[layer].features[0]), token=5)


def linear_root(frozen: FrozenRun, root: Root, parts: dict[Node, Tensor]) -> Tensor:
    """The root as a function of the features' activations and embeddings, patterns and scales held: for autograd.

    Written from the model's formula alone. `parts` holds leaf tensors: activations by feature, vectors by embedding.
    """
    model, time = frozen.model, len(frozen)
    x = torch.stack([parts[Node("embedding", -1, token)] for token in range(time)])
    x = x + torch.stack([parts[Node("position", -1, token)] for token in range(time)])

    def norm(x: Tensor, name: str) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / frozen.at(f"{name}.hook_scale")

    for layer in range(model.cfg.n_layers):
        v = torch.einsum("td,hdk->thk", norm(x, f"blocks.{layer}.ln1"), model.W_V[layer]) + model.b_V[layer]
        moved = torch.einsum("hts,shk->thk", frozen.pattern(layer), v)
        x = x + torch.einsum("thk,hkd->td", moved, model.W_O[layer]) + model.b_O[layer]
        read = norm(x, f"blocks.{layer}.ln2")
        if isinstance(root, Feature) and root.layer == layer:
            coder = frozen.coders[layer]
            return read[root.token] @ coder.W_enc[:, root.index] + coder.b_enc[root.index]
        if isinstance(root, Neuron) and root.layer == layer:
            return read[root.token] @ model.W_in[layer, :, root.index] + model.b_in[layer, root.index]
        out = [parts[Node("error" if layer in frozen.coders else "mlp", layer, token)] for token in range(time)]
        x = x + torch.stack(out)
        if layer in frozen.coders:
            coder = frozen.coders[layer]
            rows = [coder.b_dec.clone() for _ in range(time)]
            for node, z in parts.items():
                if node.kind == "feature" and node.layer == layer:
                    rows[node.token] = rows[node.token] + z * coder.W_dec[node.index]
            x = x + torch.stack(rows)
            if coder.W_skip is not None:
                x = x + read @ coder.W_skip.T
    assert isinstance(root, LogitDiff)
    logits = norm(x, "ln_final")[root.token] @ model.W_U + model.b_U
    return logits[list(root.plus)].mean() - (logits[list(root.minus)].mean() if root.minus else logits.mean())


def leaves(frozen: FrozenRun) -> dict[Node, Tensor]:
    parts: dict[Node, Tensor] = {}
    for token in range(len(frozen)):
        parts[Node("embedding", -1, token)] = frozen.model.W_E[frozen.tokens[token]].clone()
        parts[Node("position", -1, token)] = frozen.model.W_pos[token].clone()
        for layer in range(frozen.model.cfg.n_layers):
            if layer in frozen.coders:
                parts[Node("error", layer, token)] = frozen.errors[layer][token].clone()
                z = frozen.coders[layer].encode(frozen.inputs(layer))[token]
                for index in z.nonzero()[:, 0].tolist():
                    parts[Node("feature", layer, token, index)] = z[index].clone()
            else:
                parts[Node("mlp", layer, token)] = frozen.outputs(layer)[token].clone()
    return {node: part.requires_grad_() for node, part in parts.items()}


ROOTS = [
    LogitDiff((3,), (4,)),
    LogitDiff((1, 2), (5, 6, 7), token=3),
    LogitDiff((9,)),
    Neuron(2, 4),
    Neuron(1, 0, token=2),
]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contributions_sum_to_the_root(layers: int, dtype: torch.dtype) -> None:
    model, coders = circuit_toys.model(layers).to(dtype), circuit_toys.coders(layers, skip=(1,))
    frozen = FrozenRun(model, {layer: coder.to(dtype) for layer, coder in coders.items()}, circuit_toys.prompt())
    bound = 1e-4 if dtype == torch.float32 else 1e-9
    for root in (LogitDiff((3,), (4,)), a_feature(frozen, layers - 1), Neuron(layers - 1, 7)):
        found = attribute_run(frozen, root)
        assert found.gap < bound and found.value != 0
        assert sum(found.by_kind().values()) == pytest.approx(found.value, rel=10 * bound)
        assert adjacency(frozen, root, max_targets=30).gap < bound


def test_the_root_is_the_model_s_own_number() -> None:
    frozen = run()
    logits = frozen.model(frozen.tokens[None])[0]
    assert attribute_run(frozen, LogitDiff((3,), (4,))).value == pytest.approx((logits[-1, 3] - logits[-1, 4]).item())
    assert attribute_run(frozen, LogitDiff((9,), token=2)).value == pytest.approx(
        (logits[2, 9] - logits[2].mean()).item()
    )
    assert attribute_run(frozen, Neuron(1, 6, 3)).value == pytest.approx(
        frozen.at("blocks.1.mlp.hook_pre")[3, 6].item()
    )
    feature = a_feature(frozen, 2)
    pre = frozen.coders[2].pre(frozen.inputs(2))[feature.token, feature.index]
    assert attribute_run(frozen, feature).value == pytest.approx(pre.item())


@pytest.mark.parametrize("root", [*ROOTS, Feature(2, -1, token=5)])
def test_the_adjacency_is_gradient_times_activation(root: Root) -> None:
    """An independent oracle: the frozen stream written anew, and torch's autograd."""
    frozen = run(without=(0,))
    root = a_feature(frozen, 2) if isinstance(root, Feature) else root
    parts = leaves(frozen)
    value = linear_root(frozen, root, parts)
    graph = adjacency(frozen, root, max_targets=0)
    assert value.item() == pytest.approx(float(graph.values[0]))
    value.backward()
    by_node: dict[Node, float] = {}
    for node, part in parts.items():
        merged = Node("embedding", -1, node.token) if node.kind == "position" else node
        flow = 0.0 if part.grad is None else float((part.grad * part).sum())
        by_node[merged] = by_node.get(merged, 0.0) + flow
    for node, weight in zip(graph.sources[:-1], graph.weights[0], strict=False):
        assert float(weight) == pytest.approx(by_node[node], abs=1e-10), node


def test_direct_contributions_are_gradients_past_no_head() -> None:
    """A feature's direct effect at the root's own token, heads cut: what `attribute` lists, by autograd again."""
    frozen = run()
    model = frozen.model
    found = attribute_run(frozen, LogitDiff((3,), (4,)))
    stream = frozen.at("blocks.2.hook_resid_post")[-1].clone().requires_grad_()
    centred = (stream - stream.mean()) / frozen.at("ln_final.hook_scale")[-1]
    logits = centred @ model.W_U
    (logits[3] - logits[4]).backward()
    for node, value in zip(found.nodes, found.values, strict=True):
        if node.kind == "feature":
            z = frozen.coders[node.layer].encode(frozen.inputs(node.layer))[-1, node.index]
            assert value == pytest.approx(
                float(z * frozen.coders[node.layer].W_dec[node.index] @ stream.grad), abs=1e-10
            )
        if node.kind == "head":
            v = (
                frozen.at(f"blocks.{node.layer}.attn.hook_v")[node.source, node.index]
                - model.b_V[node.layer, node.index]
            )
            moved = frozen.pattern(node.layer)[node.index, -1, node.source] * v @ model.W_O[node.layer, node.index]
            assert value == pytest.approx(float(moved @ stream.grad), abs=1e-10)


def test_on_a_centred_stream_the_official_ratio_is_the_scale_and_elsewhere_not() -> None:
    frozen = run()
    stream, sigma = frozen.at("blocks.2.hook_resid_post")[-1], frozen.at("ln_final.hook_scale")[-1].item()
    for direction in frozen.model.W_U.T[:4]:
        normalised = frozen.at("ln_final.hook_normalized")[-1]
        centred, ours = stream - stream.mean(), (direction - direction.mean()) / sigma
        assert (direction @ normalised / (direction @ centred)).item() == pytest.approx(1 / sigma)
        assert (stream @ ours).item() == pytest.approx((direction @ normalised).item())
        assert (direction @ normalised / (direction @ stream)).item() != pytest.approx(1 / sigma, rel=1e-3)


def test_a_perfect_transcoder_leaves_no_error() -> None:
    model = circuit_toys.model(2, activation="relu")
    coders = {layer: Transcoder(CoderConfig(12, 20, 12)).double().requires_grad_(False) for layer in range(2)}
    for layer, coder in coders.items():
        for name, weight in (
            ("W_enc", model.W_in),
            ("b_enc", model.b_in),
            ("W_dec", model.W_out),
            ("b_dec", model.b_out),
        ):
            getattr(coder, name).copy_(weight[layer])
    found = attribute(model, coders, circuit_toys.prompt(), LogitDiff((3,), (4,)))
    errors = [value for node, value in zip(found.nodes, found.values, strict=True) if node.kind == "error"]
    assert len(errors) == 2 and max(map(abs, errors)) < 1e-12 and found.gap < 1e-12


def test_influence_is_the_resolvent_and_the_adjacency_nilpotent() -> None:
    frozen = run()
    graph = adjacency(frozen, LogitDiff((3,), (4,)), max_targets=10_000)
    shares = graph.shares()
    count = len(graph.sources)
    square = torch.zeros(count + 1, count + 1, dtype=torch.float64)  # the root last
    square[-1, :-1] = shares[0]
    square[graph.targets, :-1] = shares[1:]
    power = torch.linalg.matrix_power(square, frozen.model.cfg.n_layers + 2)
    assert not power.any()
    resolvent = torch.linalg.inv(torch.eye(count + 1, dtype=torch.float64) - square) - torch.eye(count + 1)
    assert torch.allclose(graph.influence(), resolvent[-1, :-1]) and torch.allclose(
        influence(shares, graph.targets), resolvent[-1, :-1]
    )


def test_few_targets_are_the_most_influential_ones() -> None:
    frozen = run()
    root = LogitDiff((3,), (4,))
    whole, part = adjacency(frozen, root, max_targets=10_000), adjacency(frozen, root, max_targets=5)
    assert len(part.targets) == 5
    for row, target in enumerate(part.targets.tolist(), start=1):
        place = whole.targets.tolist().index(target) + 1
        assert torch.allclose(part.weights[row], whole.weights[place])
    features = sum(node.kind == "feature" for node in whole.sources)
    first_row = whole.weights[0, :features].abs()
    assert set(part.targets.tolist()) == set(first_row.topk(5).indices.tolist())


def test_without_any_transcoder_the_books_close_too() -> None:
    graph = adjacency(FrozenRun(circuit_toys.model(2), {}, circuit_toys.prompt()), LogitDiff((3,), (4,)))
    assert graph.gap < 1e-9 and {node.kind for node in graph.sources} == {"mlp", "embedding", "bias"}


def test_the_top_is_sorted_by_size() -> None:
    found = attribute_run(run(), LogitDiff((3,), (4,)))
    assert isinstance(found, Attribution)
    sizes = [abs(value) for _, value in found.top(10)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == abs(found.values).max()
    assert (found.fires * found.wired == found.values).all()


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (LogitDiff((11,), (4,)), "plus has a token outside 0 ... 10"),
        (LogitDiff((1,), (-1,)), "minus has a token outside"),
        (LogitDiff(()), "plus: a logit difference needs"),
        (LogitDiff((1,), token=7), "token 7 lies beyond the prompt, which has positions 0 ... 6"),
        (Feature(0, 30), "feature 30 does not exist; the coder of layer 0 has 30"),
        (Feature(2, 3), "layer 2 has no transcoder; there are some for 0, 1"),
        (Feature(5, 3), "layer 5 does not exist"),
        (Neuron(0, 20), "neuron 20 does not exist; each MLP has 20"),
    ],
)
def test_roots_that_do_not_exist(root: Root, said: str) -> None:
    with pytest.raises((CircuitError, HookedError), match=said):
        run(without=(2,)).root(root)


def test_what_cannot_be_frozen() -> None:
    model, coders, tokens = circuit_toys.model(), circuit_toys.coders(), circuit_toys.prompt()
    with pytest.raises(CircuitError, match="layer 0 has an autoencoder"):
        FrozenRun(model, {0: SparseAutoencoder(CoderConfig(12, 30, 12)).double()}, tokens)
    with pytest.raises(CircuitError, match="for layer 1 it would have to be"):
        FrozenRun(model, {1: coders[0]}, tokens)
    with pytest.raises((HookedError, TypeError), match="tokens"):
        FrozenRun(model, coders, tokens[None])
    with pytest.raises(HookedError, match="the prompt is empty"):
        FrozenRun(model, coders, tokens[:0])
    with pytest.raises(HookedError, match="has 14 tokens"):
        FrozenRun(model, coders, torch.cat([tokens, tokens]))
    with pytest.raises(CircuitError, match="max_targets must be at least 0"):
        adjacency(run(), LogitDiff((1,)), max_targets=-1)


def test_a_missing_first_token_is_warned_of() -> None:
    model, coders, tokens = circuit_toys.model(), circuit_toys.coders(), circuit_toys.prompt()
    with pytest.warns(UserWarning, match="does not begin with the token 10"):
        FrozenRun(model, coders, tokens, bos=10)
    assert isinstance(FrozenRun(model, coders, tokens, bos=int(tokens[0])).model, HookedGPT)
