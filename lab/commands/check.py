"""`lab check`: what is stale, missing or over a limit in what the lab ships."""

from __future__ import annotations

from lab import assets, catalog, ledger, paths, results, rooms
from lab.catalog import Card
from lab.commands import notebooks
from lab.commands.readme import readme_table

MAX_FILE = 8 * 2**20
MAX_DATA = 120 * 2**20
_CODE_RUNNING = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt"}


def findings() -> list[str]:
    """Everything that is stale, missing or over a limit, one sentence each; empty when all is well."""
    found = _files() + _assets() + _readme()
    for card in catalog.cards():
        if card.status == "ready":
            try:
                found += _paper(card)
            except Exception as error:
                if not card.package:
                    raise
                found.append(f"{card.slug}: {card.package} is damaged ({type(error).__name__}: {error})")
    return found


def _paper(card: Card) -> list[str]:
    try:
        found = [f"{card.slug}: {lack}" for lack in notebooks.opening(notebooks.read(card.notebook), card)]
    except ValueError as error:
        found = [f"{card.slug}: {error}"]
    if not card.claims:
        found.append(f"{card.slug}: its card has no claims")
    for line in ledger.standings(card):
        if line.stale:
            found.append(f"{card.slug}: claim {line.claim.key} was {line.stale}")
        if line.ours.verdict == "not measured":
            found.append(f"{card.slug}: claim {line.claim.key} is not measured ({line.ours.reason})")
    for experiment, config in rooms.recorded_configs(card):
        folder = results.shipped_folder(experiment, config)
        if not (folder / "record.json").exists():
            found.append(f"{card.slug}: the recorded result of {experiment.key} is missing ({folder.name})")
        elif stale := results.load(folder, experiment.result)[1].stale:
            found.append(f"{card.slug}: the result of {experiment.key} was {stale}")
    return found


def _readme() -> list[str]:
    """README's table follows from the records; an installed lab has no README."""
    path = paths.shared("data").parent / "README.md"
    if not path.exists() or readme_table() in path.read_text(encoding="utf-8"):
        return []
    return ["README.md: its table is not the records' (`lab readme --write` renews it)"]


def _files() -> list[str]:
    found, total = [], 0
    for path in sorted(paths.shared("data").rglob("*")):
        if path.is_file():
            size = path.stat().st_size
            total += size
            if size > MAX_FILE:
                found.append(f"data/{path.name} has {size / 2**20:.1f} MB; the limit is 8")
            if path.suffix in _CODE_RUNNING:
                found.append(f"data/{path.name} is of a format that can run code when loaded")
    if total > MAX_DATA:
        found.append(f"data/ has {total / 2**20:.0f} MB; the limit is 120")
    sizes = {path.name: path.stat().st_size for path in sorted(paths.shared("notebooks").rglob("*.ipynb"))}
    large = {name: size for name, size in sizes.items() if size > notebooks.MAX_BYTES}
    return found + [f"notebooks/{name} has {size / 2**20:.1f} MB; the limit is 2" for name, size in large.items()]


def _assets() -> list[str]:
    """Every asset of the register is whole, and nothing else lies among them."""
    found = [complaint for name in assets.register() if (complaint := assets.damage(name))]
    for path in sorted(assets.shipped().iterdir()):
        if path.is_dir() and path.name not in assets.register():
            found.append(f"data/checkpoints/{path.name} is not in lab/assets.toml")
        if path.is_dir() and (size := sum(file.stat().st_size for file in path.iterdir())) > assets.MAX_BYTES:
            found.append(f"data/checkpoints/{path.name} has {size / 2**20:.1f} MB; the limit is 8")
    return found
