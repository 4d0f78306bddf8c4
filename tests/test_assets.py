"""Assets: what is shipped is whole and small; what is damaged is named, never loaded, and repaired."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recipes
import torch
from recipes import NOISY, SLOW
from safetensors.torch import load_file
from typer.testing import CliRunner

from lab import assets, paths
from lab.assets import AssetError, Entry, Maker
from lab.cli import app
from lab.train import Training, train

HERE = Path(__file__).parent
SHORT = dataclasses.replace(NOISY, steps=20)
runner = CliRunner(env={"COLUMNS": "200"})


@pytest.mark.parametrize("name", sorted(assets.register()))
def test_what_is_shipped_is_whole_small_and_safe(name: str) -> None:
    folder = assets.shipped() / name
    assert assets.damage(name) == "" and assets.folder(name) == folder
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= assets.MAX_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    card, recipe = assets.card(name), assets.recipe(name)
    assert card.name == recipe.name == name and card.command == f"lab train {name}"
    assert card.config == json.loads(json.dumps(dict(recipe.config))) and card.seed == recipe.seed
    assert card.data and card.licence and card.metrics and card.minutes > 0
    if not isinstance(recipe, Maker):
        assert (card.steps, card.batch) == (recipe.steps, recipe.batch) and card.curve[-1][0] == card.steps


def test_nothing_lies_beside_the_register() -> None:
    folders = {path.name for path in assets.shipped().iterdir() if path.is_dir()}
    assert folders == set(assets.register())


@pytest.fixture(scope="module")
def trained() -> Training:
    """SHORT, trained."""
    return train(SHORT)


@pytest.fixture
def house(trained: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab of its own that ships one asset, noisy, from a clone's folder."""
    root = tmp_path / "clone" / "data" / "checkpoints"
    root.mkdir(parents=True)
    monkeypatch.setattr(assets, "shipped", lambda: root)
    monkeypatch.setattr(assets, "register", lambda: {"noisy": Entry(title="Noise", recipe="recipes:NOISY")})
    assets.write(SHORT, trained, root, title="Noise", command="lab train noisy")
    return root


def commit(house: Path) -> None:
    """Make the house a clone with everything committed."""
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=house.parents[1], check=True)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("model.safetensors", flip, "has another checksum than the manifest says"),
    ("model.safetensors", cut, "has another checksum than the manifest says"),
    ("card.json", flip, "has another checksum than the manifest says"),
    ("model.safetensors", lambda path: path.unlink(), "cannot be read (No such file or directory)"),
    ("stranger.bin", lambda path: path.write_bytes(b"x"), "is not in the manifest"),
    ("stranger", lambda path: path.mkdir(), "is not in the manifest"),
]


def test_written_and_read_back(house: Path) -> None:
    card = assets.card("noisy")
    assert card.steps == 20 and card.samples == ("a sample",) and card.metrics["error"] > 0
    assert [step for step, _ in card.curve] == list(range(1, 21)) and card.data == "points on a line"
    again = train(SHORT).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in assets.tensors("noisy").items())


@pytest.mark.parametrize(("file", "harm", "says"), DAMAGES)
def test_damage_is_named_and_never_loaded(house: Path, file: str, harm: Callable[[Path], object], says: str) -> None:
    harm(house / "noisy" / file)
    assert assets.damage("noisy") == f"{house / 'noisy' / file} {says}"
    for read in (assets.folder, assets.card, assets.tensors):
        with pytest.raises(AssetError, match=r"lab assets --repair"):
            read("noisy")
    assert runner.invoke(app, ["assets"]).exit_code == 0
    shown = runner.invoke(app, ["assets", "--verify"])
    assert shown.exit_code == 1 and "damaged" in shown.stdout


@pytest.mark.parametrize(("file", "harm", "says"), DAMAGES)
def test_a_clone_repairs_from_its_last_commit(
    house: Path, file: str, harm: Callable[[Path], object], says: str
) -> None:
    commit(house)
    before = {path.name: path.read_bytes() for path in (house / "noisy").iterdir()}
    harm(house / "noisy" / file)
    done = runner.invoke(app, ["assets", "--repair", "--verify"])
    assert done.exit_code == 0 and "restored from the last commit" in done.stdout
    assert {path.name: path.read_bytes() for path in (house / "noisy").iterdir()} == before


@pytest.mark.parametrize("content", [None, "{}", "{", '{"noisy": {}}', '{"noisy": {"card.json": "0"}}'])
def test_a_clone_repairs_its_manifest(house: Path, content: str | None) -> None:
    commit(house)
    (house / "manifest.json").unlink()
    if content is not None:
        (house / "manifest.json").write_text(content)
    assert assets.damage("noisy")
    done = runner.invoke(app, ["assets", "--repair", "--verify"])
    assert done.exit_code == 0 and "restored from the last commit" in done.stdout


