"""The command `lab`: every light command answers without loading torch, pandas, scikit-learn or plotly."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

import lab
from lab import catalog, paths
from lab.catalog import UnknownPaper
from lab.commands import serve

app = typer.Typer(
    name="lab",
    help="A lab of 24 research papers: for each a method to import, a notebook, a live page, and its claims measured.\n\n"
    "Start with `lab open`. `lab list` shows the papers, `lab show SLUG` one of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console()

Slug = Annotated[str, typer.Argument(help="A paper's short name in addresses, e.g. sp2ot (see `lab list`).")]


def fail(sentence: object) -> NoReturn:
    """Print one sentence to stderr and leave with code 2."""
    typer.echo(f"lab: {sentence}", err=True)
    raise typer.Exit(2)


@contextmanager
def sentences(stopped: str = "what was finished is kept") -> Iterator[None]:
    """Turn the errors a reader can cause into one sentence and exit code 2; `stopped` is what Ctrl-C leaves."""
    from lab.engine import EngineError
    from lab.experiment import ConfigError
    from lab.rooms import NotReady

    known = (UnknownPaper, NotReady, ConfigError, EngineError, paths.FolderError, serve.PortTaken, serve.ServerFailed)
    try:
        yield
    except known as error:
        fail(error)
    except KeyboardInterrupt:
        typer.echo(f"lab: stopped; {stopped}.", err=True)
        raise typer.Exit(130) from None


@app.command("list")
def list_papers(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects instead.")] = False,
) -> None:
    """The 24 papers by theme, with what is ready and what is planned."""
    from lab.commands import list_papers

    list_papers.print_papers(out, as_json)
    for problem in catalog.problems():
        typer.echo(f"lab: {problem}", err=True)


@app.command()
def show(slug: Slug, as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False) -> None:
    """One paper: its idea, and every claim beside what the lab measured."""
    from lab.commands import show

    with sentences():
        show.print_paper(catalog.get(slug), out, as_json)


@app.command("open")
def open_page(
    slug: Annotated[str, typer.Argument(help="A paper to open; the gallery when left out.")] = "",
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes any free one.", min=0, max=65535)] = 8501,
    browser: Annotated[bool, typer.Option(help="Open the default browser too.")] = True,
    allow_models: Annotated[
        bool, typer.Option("--allow-models", help="Draw the knobs that take hub ids and local folders.")
    ] = False,
) -> None:
    """Serve the dashboard on this machine and open it. Ctrl-C ends it."""
    import os

    with sentences():
        page = catalog.get(slug).slug if slug else ""
        if allow_models:
            os.environ["LAB_ALLOW_MODELS"] = "1"
        raise typer.Exit(serve.run_dashboard(page, port, browser, _announce("The lab")))


@app.command()
def notebook(
    slug: Annotated[str, typer.Argument(help="A paper whose notebook to open; the folder when left out.")] = "",
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes any free one.", min=0, max=65535)] = 8888,
    browser: Annotated[bool, typer.Option(help="Open the default browser too.")] = True,
) -> None:
    """Open a paper's walkthrough in JupyterLab on this machine. Ctrl-C ends it."""
    from lab.rooms import NotReady

    with sentences():
        card = catalog.get(slug) if slug else None
        if card is not None and not card.notebook.exists():
            raise NotReady(f"{card.short} has no notebook yet; `lab list` shows what is ready")
        raise typer.Exit(serve.run_notebook(card, port, browser, _announce("JupyterLab")))


def _announce(name: str) -> Callable[[str], None]:
    return lambda url: typer.echo(f"{name} is at {url}  (Ctrl-C ends it)")


@app.command()
def measure(
    slugs: Annotated[
        list[str] | None, typer.Argument(help="Papers to measure; all that are ready when left out.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many of the ledger's seeds; 0 takes all of them.", min=0)] = 0,
    jobs: Annotated[int, typer.Option(help="Processes to use.", min=1)] = 1,
    scheduler: Annotated[
        str, typer.Option(help="Use the Dask cluster with this scheduler, tcp://host:port, instead of processes here.")
    ] = "",
    study: Annotated[str, typer.Option(help="Only this study or recorded experiment.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is already measured.")] = False,
    tune: Annotated[bool, typer.Option("--tune", help="Also repeat the search behind the tuned knobs.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write data/: what the lab ships (for maintainers).")
    ] = False,
) -> None:
    """Measure the claims of a paper on this machine.

    Each seed is stored as it arrives, so Ctrl-C keeps what is finished and the next call goes on from there.
    """
    from contextlib import nullcontext

    from lab import engine
    from lab.commands import measure

    with sentences():
        chosen = [catalog.get(slug) for slug in slugs] if slugs else list(catalog.ready())
        with engine.cluster(scheduler) if scheduler else nullcontext():
            for card in chosen:
                measure.measure_paper(
                    card, out, seeds=seeds, jobs=jobs, only=study, fresh=fresh, tune=tune, record=record
                )


@app.command()
def bench(
    slug: Annotated[str, typer.Argument(help="A paper whose races to run; all that are ready when left out.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the largest sizes.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write data/: what the lab ships (for maintainers).")
    ] = False,
) -> None:
    """Race a method against its peers in one run on this machine; prints ratios, not absolute promises."""
    from lab.commands import bench

    with sentences():
        for card in [catalog.get(slug)] if slug else catalog.ready():
            bench.bench_paper(card, out, quick=quick, record=record)


