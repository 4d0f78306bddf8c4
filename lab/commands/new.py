"""`lab new`: the skeleton of a room, for a planned paper of the lab or as a package of its own, and how it is filled in.

The templates in `skeleton/` hold a small method that works from end to end; "TODO" stands wherever the paper belongs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab import catalog, paths
from lab.catalog import Card

TEMPLATES = Path(__file__).resolve().parent / "skeleton"
TODO = "TODO"
_ROOM = ("__init__", "method", "shrink_experiment", "experiment", "studies", "figures", "exercises")
_TESTS = ("test_method", "test_experiment")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def new_room(card: Card) -> list[Path]:
    """Write the skeleton of a planned paper's room into the clone; the files' paths below it.

    Raises FolderError in an installed lab, where something stands already, and for another package's paper.
    """
    if card.package:
        raise paths.FolderError(f"{card.slug} is a paper of the package {card.package}, and its room stands there")
    folder = paths.clone()
    room, tests = Path("lab", card.theme, card.room), Path("tests", card.theme, card.room)
    page, notebook = Path("apps", card.theme), Path("notebooks", card.theme)
    names = _names(card.slug, card.short, card.title, card.module)
    files = {room / f"{name}.py": f"{name}.py" for name in _ROOM}
    files |= {tests / f"{name}.py": f"{name}.py" for name in _TESTS}
    files |= {page / f"{card.room}.py": "page.py", page / f"{card.room}.md": "page.md"}
    written = {path: render(template, names) for path, template in files.items()}
    written[notebook / f"{card.slug}.ipynb"] = notebook_json(render("notebook.py", names))
    doors = Path("lab", card.theme, "__init__.py")
    if not (folder / doors).exists():
        written[doors] = f'"""{catalog.THEMES[card.theme]}: what the papers of this theme share."""\n'
    return _write(folder, written)


def new_package(slug: str, folder: Path) -> list[Path]:
    """Write a package that brings one paper into `folder`: card, room, page, notebook, tests and its entry point.

    Raises FolderError where something stands already, and ValueError for a name that is no slug or is taken.
    """
    if not _SLUG.fullmatch(slug):
        raise ValueError(f"{slug!r} is not a slug: small letters, digits and single hyphens, as in sp2ot or pb-llm")
    if slug in {card.slug for card in catalog.cards()} | paths.RESERVED:
        raise ValueError(f"the lab has something of the name {slug!r} already; choose another one")
    room = slug.replace("-", "_")
    names = _names(slug, slug, "TODO the paper's title", room) | {"themes": ", ".join(catalog.THEMES)}
    files = {Path(room, f"{name}.py"): f"{name}.py" for name in _ROOM}
    files |= {Path(room, name): name for name in ("card.toml", "page.py", "page.md")}
    files |= {Path("tests", f"{name}.py"): f"{name}.py" for name in _TESTS}
    files |= {Path("pyproject.toml"): "pyproject.toml"}
    written = {path: render(template, names) for path, template in files.items()}
    written[Path(room, f"{slug}.ipynb")] = notebook_json(render("notebook.py", names))
    return _write(folder, written)


def _names(slug: str, short: str, title: str, module: str) -> dict[str, str]:
    return {"slug": slug, "short": short, "title": title, "module": module, "room": slug.replace("-", "_")}


def render(template: str, names: dict[str, str]) -> str:
    """A template with the paper's names put in; imports of the lab in the order that the paper's theme gives them."""
    text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    for name, value in names.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return re.sub(r"(?:^from \w\S* import [^(\n]+\n)+", _sorted_imports, text, flags=re.MULTILINE)


def _sorted_imports(block: re.Match[str]) -> str:
    """`from` imports that stand together, by module; those of a package of its own stand below the lab's."""
    lines = sorted(block[0].splitlines(keepends=True), key=lambda line: line.split()[1])
    ours = [line for line in lines if line.startswith("from lab")]
    theirs = [line for line in lines if line not in ours]
    return "".join(ours) + ("\n" if ours and theirs else "") + "".join(theirs)


def notebook_json(text: str) -> str:
    """A notebook from a script whose cells begin with `# %%` or `# %% [markdown]`."""
    cells = []
    for number, part in enumerate(re.split(r"^# %%", text, flags=re.MULTILINE)[1:]):
        kind, _, body = part.partition("\n")
        source = body.rstrip("\n").splitlines(keepends=True)
        cell: dict[str, object] = {"cell_type": "markdown", "id": f"c{number:02}", "metadata": {}, "source": source}
        if "markdown" not in kind:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append(dict(sorted(cell.items())))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _write(folder: Path, files: dict[Path, str]) -> list[Path]:
    taken = [path for path in files if (folder / path).exists()]
    if taken:
        raise paths.FolderError(f"{folder / taken[0]} stands there already; `lab new` replaces nothing")
    paths.writable(folder)
    for path, text in files.items():
        paths.write_atomic(folder / path, text)
    return sorted(files)