def test_a_folder_that_became_something_else_is_repaired(house: Path) -> None:
    commit(house)
    shutil.rmtree(house / "noisy")
    (house / "noisy").symlink_to(house / "nowhere")
    assert "cannot be read" in assets.damage("noisy")
    assert runner.invoke(app, ["assets", "--repair", "--verify"]).exit_code == 0
    (house / "noisy" / ".DS_Store").write_bytes(b"x")
    assert assets.damage("noisy") == ""


def test_a_left_over_state_of_other_settings_is_a_sentence_in_a_repair(house: Path) -> None:
    flip(house / "noisy" / "model.safetensors")
    train(dataclasses.replace(NOISY, steps=7), folder=paths.user_folder("training", "noisy"), minutes=1e-9)
    done = runner.invoke(app, ["assets", "--repair"])
    assert done.exit_code == 2 and "--fresh" in done.stderr and done.stderr.count("\n") == 1


def test_a_card_of_another_version_is_a_sentence(house: Path) -> None:
    path = house / "noisy" / "card.json"
    path.write_text(path.read_text().replace('"seed"', '"seeds"'))
    manifest = json.loads((house / "manifest.json").read_text())
    manifest["noisy"]["card.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (house / "manifest.json").write_text(json.dumps(manifest))
    assert assets.damage("noisy") == ""
    with pytest.raises(AssetError, match="is no card that this lab reads"):
        assets.card("noisy")


def test_a_repair_that_is_interrupted_is_repeated(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(house)
    for path in (house / "noisy").iterdir():
        flip(path)
    (house / "manifest.json").write_text("{}}")
    write_atomic, done = paths.write_atomic, []

    def interrupted(path: Path, content: bytes | str) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        write_atomic(path, content)
        done.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(paths, "write_atomic", interrupted)
        result = runner.invoke(app, ["assets", "--repair"])
        assert result.exit_code == 130 and len(done) == 2
    assert assets.damage("noisy")
    assert runner.invoke(app, ["assets", "--repair", "--verify"]).exit_code == 0
    assert assets.damage("noisy") == ""


def test_without_a_clone_it_is_trained_again_for_the_reader(house: Path) -> None:
    flip(house / "noisy" / "model.safetensors")
    done = runner.invoke(app, ["assets", "--repair", "--verify"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "trained again, into your folder" in said and "yours" in said and "stands in" in said
    assert assets.folder("noisy") == assets.own() / "noisy" and assets.card("noisy").steps == NOISY.steps
    assert assets.damage("noisy")  # what is shipped is left as it was
    assert "your own training stands in" in runner.invoke(app, ["assets", "--repair"]).stdout


def test_a_damaged_manifest_is_a_sentence(house: Path) -> None:
    for content in ("{", "[]", '{"noisy": {"../../x": "0"}}', '{"../x": {}}', '{"noisy": 3}'):
        (house / "manifest.json").write_text(content)
        assert "manifest.json cannot be read" in assets.damage("noisy")
        with pytest.raises(AssetError, match="--repair"):
            assets.folder("noisy")


@pytest.mark.parametrize("name", ["..", "../noisy", "a/b", "", "A", "a--b", ".", "noisy\n", "a" * 300 + "!"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(AssetError, match="small letters"):
        assets.folder(name)
    result = runner.invoke(app, ["train", "--", name])
    assert result.exit_code == 2 and result.stderr.startswith("lab: an asset's name")
    assert len(result.stderr) < 200


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nosuch", "there is no asset 'nosuch'; there are"),
        ("nosuch:RECIPE", "no recipe at 'nosuch:RECIPE'"),
        ("recipes:NOSUCH", "no recipe at 'recipes:NOSUCH'"),
        ("recipes:POINTS", "is a Tensor, not a lab.train.Recipe"),
        (":", "no recipe at ':'"),
        ("..:x", "no recipe at"),
        ("faulty_recipe:X", "ZeroDivisionError"),
        ("leaving_recipe:X", "SystemExit"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_recipe.py").write_text("X = 1 / 0")
    (tmp_path / "leaving_recipe.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["train", name])
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1


def test_a_card_is_printed_whole(house: Path) -> None:
    shown = " ".join(runner.invoke(app, ["assets", "noisy"]).stdout.split())
    for part in (
        "Noise",
        "points on a line",
        "dropout 0.3; 20 steps of 6, seed 3",
        "(20)",
        "error",
        "a sample",
        "lab train",
    ):
        assert part in shown
    assert runner.invoke(app, ["assets", "nosuch"]).exit_code == 2


def test_only_the_register_is_shipped(house: Path) -> None:
    for name in ("recipes:NOISY", "recipes:PLAIN"):
        result = runner.invoke(app, ["train", name, "--record"])
        assert result.exit_code == 2 and not (house / "plain").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"write": None}, "does not say how its result is written"),
        ({"config": {"dtype": torch.float16}}, "the config of bad cannot stand on a card"),
        ({"batch": 81}, "80 examples are fewer than a batch of 81"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"steps": 2, "write": lambda model, folder: {"colour": "red"}}, "the card of bad cannot say colour"),
        ({"steps": 2, "write": lambda model, folder: (folder / "sub").mkdir() or {}}, "an asset has no folders"),
        ({"steps": 2, "write": lambda model, folder: {"metrics": {"x": float("nan")}}}, "cannot say metrics.x"),
    ],
)
def test_a_bad_recipe_is_one_sentence(
    change: dict[str, Any], says: str, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "BAD", dataclasses.replace(NOISY, name="bad", **change), raising=False)
    result = runner.invoke(app, ["train", "recipes:BAD"])
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1
    assert not (own_home / "checkpoints" / "bad").exists()


def test_a_home_that_looks_like_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "x[/y]z"))
    result = runner.invoke(app, ["train", "recipes:PLAIN"])
    assert result.exit_code == 0 and "x[/y]z" in result.stdout


def test_what_is_too_large_is_not_shipped(house: Path, trained: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "MAX_BYTES", 100)
    with pytest.raises(AssetError, match="noisy has"):
        assets.write(SHORT, trained, house, title="Noise", command="x")
    assert assets.damage("noisy") == "" and {path.name for path in house.iterdir()} == {"noisy", "manifest.json"}
    with pytest.raises(AssetError, match="does not say how"):
        assets.write(dataclasses.replace(SHORT, write=None), trained, house, title="Noise", command="x")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "file" / "below"))
    result = runner.invoke(app, ["train", "recipes:NOISY"])
    assert result.exit_code == 2 and "cannot write to" in result.stderr and "LAB_HOME" in result.stderr


