"""Other people's models: what is there is loaded whole, what is not is one sentence, and no code ever runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from lab.models import hub
from lab.models.hub import ModelError, load

TINY: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ),
    "bert": lambda: transformers.BertModel(
        transformers.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
    ),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8, word_embed_proj_dim=8
        )
    ),
}


def unet() -> diffusers.UNet2DModel:
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    TINY["gpt2"]().save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.mark.parametrize("family", sorted(TINY))
def test_a_local_folder_becomes_the_model_that_was_saved(family: str, tmp_path: Path) -> None:
    model = TINY[family]()
    model.save_pretrained(tmp_path)
    found = load(type(model), tmp_path)
    assert type(found) is type(model) and not found.training
    assert all(torch.equal(weight, found.state_dict()[name]) for name, weight in model.state_dict().items())
    assert load(transformers.AutoModel, str(tmp_path), dtype=torch.float16).dtype == torch.float16


def test_diffusers_models_schedulers_and_pipelines(tmp_path: Path) -> None:
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(num_train_timesteps=7)).save_pretrained(tmp_path)
    assert isinstance(load(diffusers.DiffusionPipeline, tmp_path), diffusers.DDPMPipeline)
    assert not load(diffusers.UNet2DModel, tmp_path / "unet").training
    assert load(diffusers.DDPMScheduler, tmp_path / "scheduler").config.num_train_timesteps == 7
    (tmp_path / "unet" / "surprise.py").write_text("raise SystemExit")
    with pytest.raises(ModelError, match=r"brings code of its own \(surprise.py\), which is never run"):
        load(diffusers.DiffusionPipeline, tmp_path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hub models, and no requests."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def test_a_hub_id_is_taken_from_the_cache_without_a_request(cache: Path) -> None:
    commit = "0" * 40
    repository = cache / "models--someone--tiny"
    TINY["gpt2"]().save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert type(load(transformers.AutoModelForCausalLM, "someone/tiny")).__name__ == "GPT2LMHeadModel"
    with pytest.raises(ModelError, match="someone/tiny is not on this machine"):
        load(transformers.AutoModelForCausalLM, "someone/tiny", revision="other")


def test_offline_is_said_and_no_request_is_made(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no(*_: Any, **__: Any) -> None:
        raise AssertionError("a request")

    monkeypatch.setattr(socket, "getaddrinfo", no)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set; run `hf download someone/tiny` once") as caught:
        load(transformers.AutoModel, "someone/tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("LocalEntryNotFoundError", "the hub cannot be reached; run `hf download a/b`"),
        ("GatedRepoError", "accepted its terms"),
        ("RepositoryNotFoundError", "the hub has no model a/b, or it is private"),
        ("RevisionNotFoundError", "a/b has no revision 'v9'"),
        ("OSError", r"a/b cannot be fetched \(no space"),
    ],
)
def test_what_the_hub_answers_is_one_sentence(
    failure: str, says: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub import errors

    asked: dict[str, Any] = {}

    def answer(name: str, **options: Any) -> str:
        asked.update(options)
        if failure in ("LocalEntryNotFoundError", "OSError"):
            raise getattr(errors, failure, OSError)("no space")
        raise getattr(errors, failure)("no", response=httpx.Response(404, request=httpx.Request("GET", "http://hub")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(ModelError, match=says):
        load(transformers.AutoModel, "a/b", revision="v9")
    assert asked["local_files_only"] is False and not [name for name in asked["allow_patterns"] if name.endswith("py")]


@pytest.mark.parametrize("place", ["../secret", "/nowhere/at/all", "https://example.org/model", "", "a/b/c", "a b"])
def test_what_is_no_place_is_one_sentence(place: str, cache: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder on this machine nor a hub id"):
        load(transformers.AutoModel, place)


def test_code_of_a_config_is_not_run(gpt2: Path, tmp_path: Path) -> None:
    config = json.loads((gpt2 / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (gpt2 / "config.json").write_text(json.dumps(config))
    (gpt2 / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(transformers.AutoModel, gpt2)
    assert not (tmp_path / "ran").exists()
    for option in hub.NOT_OPTIONS:
        with pytest.raises(ModelError, match=f"{option} is not up to you"):
            load(transformers.AutoModel, gpt2, **{option: True})


def test_pickles_are_refused_unread(gpt2: Path) -> None:
    (gpt2 / "model.safetensors").rename(gpt2 / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"as a pickle \(pytorch_model.bin\).* save_pretrained, which writes safetensors"
    ):
        load(transformers.GPT2LMHeadModel, gpt2)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:20], lambda data: b"", lambda data: b"{" * 99]
)
def test_damaged_weights_are_one_sentence(damage: Callable[[bytes], bytes], gpt2: Path) -> None:
    weights = gpt2 / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load(transformers.GPT2LMHeadModel, gpt2)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_missing_weights_are_not_made_up(gpt2: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks 1 weights of a GPT2ForSequenceClassification \(score.weight, ...\)"):
        load(transformers.AutoModelForSequenceClassification, gpt2)


def test_an_index_leads_nowhere_else(gpt2: Path, tmp_path: Path) -> None:
    index = gpt2 / "model.safetensors.index.json"
    (gpt2 / "evil.bin").write_bytes(b"a pickle")
    (tmp_path / "outside.safetensors").write_bytes((gpt2 / "model.safetensors").read_bytes())
    for name in ("evil.bin", "../outside.safetensors", "../../../../etc/passwd", "nosuch.safetensors", 7):
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"transformer.wte.weight": name}}))
        with pytest.raises(ModelError, match="which is no safetensors file beside it"):
            load(transformers.GPT2LMHeadModel, gpt2)
    index.write_text("[]")
    with pytest.raises(ModelError, match="is no index of weights"):
        load(transformers.GPT2LMHeadModel, gpt2)


def test_shards_are_read(tmp_path: Path) -> None:
    model = TINY["gpt2"]()
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = load(transformers.GPT2LMHeadModel, tmp_path)
    assert all(torch.equal(weight, found.state_dict()[name]) for name, weight in model.state_dict().items())


def test_a_unet_without_a_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.bias"]
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"lacks 1 weights of a UNet2DModel \(conv_in.bias"):
        load(diffusers.UNet2DModel, tmp_path / "unet")
    with pytest.raises(ModelError, match="lacks some of its weights|cannot be loaded"):
        load(diffusers.DiffusionPipeline, tmp_path)


@pytest.mark.parametrize("change", [{"n_embd": 16}, {"n_head": 0}, {"n_head": "two"}, {"vocab_size": -1}])
def test_a_config_that_lies_is_one_sentence(change: dict[str, Any], gpt2: Path) -> None:
    config = json.loads((gpt2 / "config.json").read_text())
    (gpt2 / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError) as caught:
        load(transformers.GPT2LMHeadModel, gpt2)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("kind", ["GPT2", None, dict])
def test_kind_is_a_class_that_loads(kind: Any, gpt2: Path) -> None:
    with pytest.raises(ModelError, match="kind must be a class of transformers or diffusers"):
        load(kind, gpt2)


def test_other_folders_are_one_sentence(gpt2: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        load(transformers.AutoModel, tmp_path)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load(transformers.AutoTokenizer, gpt2)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(diffusers.UNet2DModel, gpt2)
    (gpt2 / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(transformers.AutoModel, gpt2)


def test_offline_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert hub.offline() is expected
