"""A circuit as data: its books close, a cut is what the method says it is, and what does not go together gets one sentence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import circuit_toys
import pandas as pd
import pytest
import torch

from lab import results
from lab.circuits.transcoders.attribution.ablation import ablate
from lab.circuits.transcoders.attribution.frozen_run import LogitDiff
from lab.circuits.transcoders.coders import formats
from lab.circuits.transcoders.coders.coder import CoderConfig, Transcoder
from lab.circuits.transcoders.errors import CircuitError, HookedError
from lab.circuits.transcoders.hooked import HookedGPT
from lab.circuits.transcoders.models import languages, spans_1l, spans_assets
from lab.circuits.transcoders.models.languages import EXAMPLES, START, Language, as_typed, language, own_language
from lab.circuits.transcoders.models.spans_sweep import LAMBDAS, YEARS_LAMBDA
from lab.circuits.transcoders.views.circuit import cut_experiment
from lab.circuits.transcoders.views.circuit import experiment as circuit_experiment
from lab.circuits.transcoders.views.circuit.cut_experiment import Cuts, run_cut
from lab.circuits.transcoders.views.circuit.experiment import CircuitConfig, CircuitResult, live, run_circuit
from lab.circuits.transcoders.views.circuit.words import fed_by, named, says
from lab.files import FileError
from lab.knobs import controls
from lab.provenance import Record

PIECES = ["<s>", "a", " b", "c", "<d>", "e", "f", "g", "h", "i", "↵"]
PROMPT = "1 5 2 9 3"
BOTH = [{"branches": 30}, {"method": "influence", "nodes": 0.9, "edges": 0.98}]


def encode(text: str, bos: bool) -> torch.Tensor:
    """Numbers between blanks are the tokens."""
    if not all(word.isdigit() and int(word) < len(PIECES) for word in text.split()):
        raise HookedError(f"text: {text!r} is no list of tokens")
    return torch.tensor([0] * bos + [int(word) for word in text.split()])


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Language]:
    """A random model of two layers in float64 in the place of the lab's own."""
    of = Language(
        "toy",
        circuit_toys.model(),
        circuit_toys.coders(),
        encode,
        lambda tokens: [PIECES[int(one)] for one in tokens],
        0,
        PROMPT,
    )
    monkeypatch.setattr(circuit_experiment, "language", lambda name: of)
    live.cache_clear()
    yield of
    live.cache_clear()


def circuit(**knobs: object) -> CircuitResult:
    """The toy's circuit."""
    return run_circuit(CircuitConfig.parse({"most": 120, **knobs}))


def rows(result: CircuitResult, *kinds: str) -> list[int]:
    """The nodes of some kinds."""
    return result.nodes.index[result.nodes["kind"].isin(kinds)].tolist()


@pytest.mark.parametrize(
    "knobs", [{}, {"minus": "c"}, {"root": "feature", "layer": 1, "feature": 4}, {"coders": "no layer"}]
)
def test_the_waterfall_runs_from_zero_to_the_root(toy: Language, knobs: dict[str, str]) -> None:
    result = circuit(plus="a", **knobs)
    table = result.waterfall
    assert table["start"].iloc[0] == 0 and (table["start"].to_numpy()[1:] == table["end"].to_numpy()[:-1]).all()
    assert table["end"].iloc[-1] == pytest.approx(result.value, abs=1e-11) and result.gap < 1e-12
    logits, cache = toy.model.run_with_cache(encode(PROMPT, True)[None])
    known = logits[0, -1, 1] - (logits[0, -1, 3] if "minus" in knobs else logits[0, -1].mean())
    if result.feature:
        known = toy.coders[1].pre(cache["blocks.1.ln2.hook_normalized"])[0, -1, 4]
    assert result.value == pytest.approx(float(known), abs=1e-9)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("knobs", BOTH)
def test_what_flows_into_a_node_flows_on(toy: Language, knobs: dict[str, object], merge: bool) -> None:
    result = circuit(merge=merge, **knobs)
    assert len(rows(result, "feature")) > 3 and result.nodes["kind"][0] == "root"
    inward = result.edges.groupby("target")["weight"].sum()
    assert inward[0] == pytest.approx(result.value)
    for place, flow in inward.items():
        assert flow == pytest.approx(result.nodes["contribution"][place], abs=1e-8), result.nodes["label"][place]
    assert (result.nodes["token"] == -1).all() == merge


