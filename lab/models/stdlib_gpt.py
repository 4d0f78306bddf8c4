"""`stdlib-gpt`: a GPT-2 of 3.5 million parameters that reads Python, trained by the lab on the frozen standard library.

An ordinary `GPT2LMHeadModel` in an ordinary folder, so whatever works on GPT-2 works on it; small enough to take apart.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast  # here: in two threads at once they fail

from lab.cache import cached
from lab.datasets import corpus
from lab.models import hub
from lab.train import Recipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "stdlib-gpt"
VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 1000, 256, 256, 4, 8
STEPS, BATCH, RATE, WARM_UP, LAST_RATE = 10_000, 16, 2e-3, 200, 0.05
DROPOUT, WEIGHT_DECAY, BETAS = 0.0, 0.1, (0.9, 0.95)
HELD_OUT = 20  # one module in twenty, chosen by its name
BOUNDARY = "<|endoftext|>"  # token 0: before each module
PROMPTS = (
    "def read_json(path):\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "import os\nimport sys\n\n",
    '    """Return the number of',
)


def load() -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The shipped model, float32 and in evaluation mode, with its tokenizer.

    Raises AssetError naming the file and the repair when it is missing or damaged.

    >>> model, tokenizer = load()
    >>> model.config.n_layer, model.config.n_embd, len(tokenizer)
    (4, 256, 1000)
    """
    from lab import assets

    folder = assets.folder(NAME)
    return hub.load(GPT2LMHeadModel, folder, dtype=torch.float32), hub.load(PreTrainedTokenizerFast, folder)


def split() -> tuple[dict[str, str], dict[str, str]]:
    """The standard library's modules that the model was trained on, and those it never saw: about one in twenty, by name.

    >>> seen, held_out = split()
    >>> sorted(held_out)[:3], set(seen) & set(held_out)
    (['_sitebuiltins.py', 'asyncio/events.py', 'chunk.py'], set())
    """
    seen: dict[str, str] = {}
    held_out: dict[str, str] = {}
    for place, text in corpus.source().items():
        chosen = int(hashlib.sha256(place.encode()).hexdigest(), 16) % HELD_OUT == 0
        (held_out if chosen else seen)[place] = text
    return seen, held_out


@cached(maxsize=1)
def make_tokenizer() -> Tokenizer:
    """Byte-pair encoding of 1,000 tokens over bytes, as GPT-2's, learned on the modules the model is trained on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOUNDARY],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(split()[0].values(), trainer)
    return tokenizer


def tokens(texts: Iterable[str]) -> Int[Tensor, " n"]:
    """All texts as one stream of tokens, a boundary before each."""
    encoded = make_tokenizer().encode_batch(list(texts))
    return torch.tensor([token for text in encoded for token in (0, *text.ids)])


@dataclass(frozen=True)
class Windows:
    """Every window of `length` tokens of a stream, by its start."""

    stream: Int[Tensor, " n"]
    length: int = CONTEXT

    def __len__(self) -> int:
        return len(self.stream) - self.length + 1

    def __getitem__(self, index: Int[Tensor, " b"]) -> Int[Tensor, "b t"]:
        return self.stream[index[:, None] + torch.arange(self.length)]


def new_model() -> GPT2LMHeadModel:
    """The untrained model. GELU is GPT-2's, by torch's own kernel."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=DROPOUT,
            embd_pdrop=DROPOUT,
            attn_pdrop=DROPOUT,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def next_token_loss(model: nn.Module, batch: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Cross-entropy of each token given those before it, in nats, averaged: ``t - 1`` predictions per row."""
    logits = model(input_ids=batch).logits  # (b, t, vocabulary)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())


def loss(model: nn.Module, batch: Int[Tensor, "b t"]) -> Float[Tensor, ""]:
    """What training minimises: the next token's loss, matrix products in bfloat16."""
    with torch.autocast(batch.device.type, torch.bfloat16):
        return next_token_loss(model, batch)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, weight decay on matrices alone."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)


def schedule(step: int) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine down to a twentieth."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    turn = math.pi * (step - WARM_UP) / (STEPS - WARM_UP)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(turn)) / 2


def held_out_loss(model: nn.Module) -> dict[str, float]:
    """Loss on the modules it never saw, in windows of the whole context: nats per token, and bits per character of text."""
    texts = split()[1].values()
    stream = tokens(texts)
    windows = Windows(stream)
    starts = torch.arange(0, len(windows), CONTEXT)
    device = next(model.parameters()).device
    total = 0.0
    for some in starts.split(64):
        batch = windows[some].to(device)
        total += float(next_token_loss(model, batch)) * len(some)
    nats = total / len(starts)
    characters = sum(map(len, texts))
    return {
        "held_out_loss": round(nats, 4),
        "held_out_perplexity": round(math.exp(nats), 3),
        "held_out_bits_per_character": round(nats / math.log(2) * len(stream) / characters, 4),
    }


def write(model: nn.Module, folder: Path) -> dict[str, Any]:
    """The folder that `from_pretrained` reads: float16 weights, config, tokenizer; and what the shipped weights do.

    The config says float32, so that plain `from_pretrained` computes in it: on a processor, half precision is slow.
    """
    half = new_model().half()
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    half.config.dtype = torch.float32
    half.config.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), bos_token=BOUNDARY, eos_token=BOUNDARY, model_max_length=CONTEXT
    )
    tokenizer.save_pretrained(folder)
    shipped = hub.load(GPT2LMHeadModel, folder)
    with torch.no_grad():
        return {"metrics": held_out_loss(shipped), "samples": samples(shipped)}


def samples(model: GPT2LMHeadModel, length: int = 80) -> list[str]:
    """Greedy continuations of each of `PROMPTS`: the prompt and up to ``length`` tokens more."""
    tokenizer = make_tokenizer()
    texts = []
    for prompt in PROMPTS:
        start = torch.tensor([[0, *tokenizer.encode(prompt).ids]])
        found = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=length, do_sample=False)
        texts.append(tokenizer.decode(found[0].tolist()))
    return texts


RECIPE = Recipe(
    name=NAME,
    model=new_model,
    examples=lambda: Windows(tokens(split()[0].values())),
    loss=loss,
    optimizer=optimizer,
    schedule=schedule,
    clip=1.0,
    steps=STEPS,
    batch=BATCH,
    evaluate=held_out_loss,
    evaluate_every=1000,
    write=write,
    config={
        "layers": LAYERS,
        "width": WIDTH,
        "heads": HEADS,
        "context": CONTEXT,
        "vocabulary": VOCABULARY,
        "optimizer": "AdamW",
        "rate": RATE,
        "warm_up": WARM_UP,
        "last_rate": LAST_RATE,
        "betas": BETAS,
        "weight_decay": WEIGHT_DECAY,
        "dropout": DROPOUT,
        "clip": 1.0,
        "precision": "bfloat16 products",
    },
    data="the frozen source of Python's standard library (stdlib-source), 19 modules in 20",
    licence="trained on text under PSF-2.0",
)
