"""What one unit is about: where it fires, from its strongest firings down to its weakest, and what it reads and writes.

As in the paper's dashboards, examples are drawn from bands of equal activation width: whoever sees only the maxima
believes that a feature is cleaner than it is. Features and neurons get the same dashboard; of a neuron's activations the
positive part is shown (GELU's negative values never go below -0.17).
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.circuits.transcoders.coders.coder import Transcoder
from lab.circuits.transcoders.errors import CircuitError
from lab.circuits.transcoders.hooked import HookedGPT
from lab.circuits.transcoders.units.activations import Activations, UnitKind, Units, hook_name, reads_stream
from lab.circuits.transcoders.units.weight_readings import (
    encoder_direction,
    logit_lens,
    ov_norms,
    pullback,
    through_head,
)

Pieces = Callable[[Sequence[int]], list[str]]  # tokens -> what a reader sees of each
BINS, LISTED = 40, 10
ACCENT, STRONGEST = "234,88,12", 0.6  # readable under light and dark text alike
NO_STREAM = (
    "This autoencoder reads the MLP's output, so no fixed weight leads to its features from tokens, heads or earlier "
    "features: between them lie all neurons."
)


@dataclass(frozen=True)
class Dashboard:
    """One unit over some texts; all fields can be stored as an experiment's result.

    kind, layer, unit   which; tokens: how many were looked at, boundaries left out
    frequency, maximum  share of tokens on which it fires; its largest activation
    at_bos              its activation on the boundary that begins each text; NaN where texts have none
    edges [b + 1]       of the bands of equal width, from the maximum down to 0; shares [b]: of all tokens, in each
    bins [41], counts [40]   histogram of its activations where it fires
    examples            one row per token: example, band (0 is the strongest), text, position, token, piece, value, centre
    top_logits, bottom_logits   token, piece, value: what it makes likelier and less likely, by ``d W_U``
    deembedding         way ("direct", "extended", "head 1.3"), token, piece, value: what would make it fire
    ov_norms [l, h]     how much of what it reads each head up to its layer could bring; None where it reads no stream
    pullbacks           layer, feature, weight: earlier features that would make it fire
    note                what a reader must know before anything else; empty mostly
    """

    kind: UnitKind
    layer: int
    unit: int
    tokens: int
    frequency: float
    maximum: float
    at_bos: float
    edges: np.ndarray
    shares: np.ndarray
    bins: np.ndarray
    counts: np.ndarray
    examples: pd.DataFrame
    top_logits: pd.DataFrame
    bottom_logits: pd.DataFrame
    deembedding: pd.DataFrame
    ov_norms: np.ndarray | None
    pullbacks: pd.DataFrame
    note: str

    @property
    def live(self) -> bool:
        """It fired at all."""
        return self.frequency > 0

    def html(self, example: int) -> str:
        """One example as coloured tokens, its own token underlined, in units of the unit's maximum."""
        rows = self.examples[self.examples["example"] == example]
        if rows.empty:
            raise CircuitError(
                f"example {example} does not exist; there are {self.examples['example'].nunique()}, from 0"
            )
        mark = int(rows["centre"].to_numpy().argmax())
        return coloured_tokens_html(list(rows["piece"]), list(rows["value"]), maximum=self.maximum, mark=mark)