def test_an_edge_is_what_fires_times_how_it_is_wired(toy: Language) -> None:
    """Against the formula, from the weights themselves."""
    config = CircuitConfig(root="feature", layer=1, feature=4)
    result, run = run_circuit(config), live(config).graph.run
    assert run is not None
    token, reads = len(run) - 1, toy.coders[1].W_enc[:, 4]
    wired = toy.coders[0].W_dec @ (reads - reads.mean()) / run.at("blocks.1.ln2.hook_scale")[token, 0]
    z = toy.coders[0].encode(run.inputs(0))[token]
    edges = result.edges[(result.edges["target"] == 0) & result.edges["source"].isin(rows(result, "feature"))]
    assert len(edges) > 2 and set(edges["readers"]) == {1}
    for edge in edges.itertuples():
        index = result.nodes["index"][edge.source]
        assert (edge.fires, edge.wired) == pytest.approx((float(z[index]), float(wired[index])))
        assert edge.weight == edge.direct == pytest.approx(edge.fires * edge.wired)


def test_the_edges_of_an_adjacency_reach_the_root_through_their_target(toy: Language) -> None:
    result = circuit(**BOTH[1])
    targets = set(rows(result, "feature")) & set(result.edges["target"])
    assert targets
    for place in targets:
        node = result.nodes.loc[place]
        share = node["contribution"] / node["fires"]  # what one unit of it brings
        inward = result.edges[(result.edges["target"] == place) & result.edges["cuttable"]]
        assert inward["weight"].to_numpy() == pytest.approx(inward["direct"].to_numpy() * share)


@pytest.mark.parametrize("knobs", BOTH)
def test_what_stands_behind_the_position_is_not_read(toy: Language, knobs: dict[str, object]) -> None:
    whole = circuit(prompt="1 5 2 9 3", position=3, **knobs)
    until = circuit(prompt="1 5 2", **knobs)
    pd.testing.assert_frame_equal(whole.nodes, until.nodes)
    pd.testing.assert_frame_equal(whole.edges, until.edges)
    assert whole.tokens == (START, "a", "e", " b", "i", "c") and whole.position == 3 and whole.value == until.value


def test_the_root_is_named_and_measured(toy: Language) -> None:
    logits = toy.model(encode(PROMPT, True)[None])[0, -1]
    best = PIECES[int(logits.argmax())].replace(" ", "␣")
    result = circuit()
    assert result.root == f"why ‘{best}’ comes next rather than the average token" and not result.feature
    assert result.value == pytest.approx(float(logits.max() - logits.mean()))
    assert result.measure == f"logit of ‘{best}’ minus the mean of all"
    assert circuit(plus="␣b", minus="c").root == "why ‘␣b’ comes next rather than ‘c’"
    probability = result.logits.set_index("token")["probability"]
    assert probability[int(logits.argmax())] == pytest.approx(float(logits.softmax(-1).max()))
    assert circuit(root="feature", layer=1, feature=4).measure == "pre-activation of feature 4 of layer 1"


@pytest.mark.parametrize("most", [5, 20])
def test_the_least_influential_go_first(toy: Language, most: int) -> None:
    whole, few = circuit(branches=30), circuit(branches=30, most=most)
    assert sum(few.nodes["kind"] != "rest") <= most < sum(whole.nodes["kind"] != "rest")
    assert few.edges.groupby("target")["weight"].sum()[0] == pytest.approx(whole.value)


@pytest.mark.parametrize("knobs", BOTH)
def test_a_cut_is_an_ablation(toy: Language, knobs: dict[str, object]) -> None:
    config = CircuitConfig.parse({"most": 120, **knobs})
    circuit = live(config)
    run, root = circuit.graph.run, circuit.graph.root
    assert run is not None and isinstance(root, LogitDiff)
    for place in [*rows(circuit.result, "feature")[:2], *rows(circuit.result, "head", "embedding", "error")[:3]]:
        found = run_cut(config, Cuts((place,)))
        (node,) = circuit.nodes[place]
        for frozen, after in ((False, found.live), (True, found.frozen)):
            known = ablate(run, root, [node], frozen=frozen)
            assert after == known.after and found.before == pytest.approx(circuit.result.value)
        assert found.cuts == (circuit.result.nodes["label"][place],) and not found.note
        wanted = ablate(run, root, [node]).logits_after.softmax(-1)
        for row in found.logits.itertuples():
            assert row.after == pytest.approx(float(wanted[row.token]))


