"""What pages share. A page is thin: it names its experiments and pictures, and `ui` draws the rest.

room = ui.open_paper("sp2ot")          header, tour, present mode; which view is on stage, only that one computes
ui.stage(room)                         figure, knobs, run and stop, downloads
ui.close_paper(room)                   claims, how it works (a markdown file beside the page), references

The views are the table VIEWS in the room's `figures.py`. A view that draws itself is a function of the room,

@ui.own_view("wiring", choices=("picture", "way"))
def draw(room: ui.Room) -> None: ...

given to `ui.open_paper("transcoders", wiring.draw)`. `choices` are those of its `ui.choose(..., key="wiring.way")`, so that
a link that carries one is not complained about while another view is on stage. It uses

ui.picture(fig, key=..., on_select=f)  a figure with title and downloads; with `on_select` a click on a point, by mouse or
                                       finger, calls f(customdata of the point, or None) before the page runs again
ui.choose("Picture", {...}, key=...)   one of a few named options, kept in the address
ui.show_view("features", unit=7)       another experiment on stage, with some knobs set: for what a click calls
ui.set_knobs("features", unit=7)       the same without leaving the view
ui.knob_value("features", "unit", 0)   what a knob says, drawn or not
ui.last_result(experiment)             what a `live` experiment answered last in this session, None where it never did
ui.escaped(text)                       any text as markdown that shows it letter by letter
"""

from ui.address import choose, complaints, on_page, select
from ui.knobs import knob_value, set_knobs, show_view
from ui.look import escaped, presenting, style, theme, thumbnail
from ui.paper import close_paper, identity, open_paper, references, stage
from ui.picture import picture
from ui.room import OwnView, Room, own_view
from ui.stage import last_result
from ui.upload import Sample
from ui.verdicts import CHIPS, claims_table, counts, statement

__all__ = [
    "CHIPS",
    "OwnView",
    "Room",
    "Sample",
    "choose",
    "claims_table",
    "close_paper",
    "complaints",
    "counts",
    "escaped",
    "identity",
    "knob_value",
    "last_result",
    "on_page",
    "open_paper",
    "own_view",
    "picture",
    "presenting",
    "references",
    "select",
    "set_knobs",
    "show_view",
    "stage",
    "statement",
    "style",
    "theme",
    "thumbnail",
]