@torch.no_grad()
def dashboard(
    model: HookedGPT,
    units: Units,
    layer: int,
    tokens: Int[Tensor, "n t"] | Activations,
    unit: int,
    *,
    bands: int = 5,
    examples: int = 4,
    window: int = 5,
    seed: int = 0,
    pieces: Pieces | None = None,
    earlier: Mapping[int, Transcoder] | None = None,
) -> Dashboard:
    """The dashboard of one feature or neuron over some texts (a unit that never fires gets one that says so).

    units, layer   a coder or `Neurons`, and where it stands
    tokens         texts that begin with a boundary; or what was collected over texts, which answers in milliseconds
    bands          of equal width, from the maximum down to 0
    examples       drawn uniformly from each band's tokens, as far as there are any; `window` tokens to both sides
    pieces         how tokens are shown; their numbers if left out
    earlier        transcoders of earlier layers, whose features may be what the unit reads

    Raises CircuitError for a unit that does not exist, units that do not fit, and counts below 1.

    >>> from lab.circuits.transcoders.coders.coder import CoderConfig
    >>> model = HookedGPT.tiny()
    >>> found = dashboard(model, Transcoder(CoderConfig(8, 32, 8)), 0, torch.randint(0, 5, (50, 10)), 3)
    >>> found.tokens, found.edges.shape, bool(np.isclose(found.shares.sum(), found.frequency))
    (450, (6,), True)
    """
    for name, value, least in (("bands", bands, 1), ("examples", examples, 1), ("window", window, 0)):
        if value < least:
            raise CircuitError(f"{name} must be at least {least}, got {value}")
    texts = (
        tokens
        if isinstance(tokens, Activations)
        else Activations.collect(model, tokens, [hook_name(model, layer, units)])
    )
    if texts.model is not model:
        raise CircuitError("tokens: these activations were collected of another model")
    shown = (lambda some: [str(token) for token in some]) if pieces is None else pieces
    z = texts.of(layer, units, unit).clamp_min(0)
    fired = (z > 0) & texts.counted
    count, values = int(texts.counted.sum()), z[fired]
    maximum = float(values.max()) if len(values) else 0.0
    bins = np.linspace(0, maximum or 1.0, BINS + 1)
    band = _bands(z, fired, maximum, bands)
    chosen = _drawn(band, bands, examples, seed)
    logits = logit_lens(model, units, unit)
    streams = reads_stream(model, layer, units)
    direction = encoder_direction(units, unit)
    notes = (
        []
        if len(values)
        else [f"This unit is silent on all {count:,} tokens looked at: it is dead, or waits for others."]
    )
    return Dashboard(
        kind=units.kind,
        layer=layer,
        unit=unit,
        tokens=count,
        frequency=len(values) / count,
        maximum=maximum,
        at_bos=float(z[0, 0]) if texts.bos else math.nan,
        edges=np.linspace(maximum, 0, bands + 1),
        shares=torch.bincount(band[fired], minlength=bands).numpy() / count,
        bins=bins,
        counts=np.histogram(values.numpy(), bins)[0],
        examples=_examples(texts.tokens, z, band, chosen, window, shown),
        top_logits=_listed(logits, shown),
        bottom_logits=_listed(logits, shown, lowest=True),
        deembedding=_deembedding(texts, layer, direction if streams else None, shown),
        ov_norms=ov_norms(model, direction)[: layer + 1].numpy() if streams else None,
        pullbacks=_pullbacks(direction, layer, (earlier or {}) if streams else {}),
        note=" ".join(notes if streams else [*notes, NO_STREAM]),
    )


def _bands(z: Tensor, fired: Tensor, maximum: float, bands: int) -> Int[Tensor, "n t"]:
    """The band of each firing, 0 the strongest; -1 elsewhere."""
    if not maximum:
        return torch.full(z.shape, -1)
    from_top = ((maximum - z) / maximum * bands).long().clamp_(0, bands - 1)
    return torch.where(fired, from_top, -1)