def test_nothing_cut_changes_nothing(toy: Language) -> None:
    found = run_cut(CircuitConfig(), Cuts())
    assert found.live == pytest.approx(found.before) and found.frozen == pytest.approx(found.before)
    assert found.logits["after"].tolist() == pytest.approx(found.logits["before"].tolist()) and found.cuts == ()


def test_an_edge_into_the_answer_takes_its_weight_off(toy: Language) -> None:
    result = circuit()
    into = result.edges.index[(result.edges["target"] == 0) & result.edges["cuttable"]].tolist()
    found = run_cut(CircuitConfig.parse({"most": 120}), Cuts(edges=tuple(into[:2])))
    taken = float(result.edges["weight"][into[:2]].sum())
    assert found.live == pytest.approx(result.value - taken) and found.frozen == pytest.approx(result.value - taken)
    assert found.note == cut_experiment.INTO_ROOT and found.logits["after"].tolist() == found.logits["before"].tolist()
    assert found.cuts[0] == named(result, "edge", into[0]) and " → the answer" in found.cuts[0]


def test_an_edge_is_not_cut_twice(toy: Language) -> None:
    """Nothing flows along an edge whose source is gone."""
    config = CircuitConfig.parse({"most": 120, "method": "influence", "nodes": 0.95, "edges": 0.98})
    result = run_circuit(config)
    place = next(place for place in rows(result, "feature") if result.edges["source"].eq(place).sum() > 1)
    edges = tuple(result.edges.index[result.edges["source"] == place])
    alone, both = run_cut(config, Cuts((place,))), run_cut(config, Cuts((place,), edges))
    assert both.live == alone.live and both.frozen == alone.frozen and len(both.cuts) == 1 + len(edges)


def test_merged_nodes_are_cut_at_all_positions(toy: Language) -> None:
    one, merged = (CircuitConfig.parse({"most": 120, "branches": 30, "merge": merge}) for merge in (False, True))
    apart, together = run_circuit(one), run_circuit(merged)
    flows = [found.edges["weight"][found.edges["cuttable"]].sum() for found in (apart, together)]
    assert flows[0] == pytest.approx(flows[1])
    many = next(place for place, same in enumerate(live(merged).nodes) if len(same) > 1 and same[0].kind == "feature")
    node = together.nodes.loc[many]
    places = apart.nodes.index[
        (apart.nodes["kind"] == "feature")
        & (apart.nodes["layer"] == node["layer"])
        & (apart.nodes["index"] == node["index"])
    ]
    assert len(places) == len(live(merged).nodes[many])
    assert run_cut(merged, Cuts((many,))).live == run_cut(one, Cuts(tuple(places))).live
    assert "all positions" in node["label"] and apart.nodes["fires"][places].sum() == pytest.approx(node["fires"])


