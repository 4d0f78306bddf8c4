"""Config -> ipywidgets: a live experiment in a notebook, and the one place that chooses how notebooks draw figures."""

from __future__ import annotations

import base64
import html
import os
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from lab.experiment import Config, Experiment
from lab.knobs import Control, controls
from lab.plot import LIGHT, Theme

Figure = Callable[..., go.Figure]
WIDTH = 760  # of the stored images, pixels
TITLE = 76  # characters of a title that fit the width
_LAYOUT = {"width": "27em"}
_STYLE = {"description_width": "11em"}


def notebook_renderer() -> str:
    """Name for `plotly.io.renderers.default`: live figures, and with LAB_STORE_PNG=1 an image beside each.

    The images are for notebooks whose outputs are kept, so that a code host shows them. They need a browser and
    kaleido and cost a fifth of a second each, so they are made on request only.

    >>> notebook_renderer()
    'plotly_mimetype'
    """
    if not _stores_images():
        return "plotly_mimetype"
    import kaleido
    import plotly.io as pio

    kaleido.start_sync_server(silence_warnings=True)
    warnings.filterwarnings("ignore", "The kopts argument is ignored", UserWarning)
    pio.renderers["png"].width = WIDTH
    return "plotly_mimetype+png"


def show(fig: go.Figure, theme: Theme = LIGHT) -> go.Figure:
    """The figure on the theme's page, a long title in two lines: readable in a notebook of either theme, and stored.

    >>> show(go.Figure()).layout.paper_bgcolor == LIGHT.surface
    True
    """
    lines = textwrap.wrap((fig.layout.title.text or "").replace("<br>", " "), TITLE)
    return fig.update_layout(paper_bgcolor=theme.surface, title_text="<br>".join(lines) or None)


def _stores_images() -> bool:
    return os.environ.get("LAB_STORE_PNG") == "1"