def _drawn(band: Tensor, bands: int, examples: int, seed: int) -> Int[Tensor, "e 2"]:
    """Text and position of up to ``examples`` tokens of each band, uniformly and without repetition."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(bands):
        places = (band == number).nonzero()
        found.append(places[torch.randperm(len(places), generator=generator)[:examples]])
    return torch.cat(found)


def _examples(tokens: Tensor, z: Tensor, band: Tensor, chosen: Tensor, window: int, shown: Pieces) -> pd.DataFrame:
    """One row per token of each example; windows end where the text does."""
    offsets = torch.arange(-window, window + 1)
    position = chosen[:, 1:] + offsets
    inside = (position >= 0) & (position < tokens.shape[1])
    text = chosen[:, :1].expand_as(position)[inside]
    example = torch.arange(len(chosen))[:, None].expand_as(position)[inside]
    centre = (offsets == 0).expand_as(position)[inside]
    position = position[inside]
    seen = tokens[text, position]
    return pd.DataFrame(
        {
            "example": example.numpy(),
            "band": band[chosen[:, 0], chosen[:, 1]][example].numpy(),
            "text": text.numpy(),
            "position": position.numpy(),
            "token": seen.numpy(),
            "piece": shown(seen.tolist()),
            "value": z[text, position].double().numpy(),
            "centre": centre.numpy(),
        }
    )


def _listed(scores: Float[Tensor, " v"], shown: Pieces, *, lowest: bool = False) -> pd.DataFrame:
    """The tokens with the largest scores, or the lowest."""
    found = scores.topk(min(LISTED, len(scores)), largest=not lowest)
    tokens = found.indices.tolist()
    return pd.DataFrame({"token": tokens, "piece": shown(tokens), "value": found.values.double().numpy()})


def _deembedding(texts: Activations, layer: int, direction: Tensor | None, shown: Pieces) -> pd.DataFrame:
    """The tokens that a unit reads: directly, behind layer 0, and through the head with the largest OV norm below it."""
    model, columns = texts.model, ["way", "token", "piece", "value"]
    if direction is None:
        return pd.DataFrame(columns=columns)
    norms = ov_norms(model, direction)[: layer + 1]
    best = divmod(int(norms.argmax()), norms.shape[1])
    bridge = through_head(model, best, direction)
    scores = {"direct": model.W_E @ direction}
    if layer > 0:
        scores["extended"] = texts.extended @ direction
    scores[f"head {best[0]}.{best[1]}"] = (texts.extended if best[0] > 0 else model.W_E) @ bridge
    parts = [_listed(found, shown).assign(way=way) for way, found in scores.items()]
    return pd.concat(parts, ignore_index=True)[columns]


def _pullbacks(direction: Tensor, layer: int, earlier: Mapping[int, Transcoder]) -> pd.DataFrame:
    """Earlier features that write most of what a unit reads."""
    parts = []
    for other, coder in sorted(earlier.items()):
        if other >= layer:
            raise CircuitError(
                f"earlier: layer {other} does not come before layer {layer}, so its features cannot be read there"
            )
        found = pullback(direction, coder).topk(min(LISTED, coder.cfg.d_sae))
        parts.append(
            pd.DataFrame(
                {"layer": other, "feature": found.indices.numpy(), "weight": found.values.double().numpy()},
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["layer", "feature", "weight"])


def coloured_tokens_html(
    pieces: Sequence[str], values: Sequence[float], *, maximum: float | None = None, mark: int | None = None
) -> str:
    """Tokens in a row, each as strongly coloured as its value is large; the value appears on hovering.

    maximum  the value of the full colour; the largest one if left out
    mark     the place of a token to underline

    Plain HTML with everything escaped, no script; the colour is translucent, so it suits light and dark pages. Raises
    CircuitError when the two lengths differ, or a value is not finite.

    >>> "&lt;b&gt;" in coloured_tokens_html(["<b>", " x"], [0.0, 2.0])
    True
    """
    if len(pieces) != len(values):
        raise CircuitError(f"pieces and values must go together, got {len(pieces)} and {len(values)}")
    if not all(map(math.isfinite, values)):
        raise CircuitError("values must be finite numbers; one of them is not")
    full = max([0.0, *values]) if maximum is None else maximum
    spans = []
    for number, (piece, value) in enumerate(zip(pieces, values, strict=True)):
        share = min(max(value / full, 0.0), 1.0) if full > 0 else 0.0
        style = f"background-color:rgba({ACCENT},{STRONGEST * share:.3f});" if share > 0 else ""
        style += "text-decoration:underline;" if number == mark else ""
        shown = f' style="{style}"' if style else ""
        spans.append(f'<span title="{value:.3g}"{shown}>{html.escape(piece)}</span>')
    layout = "font-family:ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.8"
    return f'<div class="lab-tokens" style="{layout}">{"".join(spans)}</div>'