def test_what_cannot_be_cut_gets_a_sentence(toy: Language) -> None:
    result = circuit()
    wrong = {
        "node 0 cannot be cut, it is the answer": Cuts((0,)),
        "cannot be cut, it is what is not drawn": Cuts((rows(result, "rest")[0],)),
        "stands for what is not drawn": Cuts(edges=(int(result.edges.index[~result.edges["cuttable"]][0]),)),
        "there is no node 9999": Cuts((9999,)),
        "there is no edge -1": Cuts(edges=(-1,)),
    }
    for sentence, cuts in wrong.items():
        with pytest.raises(CircuitError, match=f"cuts: .*{sentence}"):
            run_cut(CircuitConfig.parse({"most": 120}), cuts)
    with pytest.raises(FileError, match="made by clicking"):
        Cuts.read(b"", name="cuts.csv")


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"plus": "zebra"}, "plus: ‘zebra’ is not one token of toy; tokens like it are .*‘e’"),
        ({"minus": " c"}, "minus: ‘␣c’ is not one token of toy; tokens like it are ‘c’"),
        ({"plus": "1 2"}, "plus: .*tokens like it are ‘a’, ‘␣b’"),
        ({"plus": "c", "minus": "c"}, "minus: ‘c’ is what it is compared with"),
        ({"position": 6}, "position: 6 lies beyond the prompt, which has positions 0 ... 5"),
        ({"root": "feature", "layer": 7}, "layer 7 does not exist"),
        ({"root": "feature", "layer": 0, "feature": 30}, "feature 30 does not exist"),
        ({"root": "feature", "coders": "no layer"}, "root: there is no feature to explain without transcoders"),
        ({"prompt": "hello"}, "text: 'hello' is no list of tokens"),
    ],
)
def test_what_does_not_go_together_gets_a_sentence(toy: Language, knobs: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        circuit(**knobs)
    assert "\n" not in str(caught.value)


def test_a_missing_boundary_is_said_with_what_it_changes(toy: Language) -> None:
    with_it, without = circuit(plus="a"), circuit(plus="a", bos=False)
    (warning,) = without.warnings
    assert START in warning and f"{without.value:+.2f} instead of {with_it.value:+.2f}" in warning
    assert not with_it.warnings and without.tokens == with_it.tokens[1:]


def test_a_silent_feature_and_whole_mlps_are_said(toy: Language) -> None:
    tokens = encode(PROMPT, True)
    _, cache = toy.model.run_with_cache(tokens[None])
    silent = int(toy.coders[1].pre(cache["blocks.1.ln2.hook_normalized"])[0, -1].argmin())
    assert "does not fire here" in circuit(root="feature", layer=1, feature=silent).warnings[0]
    assert "one grey node" in circuit(coders="no layer").warnings[0]
    assert not rows(circuit(coders="no layer"), "feature")


def test_influence_without_transcoders_runs_through_whole_mlps(toy: Language) -> None:
    result = circuit(method="influence", coders="no layer", nodes=0.95)
    assert set(result.nodes["kind"]) <= {"root", "mlp", "embedding", "rest"} and rows(result, "mlp")
    assert result.gap < 1e-12 and result.scores["completeness"] < 1


def test_circuits_are_kept_and_serve_all_threads(toy: Language) -> None:
    first = live(CircuitConfig(branches=1))
    assert live(CircuitConfig(branches=1)) is first
    errors: list[BaseException] = []

    def ask(branches: int) -> None:
        config = CircuitConfig(branches=branches)
        try:
            place = rows(run_circuit(config), "head", "feature", "embedding")[0]
            assert len(run_cut(config, Cuts((place,))).cuts) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(branches,)) for branches in (1, 2, 3, 4, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and live(CircuitConfig(branches=1)) is first


def test_a_head_of_the_first_layer_stands_on_the_token_that_it_reads(toy: Language) -> None:
    """What it moves is made of that token and its position alone."""
    result, run = circuit(coders="no layer"), live(CircuitConfig(coders="no layer", most=120)).graph.run
    assert run is not None
    first = result.nodes[(result.nodes["kind"] == "head") & (result.nodes["layer"] == 0)]
    assert len(first)
    for place, node in first.iterrows():
        into = result.edges[result.edges["target"] == place]
        assert result.nodes.loc[into["source"], ["kind", "token"]].values.tolist() == [["embedding", node["source"]]]
        assert into["weight"].sum() == pytest.approx(node["contribution"])
    assert not (result.edges["weight"] == 0).any()


def test_words_say_what_the_numbers_are(toy: Language) -> None:
    result = circuit()
    place = rows(result, "feature")[0]
    node = result.nodes.loc[place]
    assert says(result, "node", place)[0].startswith(f"{node['contribution']:+.2f} = {node['fires']:.2f} (fires) × ")
    assert named(result, "node", place) == node["label"] and "of layer" in node["label"]
    (head,) = rows(result, "head")[:1]
    assert "(attends)" in says(result, "node", head)[0]
    fed = fed_by(result, 0, 3)
    assert len(fed) == 3 and abs(fed[0][1]) >= abs(fed[1][1]) >= abs(fed[2][1])
    logits = toy.coders[node["layer"]].W_dec[node["index"]] @ toy.model.W_U
    assert node["writes"].startswith(f"‘{PIECES[int(logits.argmax())].replace(' ', '␣')}’")


def test_results_are_stored_and_read_back(toy: Language, tmp_path: Path) -> None:
    result = circuit()
    results.save(tmp_path / "circuit", result, Record.now(run_circuit, 1.0, opened={}))
    again, _ = results.load(tmp_path / "circuit", CircuitResult)
    pd.testing.assert_frame_equal(again.nodes, result.nodes)
    assert again.tokens == result.tokens and again.direct == result.direct


def test_knobs_can_be_drawn_and_sources_stay_private() -> None:
    drawn = {control.name: control for control in controls(CircuitConfig)}
    assert sum(control.primary for control in drawn.values()) == 4
    assert {name for name, control in drawn.items() if control.private} == {"source", "coder_source"}


def test_tokens_as_people_type_them(toy: Language) -> None:
    assert [toy.token(text, "plus") for text in ("a", " b", "␣b", "↵", "7")] == [1, 2, 2, 10, 7]
    assert as_typed(r"a↵b\tc⇥d␣e") == "a\nb\tc\td e"
    assert toy.seen([0, 1]) == [START, "a"]


@pytest.mark.parametrize("prompt", ["", "   ", EXAMPLES["stdlib-gpt"]])
def test_a_prompt_that_was_left_is_the_model_s_own(toy: Language, prompt: str) -> None:
    assert circuit(prompt=prompt).tokens == tuple(toy.seen(encode(PROMPT, True).tolist()))


def test_the_spans_language_reads_years(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = CoderConfig(128, 64, 128, hook_name="blocks.0.ln2.hook_normalized", hook_name_out="blocks.0.hook_mlp_out")
    coders = {("transcoder", lam): Transcoder(cfg, generator=torch.Generator().manual_seed(0)) for lam in LAMBDAS}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HookedGPT(spans_1l.CONFIG)
    monkeypatch.setattr(spans_1l, "load", lambda: model)
    monkeypatch.setattr(spans_assets, "spans_coders", lambda: coders)
    of = languages._spans.__wrapped__()
    tokens = of.encode(of.example, True)
    assert of.seen(tokens.tolist())[:2] == [START, "the"] and len(of.encode(of.example, False)) == len(tokens) - 1
    assert of.coders[0] is coders["transcoder", LAMBDAS[YEARS_LAMBDA]]
    assert of.vocabulary[of.token("##58", "plus")] == "##58"
    with pytest.raises(CircuitError, match="minus: ‘58’ is not one token of spans-1l; tokens like it are ‘##58’"):
        of.token("58", "minus")


def test_the_lab_s_own_model() -> None:
    result = run_circuit(CircuitConfig())
    of = language("stdlib-gpt")
    tokens = of.encode(as_typed(of.example), True)
    logits = of.model(tokens[None])[0, -1]
    assert result.answer == "‘path’" and result.value == pytest.approx(float(logits.max() - logits.mean()), rel=1e-4)
    assert result.gap < 1e-5 and 0 < result.direct["share"] <= 1 and result.scores["replacement"] > 0


def test_a_model_of_one_s_own(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<|endoftext|>", "the", "cat", "sat", "on", "mat", "dog", ".", "[unk]", "The"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[0], unk_token="[unk]").save_pretrained(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=len(words), n_positions=16, n_embd=12, n_layer=2, n_head=2)
        GPT2LMHeadModel(config).save_pretrained(tmp_path)
    coders = {layer: coder.float() for layer, coder in circuit_toys.coders().items()}
    formats.save_coders(coders, tmp_path / "coders", format="saelens")
    knobs = {"source": str(tmp_path), "coder_source": str(tmp_path / "coders"), "plus": "mat"}
    result = run_circuit(CircuitConfig(**knobs))
    assert result.tokens[:3] == (START, "The", "cat") and result.gap < 1e-5 and rows(result, "feature")
    whole = run_circuit(CircuitConfig(source=str(tmp_path), prompt="the dog sat"))
    assert not rows(whole, "feature") and "one grey node" in whole.warnings[0]
    with pytest.raises(ValueError, match="neither a folder on this machine nor a hub id"):
        own_language(str(tmp_path / "nowhere"))
