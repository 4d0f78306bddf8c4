"""What pages share. A page is thin: it names its experiments and pictures, and `ui` draws the rest.

card = ui.open_paper("sp2ot")        header, tour, present mode
view = ui.choose("View", {...})      which experiment; only the chosen one computes
ui.stage(experiment, pictures)       figure, knobs, run and stop, downloads
ui.close_paper(card, equations)      claims, how it works, references
"""

from ui.address import choose, complaints, select
from ui.look import plain, presenting, style, theme, thumbnail
from ui.paper import close_paper, identity, open_paper, references
from ui.picture import picture
from ui.stage import stage
from ui.upload import Sample
from ui.verdicts import CHIPS, chip, claims_strip, counts, estimate

__all__ = [
    "CHIPS",
    "Sample",
    "chip",
    "choose",
    "claims_strip",
    "close_paper",
    "complaints",
    "counts",
    "estimate",
    "identity",
    "open_paper",
    "picture",
    "plain",
    "presenting",
    "references",
    "select",
    "stage",
    "style",
    "theme",
    "thumbnail",
]