@app.command()
def train(
    name: Annotated[
        str, typer.Argument(help="An asset (see `lab assets`), or your own recipe as package.module:NAME.")
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the state that was left.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the state that was left, and start over.")] = False,
    minutes: Annotated[float, typer.Option(help="Stop after so many minutes, state saved; 0: no limit.", min=0)] = 0,
    record: Annotated[
        bool, typer.Option("--record", help="Write data/: what the lab ships (for maintainers).")
    ] = False,
) -> None:
    """Train an asset into your folder; exactly resumable, also after a kill.

    Several processes: torchrun --nproc_per_node 2 -m lab train NAME
    """
    from lab import assets
    from lab.commands import train
    from lab.experiment import Stopped
    from lab.state import StateError
    from lab.train import TrainingError

    with sentences():
        try:
            card = train.train_asset(name, out, resume=resume, fresh=fresh, minutes=minutes or None, record=record)
        except (assets.AssetError, StateError, TrainingError) as error:
            fail(error)
        except Stopped:
            typer.echo(f"lab: stopped, state saved; go on with `lab train {name} --resume`.", err=True)
            raise typer.Exit(130) from None
        if card is not None:
            root = assets.shipped() if record else assets.own()
            train.print_card(card, root / card.name, out)


@app.command("assets")
def list_assets(
    name: Annotated[str, typer.Argument(help="An asset whose whole card to print; all in short when left out.")] = "",
    verify: Annotated[bool, typer.Option("--verify", help="Exit with code 1 when one is damaged.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore what is damaged, from the clone or by training it again.")
    ] = False,
) -> None:
    """The trained models that the lab ships: their size, their training, and whether every file is whole."""
    from lab.assets import AssetError
    from lab.commands import assets
    from lab.experiment import Stopped

    known: tuple[type[Exception], ...] = (AssetError,)
    if repair:  # only this may train, and loads torch
        from lab.state import StateError
        from lab.train import TrainingError

        known += (StateError, TrainingError)
    with sentences():
        try:
            if repair:
                assets.repair(out)
            if name:
                assets.print_whole_card(name, out)
            elif not assets.print_assets(out) and verify:
                raise typer.Exit(1)
        except known as error:
            fail(error)
        except Stopped:
            typer.echo("lab: stopped, state saved; `lab assets --repair` goes on.", err=True)
            raise typer.Exit(130) from None


@app.command()
def new(
    slug: Slug,
    package: Annotated[
        Path | None, typer.Option(help="Make a package of your own in this folder, which brings the paper, instead.")
    ] = None,
) -> None:
    """Make the skeleton of a planned paper's room: method, experiment, figures, page, notebook, tests; all of it runs.

    `lab check SLUG` says from then on what is missing until the paper is ready.
    """
    from lab.commands import new

    with sentences():
        try:
            files = new.new_package(slug, package) if package else new.new_room(catalog.get(slug))
        except ValueError as error:
            fail(error)
    for path in files:
        typer.echo(package / path if package else path)
    again = f"pip install -e {package}, then lab check {slug}" if package else f"lab check {slug}"
    typer.echo(f"TODO stands wherever the paper belongs. What is missing to be ready: {again}")


@app.command()
def check(
    slug: Annotated[
        str, typer.Argument(help="A paper: what it lacks to be ready; all that is shipped if left out.")
    ] = "",
) -> None:
    """Look over what the lab ships: stale records, missing parts, limits. Exit code 1 when something is found."""
    from lab.commands import check, ready

    with sentences():
        findings = ready.missing(catalog.get(slug)) if slug else check.findings()
    for finding in findings:
        out.print(Text(f"· {finding}"))
    if findings:
        raise typer.Exit(1)
    out.print("Everything is in place.")


@app.command()
def readme(
    write: Annotated[bool, typer.Option("--write", help="Write it into README.md between the two marks.")] = False,
) -> None:
    """The README's table of papers, generated from the records."""
    from lab.commands import readme

    with sentences():
        if write:
            readme.write_readme_table()
        else:
            typer.echo(readme.readme_table())


@app.command()
def doctor() -> None:
    """What is installed, what is missing, and what that costs you.

    Nothing is loaded or changed. Exit code 1 when something that the lab needs is missing.
    """
    from rich.table import Table

    from lab.commands import doctor

    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "without it"):
        table.add_column(column)
    missing = 0
    for item in doctor.requirements():
        missing += item.needed and not item.found
        mark = "✓" if item.found else ("✗" if item.needed else "–")
        table.add_row(mark, item.name, item.found or "missing", "" if item.found else item.cost)
    out.print(table)
    if missing:
        raise typer.Exit(1)


@app.command("run", context_settings={"ignore_unknown_options": True, "help_option_names": []})
def run_method(
    slug: Annotated[str, typer.Argument(help="A paper's short name; see `lab list`.")] = "--help",
    arguments: Annotated[list[str] | None, typer.Argument(help="Your file and the method's knobs.")] = None,
) -> None:
    """Run a paper's method on your own file: `lab run SLUG --help` names its knobs."""
    from lab.commands import run

    if slug in ("--help", "-h"):
        typer.echo(_RUN_HELP)
        return
    with sentences("nothing was written"):
        run.run(catalog.get(slug), arguments or [])


_RUN_HELP = """Usage: lab run SLUG FILE [--out FILE] [--KNOB VALUE ...]

Run a paper's method on your own file. The knobs are the paper's own: `lab run SLUG --help` lists them with their
bounds and defaults.

For example:  lab run sp2ot features.csv --out labels.csv --n-clusters 10"""


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign shows a question mark
    if version:
        typer.echo(lab.__version__)
        raise typer.Exit()


if __name__ == "__main__":
    sys.exit(app())
