"""SP²OT's page, beside what all pages must do: a table of one's own, and links into the tour."""

from __future__ import annotations

import numpy as np
from app_pages import Page, finish, pictures, traces, widget

from lab import catalog

PAGE = "clustering/sp2ot.py"


def test_a_table_of_one_s_own(page: Page) -> None:
    app = page(PAGE, view="features")
    box = "_file.features"
    app.file_uploader(key=box).set_value(("bad.csv", b"a,b\n1,two words\n3,4\n", "text/csv")).run()
    assert len(app.error) == 1 and "\n" not in app.error[0].value and not app.exception
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(10, 2)) + 6])
    text = "width,height\n" + "\n".join(f"{x:.3f},{y:.3f}" for x, y in rows)
    app.file_uploader(key=box).set_value(("good.csv", text.encode(), "text/csv")).run()
    for name, value in {"n_clusters": 2, "steps": 20, "starts": 1, "neighbors": 5}.items():
        widget(app, f"features.{name}").set_value(value)
    app.run()
    finish(app, "_run.sp2ot.features")
    assert all(traces(shown) for shown in pictures(app, "features"))


def test_a_link_into_the_tour(page: Page) -> None:
    step = catalog.get("sp2ot").tour[2]
    app = page(PAGE, step="3")
    assert all(widget(app, f"{step.experiment}.{name}").value == value for name, value in step.config.items())
    moved = page(PAGE, **{"step": "3", "plan.rho": "0.55"})
    assert widget(moved, "plan.rho").value == 0.55, "knobs that the link names win over the step's"
    assert "`step` cannot be `99`" in page(PAGE, step="99").warning[0].value