class Explorer(ipywidgets.VBox):
    """The knobs of a live experiment over its figure; made by `explore`."""

    def __init__(self, experiment: Experiment, figure: Figure, start: Config, theme: Theme) -> None:
        self._experiment, self._draw, self._theme = experiment, figure, theme
        self._kept = start.model_dump(mode="json")
        drawn = [control for control in controls(experiment.config) if not control.private]
        self.knobs = {control.name: _widget(control, self._kept[control.name]) for control in drawn}
        self.message = ipywidgets.HTML()
        self._place = ipywidgets.VBox([go.FigureWidget(self._compute())])
        super().__init__([*_arrange(drawn, self.knobs), self.message, self._place])
        for widget in self.knobs.values():
            widget.observe(self._update, names="value")

    @property
    def figure(self) -> go.FigureWidget:
        """The figure as it is now."""
        return self._place.children[0]

    @property
    def config(self) -> Config:
        """The knobs as they are now; ConfigError where they do not go together."""
        return self._experiment.config.parse(self._kept | {name: knob.value for name, knob in self.knobs.items()})

    def _compute(self) -> go.Figure:
        fresh = self._draw(self._experiment(self.config), theme=self._theme)
        if fresh.frames:
            raise ValueError("figure has frames, which a live widget cannot play: show that figure by itself")
        return show(fresh, self._theme)

    def _update(self, _: Any) -> None:
        try:
            fresh = self._compute()
        except ValueError as error:  # the knobs' values, said in one sentence; the last figure stays
            self.message.value = f'<p style="color:#b42318">{html.escape(str(error))}</p>'
            return
        self.message.value = ""
        if not _same_traces(self.figure, fresh):
            self._place.children = (go.FigureWidget(fresh),)
            return
        with self.figure.batch_update():
            for old, new in zip(self.figure.data, fresh.data, strict=True):
                old.update(new.to_plotly_json(), overwrite=True)
            self.figure.update_layout(fresh.layout.to_plotly_json(), overwrite=True)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and where images are stored one of its figure, for readers without a kernel."""
        bundle = super()._repr_mimebundle_(**options)
        if _stores_images() and isinstance(bundle, dict):
            image = self.figure.to_image("png", width=WIDTH)
            bundle["image/png"] = base64.b64encode(image).decode()
        return bundle


def explore(experiment: Experiment, figure: Figure, *, start: Config | None = None, theme: Theme = LIGHT) -> Explorer:
    """A live experiment under its knobs: moving one runs it again and redraws the figure in place.

    experiment: one that is live and takes no inputs; figure(result, theme=theme) draws its Result; start: where the
    knobs stand at first (default: the Config's defaults). Primary knobs are shown, the others folded away.

    A value that the experiment refuses is answered by one sentence; the last figure stays.

    Raises ValueError for an experiment that is too long for a moving knob or needs a file (its page runs those), for a
    figure with frames, and for a start that the experiment refuses; TypeError for a start of another Config.
    """
    if experiment.cost != "live" or experiment.inputs is not None:
        why = "needs a file" if experiment.inputs is not None else "takes too long to follow a moving knob"
        raise ValueError(f"{experiment.slug}/{experiment.key} {why}: run it on its page, `lab open {experiment.slug}`")
    start = experiment.config() if start is None else start
    if not isinstance(start, experiment.config):
        raise TypeError(f"start: must be a {experiment.config.__name__}, not {type(start).__name__}")
    return Explorer(experiment, figure, start, theme)


def _same_traces(old: go.FigureWidget, new: go.Figure) -> bool:
    """Same traces in the same order, each with the same properties: then data can be changed in place."""
    return [_kind(trace) for trace in old.data] == [_kind(trace) for trace in new.data]


def _kind(trace: Any) -> tuple[str, tuple[str, ...]]:
    return trace.type, tuple(sorted(key for key in trace.to_plotly_json() if key != "uid"))


def _arrange(drawn: list[Control], knobs: dict[str, ipywidgets.Widget]) -> list[ipywidgets.Widget]:
    """Primary knobs in a row that wraps; the others in a closed accordion."""
    wrap = {"flex_flow": "row wrap"}
    rows: list[ipywidgets.Widget] = [
        ipywidgets.HBox([knobs[control.name] for control in drawn if control.primary], layout=wrap)
    ]
    others = [knobs[control.name] for control in drawn if not control.primary]
    if others:
        rows.append(ipywidgets.Accordion([ipywidgets.HBox(others, layout=wrap)], titles=("More knobs",)))
    return rows


def _widget(control: Control, value: Any) -> ipywidgets.Widget:
    """One knob as the widget of its kind, standing at ``value``."""
    common: dict[str, Any] = {
        "description": control.label,
        "tooltip": control.help,
        "layout": _LAYOUT,
        "style": _STYLE,
        "value": value,
    }
    if control.kind == "toggle":
        return ipywidgets.Checkbox(**common)
    if control.kind == "choice":
        few = len(control.options) <= 4
        kind = ipywidgets.ToggleButtons if few else ipywidgets.Dropdown
        if few:
            common |= {"layout": {"width": "30em"}, "style": _STYLE | {"button_width": "auto"}}
        return kind(options=list(control.options), **common)
    if control.kind == "log":
        options = sorted({*control.options, value})
        return ipywidgets.SelectionSlider(
            options=[(f"{option:g}", option) for option in options], continuous_update=False, **common
        )
    if control.kind == "text":
        return ipywidgets.Text(continuous_update=False, **common)
    bounds = {"min": control.low, "max": control.high, "step": control.step}
    if control.kind == "number":
        return ipywidgets.BoundedIntText(**bounds, **common)
    if control.kind == "int":
        return ipywidgets.IntSlider(continuous_update=False, **bounds, **common)
    return ipywidgets.FloatSlider(continuous_update=False, readout_format=".3g", **bounds, **common)
