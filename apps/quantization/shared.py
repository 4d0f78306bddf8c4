"""What the pages of the three quantization papers share: a file to try, and what stands below their views."""

from __future__ import annotations

import streamlit as st
import ui
from ui import knobs

TOKENS = 1024  # of the sample's inputs
UNTESTED = """A model of your own, from a folder or the hub, is quantized by the same code, block by block. Each family is
tested with small random weights; **untested on released weights**."""


def query() -> bytes:
    """One layer of MiniLM, and what calibration brings into it."""
    import torch
    from safetensors.torch import save

    from lab.quantization.one_layer import NAME, layer_inputs

    work = layer_inputs("minilm", 2, "attention.self.query")
    inputs = torch.cat([call.hidden.flatten(0, -2) for call in work.calls_full])[:TOKENS]
    return save({"query": work.weight(NAME).contiguous(), "inputs": inputs.half().contiguous()})


SAMPLE = ui.Sample(
    "minilm-query.safetensors",
    query,
    "the query weights of MiniLM's third block, and 1,024 tokens that go into them",
    mime="application/octet-stream",
)


def page(slug: str) -> None:
    """Draw the page of one of the papers."""
    room = ui.open_paper(slug)
    ui.stage(room, sample=SAMPLE)
    if room.view.experiment == "model":
        from lab.quantization.model_experiment import STEPS

        st.caption(
            f"The other methods that learn take {STEPS} steps a block here, at rates tuned for it; the ledger compares "
            "all at equal steps."
        )
    if any(control.private for control in knobs.visible(room.experiment.config)):
        st.caption(UNTESTED)
    ui.close_paper(room)
