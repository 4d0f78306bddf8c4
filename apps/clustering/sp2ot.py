"""SP²OT, live: one labelling problem, a training whose labelled mass grows, seven clusterings of digits, your own table."""

from __future__ import annotations

import ui


def digits() -> bytes:
    """Long-tailed digits, one row per image: 64 pixels and the label."""
    import pandas as pd

    from lab.datasets import digits

    chosen = digits.long_tailed_indices(10.0, 0)
    pixels, labels = digits.digits()
    table = pd.DataFrame(pixels[chosen].reshape(len(chosen), -1)).add_prefix("pixel_")
    return table.assign(label=labels[chosen]).to_csv(index=False, float_format="%g").encode()


SAMPLE = ui.Sample("digits.csv", digits, "707 handwritten digits with a long tail, 64 pixels each, and their labels")

room = ui.open_paper("sp2ot")
ui.stage(room, sample=SAMPLE)
ui.close_paper(room)
