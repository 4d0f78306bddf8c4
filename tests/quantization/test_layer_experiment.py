"""The `layer` experiments: what is shown is what the layer became, every knob does something, pictures say it in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lab.experiment import ConfigError, no_progress
from lab.knobs import controls
from lab.plot import DARK, LIGHT
from lab.quantization import layer_figures
from lab.quantization.blocks import find_blocks, linears
from lab.quantization.flexround import quantize_experiment as flexround
from lab.quantization.layer_experiment import BLOCKS, PARTS, LayerResult
from lab.quantization.pb_llm import quantize_experiment as pb_llm
from lab.quantization.ptq1_61 import quantize_experiment as ptq1_61
from lab.quantization.tasks import TASKS

ROOMS: dict[str, tuple[Any, Any]] = {
    "pb-llm": (pb_llm.layer, pb_llm.PBLayerConfig),
    "ptq1-61": (ptq1_61.layer, ptq1_61.PTQLayerConfig),
    "flexround": (flexround.layer, flexround.FlexLayerConfig),
}
PICTURES = ("layer_maps", "layer_histogram", "layer_bill", "layer_peers", "layer_columns")
rooms = pytest.mark.parametrize("room", sorted(ROOMS))


def run(room: str, **knobs: Any) -> LayerResult:
    measure, config = ROOMS[room]
    found: LayerResult = measure(config.parse(knobs), progress=no_progress)
    return found


def test_the_parts_are_the_models_own() -> None:
    for task, parts in PARTS.items():
        blocks = find_blocks(TASKS[task].model())[1]
        assert set(parts.values()) <= set(linears(blocks[0])) and BLOCKS[task] == len(blocks)


@rooms
def test_the_result_says_what_the_layer_became(room: str) -> None:
    result = run(room)
    assert result.weight.shape == result.rounded.shape == result.kept.shape == (64, 192)
    assert result.before.sum() == result.after.sum() == result.shape[0] * result.shape[1]
    ours = result.methods[result.methods["ours"]]
    assert len(ours) == 1 and ours.iloc[0]["method"].startswith(f"{result.method}, ")
    stored = result.bill.iloc[1][["weights", "mask", "scales", "zeros"]].sum()
    assert ours.iloc[0]["bits"] == pytest.approx(stored)
    assert stored >= result.bill.iloc[0]["weights"] - 0.01, "the paper's count leaves something out"
    assert (result.methods["error"] > 0).all() and result.column_error.sum() == pytest.approx(1, abs=1e-4)
    assert (result.share > 0) == (room != "flexround")


@rooms
def test_pictures_in_both_themes(room: str) -> None:
    result = run(room, subject="stdlib-gpt", part="mlp in")
    for name in PICTURES:
        for theme in (LIGHT, DARK):
            fig = getattr(layer_figures, name)(result, theme)
            assert len(fig.layout.title.text) > 15 and fig.data
            assert all(np.isfinite(np.asarray(trace.z, float)).all() for trace in fig.data if trace.type == "heatmap")


@rooms
def test_all_knobs_at_both_ends(room: str) -> None:
    """All at once, once at each end; of the blocks one that both models have, and few steps."""
    config = ROOMS[room][1]
    for last in (False, True):
        knobs: dict[str, Any] = {}
        for control in controls(config):
            ends = control.options or (control.low, control.high) if control.kind != "toggle" else (False, True)
            value = ends[-1 if last else 0]
            knobs[control.name] = int(value) if control.kind in ("int", "number") and value is not None else value
        knobs |= {"block": 1} | ({"steps": 2} if "steps" in config.model_fields else {})
        assert run(room, **knobs).methods["error"].notna().all(), last


def test_more_salient_weights_lose_less_and_cost_more() -> None:
    tables = [run("pb-llm", salient=share).methods.query("ours").iloc[0] for share in (0, 5, 20, 50)]
    assert [table["bits"] for table in tables] == sorted(table["bits"] for table in tables)
    assert [table["error"] for table in tables] == sorted((table["error"] for table in tables), reverse=True)


def test_a_block_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="stdlib-gpt has the blocks 0 to 3, not 4"):
        run("pb-llm", subject="stdlib-gpt", block=4)
