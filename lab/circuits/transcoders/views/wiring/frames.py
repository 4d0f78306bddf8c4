"""How one unit is wired, as plain tables: tokens it reads, earlier features by weight and by what they add, a context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.models.languages import Language, quoted
from lab.circuits.transcoders.units.activations import Activations
from lab.circuits.transcoders.units.dashboard import Pieces
from lab.circuits.transcoders.units.weight_readings import agreement, pullback, through_head

TOP, WRITES = 10, 3  # entries of a list; tokens that say what a feature does
COMPARED = (10, 50)  # the largest entries of two rankings that are held against each other
ByLayer = Mapping[int, Tensor]


def tokens_read(texts: Activations, target: Float[Tensor, " d"], layer: int, pieces: Pieces) -> pd.DataFrame:
    """The tokens that a unit of `layer` finds most, see `WiringResult.reads`: every way there is."""
    model = texts.model
    scores = {"direct": model.W_E @ target} | ({"extended": texts.extended @ target} if layer > 0 else {})
    for at in range(layer + 1):
        embedding = texts.extended if at > 0 else model.W_E
        for head in range(model.cfg.n_heads):
            scores[f"head {at}.{head}"] = embedding @ through_head(model, (at, head), target)
    parts = []
    for way, found in scores.items():
        best = found.topk(min(TOP, len(found)))
        tokens = best.indices.tolist()
        parts.append(
            pd.DataFrame({"way": way, "token": tokens, "piece": pieces(tokens), "value": best.values.double().numpy()})
        )
    return pd.concat(parts, ignore_index=True)


def earlier(of: Language, coders: Mapping[int, Transcoder], weights: ByLayer, strengths: ByLayer) -> pd.DataFrame:
    """Every feature of the earlier layers, see `WiringResult.earlier`; best wired first."""
    parts = []
    for layer, coder in coders.items():
        strength = strengths.get(layer, torch.full((coder.cfg.d_sae,), torch.nan))
        parts.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "feature": range(coder.cfg.d_sae),
                    "weight": weights[layer].double().numpy(),
                    "strength": strength.double().numpy(),
                }
            )
        )
    types = {"layer": int, "feature": int, "weight": float, "strength": float}
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(types)).astype(types)
    table = table.sort_values("weight", ascending=False, ignore_index=True, kind="stable")
    leading = {*range(min(TOP, len(table))), *table["strength"].abs().nlargest(TOP).index}
    return table.assign(writes=_writes(of, coders, table, leading))


def through_heads(of: Language, coders: Mapping[int, Transcoder], target: Float[Tensor, " d"]) -> pd.DataFrame:
    """The features best wired through each head: of the layers below the head's, which reads what they wrote."""
    rows = []
    for at in range(1, len(coders) + 1):
        for head in range(of.model.cfg.n_heads):
            vector = through_head(of.model, (at, head), target)
            found = {layer: pullback(vector, coder) for layer, coder in coders.items() if layer < at}
            joined = torch.cat(list(found.values()))
            owners = [(layer, feature) for layer, values in found.items() for feature in range(len(values))]
            best = joined.topk(min(TOP, len(joined)))
            rows += [
                (f"{at}.{head}", *owners[place], value)
                for place, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
    table = pd.DataFrame(rows, columns=["head", "layer", "feature", "weight"]).astype({"weight": float})
    return table.assign(writes=_writes(of, coders, table, range(len(table))))


def agreements(weights: ByLayer, strengths: ByLayer) -> dict[str, float]:
    """`weight_readings.agreement` over all earlier layers together; nothing where one of the rankings is missing."""
    if not strengths:
        return {}
    one, other = (torch.cat([values[layer] for layer in weights]) for values in (weights, strengths))
    return {str(k): agreement(one, other, k) for k in COMPARED if k <= len(one)}


def context(
    tokens: Int[Tensor, "n t"], z: Float[Tensor, "n t"], at: tuple[int, int], pieces: Pieces, window: int | None = None
) -> pd.DataFrame:
    """The tokens around a place, with the unit's activations; the whole text where no `window` is given."""
    text, position = at
    first = 0 if window is None else max(0, position - window)
    last = tokens.shape[1] if window is None else min(tokens.shape[1], position + window + 1)
    seen: Sequence[int] = tokens[text, first:last].tolist()
    values = z[text, first:last].double().numpy()
    return pd.DataFrame({"piece": pieces(seen), "value": values, "mark": [p == position for p in range(first, last)]})


def no_context() -> pd.DataFrame:
    """A context of no tokens."""
    return pd.DataFrame(columns=["piece", "value", "mark"])


def _writes(of: Language, coders: Mapping[int, Transcoder], table: pd.DataFrame, rows: Iterable[int]) -> list[str]:
    """For some rows of a table of features, the tokens that each makes likelier; empty for the others."""
    found = [""] * len(table)
    chosen = sorted(rows)
    if not chosen:
        return found
    layers, features = table["layer"].to_numpy(), table["feature"].to_numpy()
    directions = torch.stack([coders[int(layers[row])].W_dec[int(features[row])] for row in chosen])
    best = ((directions - directions.mean(-1, keepdim=True)) @ of.model.W_U).topk(min(WRITES, of.model.cfg.d_vocab))
    for row, tokens in zip(chosen, best.indices.tolist(), strict=True):
        found[row] = " ".join(map(quoted, of.pieces(tokens)))
    return found
