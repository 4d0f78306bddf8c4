"""A figure on a page: its title (the finding) as text above it, a name for screen readers, downloads below."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from ui.look import escaped, presenting, theme
from ui.taps import taps

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PRESENT_HEIGHT = 470
FONT = '"Source Serif", Georgia, serif'  # what the page is set in; comes with Streamlit


def picture(
    fig: Figure,
    *,
    key: str,
    on_select: Callable[[Any], None] | None = None,
    finding: bool = True,
    height: int = PRESENT_HEIGHT,
    margin_top: int | None = None,
) -> Any:
    """Draw a plotly figure: its title as text, the chart, its downloads. A figure without traces is only its title.

    key         names its downloads and stays the same while knobs move
    on_select   makes the chart's points clickable: called with the clicked point's customdata, None where the click hit
                nothing, before the page runs again
    finding     the title says what the page is about; False for one of several figures on a page
    height      in pixels, while presenting; 0 for the figure's own
    margin_top  in pixels above the plot; as much as the legend needs if left out

    Returns the customdata of the point that is selected now; None where there is none.
    """
    title = html.unescape(fig.layout.title.text or "")
    if finding:
        st.container(key="finding").markdown(escaped(title))
    else:
        st.markdown(f"**{escaped(title)}**")
    if not fig.data:
        return None
    if margin_top is None:
        margin_top = 56 if _legend_on_top(fig) else 20
    fig.update_layout(title_text=None, margin_t=margin_top, paper_bgcolor=theme().surface, font_family=FONT)
    if presenting():
        fig.update_layout(font_size=17, **({"height": height} if height else {}))
    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "png", "filename": key, "scale": 2},
        "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
    }
    chart = f"figure.{key}"
    clickable: dict[str, Any] = {}
    if on_select is not None:
        clickable = {"selection_mode": "points", "on_select": lambda: on_select(selected(st.session_state[chart]))}
    event = st.plotly_chart(fig, key=chart, theme=None, config=config, alt=title, **clickable)
    if not presenting():
        downloads(fig, title, key)
    if on_select is None:
        return None
    taps(chart)
    return selected(event)


def selected(event: Any) -> Any:
    """The customdata of the point that a chart's selection event names; None where it names none."""
    points = event["selection"]["points"]
    return points[0].get("customdata") if points else None


def downloads(fig: Any, title: str, key: str) -> None:
    """HTML and CSV made at the click; PNG is the camera in the chart's own toolbar."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", key=f"downloads.{key}"):
        st.download_button(
            "HTML",
            lambda: as_html(fig, title),
            file_name=f"{key}.html",
            mime="text/html",
            on_click="ignore",
            type="tertiary",
            key=f"_html.{key}",
            icon=":material/download:",
            help="The live figure in one file; works offline.",
        )
        st.download_button(
            "CSV",
            lambda: as_csv(fig),
            file_name=f"{key}.csv",
            mime="text/csv",
            on_click="ignore",
            type="tertiary",
            key=f"_csv.{key}",
            icon=":material/download:",
            help="The numbers in the figure.",
        )
        st.caption("PNG: the figure's camera", width="content")


def as_html(fig: Any, title: str) -> str:
    """The figure with its title as a page of its own, plotly included."""
    whole = type(fig)(fig)
    whole.update_layout(title_text=title, margin_t=80)
    return whole.to_html(include_plotlyjs=True)


def as_csv(fig: Any) -> str:
    """Every trace's numbers: one row a point, or a row a cell for a heat map."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["trace", "x", "y", "value"])
    for place, trace in enumerate(fig.data):
        name = trace.name or f"{trace.type} {place + 1}"
        if trace.type in ("heatmap", "contour", "surface"):
            cells = np.asarray(trace.z)
            xs = range(cells.shape[1]) if trace.x is None else trace.x
            ys = range(cells.shape[0]) if trace.y is None else trace.y
            writer.writerows(
                (name, x, y, _number(cell))
                for y, row in zip(ys, cells, strict=True)
                for x, cell in zip(xs, row, strict=True)
            )
        else:
            xs, ys, zs = (getattr(trace, axis, None) for axis in "xyz")
            xs, ys = (list(range(len(ys or ()))) if xs is None else xs), ([] if ys is None else ys)
            values = [""] * len(xs) if zs is None else zs
            writer.writerows(
                (name, _number(x), _number(y), _number(value)) for x, y, value in zip(xs, ys, values, strict=False)
            )
    return text.getvalue()


def _number(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float | np.floating) else value


def _legend_on_top(fig: Any) -> bool:
    legend = fig.layout.legend
    return bool(fig.layout.showlegend) and (legend.y is None or legend.y > 0.9)