def test_the_command_trains_and_keeps(own_home: Path) -> None:
    result = runner.invoke(app, ["train", "recipes:NOISY"])
    assert result.exit_code == 0 and "noisy: 300 steps in" in result.stdout
    kept = own_home / "checkpoints" / "noisy"
    assert str(kept) in result.stdout and load_file(kept / "model.safetensors")
    assert not (own_home / "training" / "noisy").exists()
    leg = runner.invoke(app, ["train", "recipes:SLOW", "--minutes", "0.001"])
    assert leg.exit_code == 0 and "the leg ends at step" in leg.stdout and "--resume" in leg.stdout
    again = runner.invoke(app, ["train", "recipes:SLOW"])
    assert again.exit_code == 2 and "go on with --resume" in again.stderr


def test_two_at_once_and_a_polite_stop(own_home: Path) -> None:
    """The second is refused with a sentence; Ctrl-C in the first saves its state between two steps."""
    environment = os.environ | {"LAB_HOME": str(own_home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lab", "train", "recipes:SLOW"]
    first = subprocess.Popen(
        command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert "of 1,000,000" in first.stdout.readline()
    result = runner.invoke(app, ["train", "recipes:SLOW", "--resume"])
    assert result.exit_code == 2 and "another process is training in" in result.stderr
    time.sleep(0.3)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=20) == 130
    assert (
        first.stderr is not None and "state saved; go on with `lab train recipes:SLOW --resume`" in first.stderr.read()
    )
    assert train(SLOW, folder=own_home / "training" / "slow", resume=True, minutes=1e-9).step > 2


def made(folder: Path, progress: Any) -> dict[str, Any]:
    progress(0.5, "half of it")
    (folder / "it.safetensors").write_bytes(b"it")
    return {"metrics": {"size": 2.0}}


def broken(folder: Path, progress: Any) -> dict[str, Any]:
    (folder / "it.safetensors").write_bytes(b"half")
    raise ValueError("no more")


def test_what_is_made_in_one_go_is_an_asset_like_others(house: Path) -> None:
    maker = Maker("noisy", made, {"a": 1}, "no data", "none")
    card = assets.make(maker, house, title="Made", command="lab train noisy", progress=lambda *_: None)
    assert assets.damage("noisy") == "" and assets.card("noisy") == card
    assert (card.steps, card.curve, card.metrics) == (0, (), {"size": 2.0})
    with pytest.raises(ValueError, match="no more"):
        assets.make(Maker("noisy", broken, {}, "", ""), house, title="", command="", progress=lambda *_: None)
    assert assets.damage("noisy") == "" and (house / "noisy" / "it.safetensors").read_bytes() == b"it"
    with pytest.raises(AssetError, match="cannot stand on a card"):
        assets.make(
            Maker("noisy", made, {"a": object()}, "", ""), house, title="", command="", progress=lambda *_: None
        )
