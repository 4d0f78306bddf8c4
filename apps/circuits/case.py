"""The view of the blind case study: evidence that needs no text, hints on demand, an answer, and how good it was."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import streamlit as st
from ui import knobs
from ui.jobs import sentence
from ui.look import escaped, presenting, theme
from ui.room import Room, own_view

from lab.circuits.transcoders.models.languages import START, quoted
from lab.circuits.transcoders.units.dashboard import coloured_tokens_html
from lab.circuits.transcoders.views.case.experiment import CaseConfig, CaseResult
from lab.circuits.transcoders.views.case.rules import Judgement, judge_label, judge_quiz

PREFIX, STATE = knobs.prefix("case"), "_case"
HINTS = ("What it makes likelier", "All heads", "Where it fires")
ROWS, BEST = 8, 5  # tokens in a list; labels in the table
BOUNDARIES = ("<bos>", "<|endoftext|>")
VERDICTS = {
    "right": ":green-badge[:material/check: right]",
    "nearly": ":green-badge[:material/check: nearly]",
    "near": ":blue-badge[:material/trending_up: near]",
    "wrong": ":gray-badge[:material/close: off the mark]",
}
ROW_CSS = (
    "<style>[class*=st-key-_case_row] {flex-wrap: nowrap;} [class*=st-key-_case_row] > div {min-width: 0;}</style>"
)
Part = tuple[str, Callable[[], None]]


@own_view("case")
def draw(room: Room) -> None:
    """Draw the view."""
    left, right = st.columns([2.4, 1], gap="medium" if presenting() else "large")
    with right:
        config = _knobs()
        note = st.container()
    result = _computed(room, config, note)
    if result is None:
        return
    state = _state(config)
    st.html(ROW_CSS)
    with right:
        _answer(room, result, state)
    with left:
        _evidence(result, state)


def _knobs() -> CaseConfig:
    """Model and case, and a door to another case."""
    drawn = {control.name: control for control in knobs.visible(CaseConfig)}
    values = {"model": knobs.widget(drawn["model"], PREFIX)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        values["seed"] = knobs.widget(drawn["seed"], PREFIX)
        st.button("New case", key="_case.new", icon=":material/casino:", on_click=_new, args=(drawn["seed"],))
    return CaseConfig.parse(values)


def _new(control: Any) -> None:
    """Another case, whichever."""
    now = knobs.knob_value("case", "seed")
    others = [seed for seed in range(int(control.low), int(control.high) + 1) if seed != now]
    knobs.set_knobs("case", seed=int(np.random.default_rng().choice(others)))


def _computed(room: Room, config: CaseConfig, note: Any) -> CaseResult | None:
    """The case; where that fails, why."""
    kept = st.session_state.get("_case.result", ("", None))
    if kept[0] != config.fingerprint():
        try:
            with note, st.spinner("Drawing a feature and collecting what is known of it ...", show_time=True):
                kept = config.fingerprint(), room.experiment(config)
        except Exception as error:  # whatever a method raises, the reader gets one sentence and keeps the page
            note.error(escaped(sentence(error)))
            return None
        st.session_state["_case.result"] = kept
    return kept[1]


def _state(config: CaseConfig) -> dict[str, Any]:
    """Hints and answer; they belong to one case, and none of it stands in the address."""
    if st.session_state.get(STATE, {}).get("of") != config.fingerprint():
        st.session_state[STATE] = {"of": config.fingerprint(), "hints": 0, "judged": None, "said": "", "answers": {}}
    return st.session_state[STATE]


def _hint() -> None:
    st.session_state[STATE]["hints"] += 1


# --- evidence --------------------------------------------------------------------------------------------------------


def _evidence(result: CaseResult, state: dict[str, Any]) -> None:
    """What it reads without any text, then the hints that were asked for; all of it once the answer is given."""
    solved = state["judged"] is not None
    shown = len(HINTS) if solved else state["hints"]
    with st.container(key="finding"):
        st.markdown(_headline(result, solved))
    parts: list[Part] = [("Reads and writes", lambda: _cards(result, shown))]
    if shown > 2:
        parts.append((HINTS[2], lambda: _examples(result)))
    if solved and len(result.labels):
        parts.append(("The best labels", lambda: _best_labels(result, state["said"])))
    if presenting() and len(parts) > 1:
        names = [name for name, _ in parts]
        key = f"_case.part.{state['of']}.{len(parts)}"  # what is new is what is looked at
        name = st.segmented_control(
            "Part", names, default=names[-1], required=True, key=key, label_visibility="collapsed"
        )
        parts = [part for part in parts if part[0] == name]
    for _, content in parts:
        content()


def _headline(result: CaseResult, solved: bool) -> str:
    """The question; once it is answered, the finding."""
    layer = "" if result.model == "spans-1l" else f", layer {result.layer}"
    if not solved:
        return escaped(
            f"A feature of {result.model}{layer}: what is it about? This is what it would read, whatever the text."
        )
    found = f"It was feature {result.feature}" + (f" of layer {result.layer}" if layer else "")
    if len(result.labels):
        best = result.labels.iloc[0]
        return escaped(f"{found}: ‘{best['label']}’ says best where it fires, with F1 {best['f1']:.2f}")
    return escaped(f"{found}: it fires on {result.frequency:.2%} of the tokens")


def _cards(result: CaseResult, shown: int) -> None:
    """What needs no text, one card each."""
    look = theme()
    cards: list[Part] = [
        ("Tokens it reads where it stands", lambda: _bars(result.reads, look.baselines[1])),
        (f"Tokens that {result.head} would bring", lambda: _bars(result.brought, look.baselines[0])),
    ]
    if len(result.earlier):
        cards.append(("Earlier features it reads", lambda: _earlier(result)))
    if shown > 0:
        cards.append((HINTS[0], lambda: _writes(result)))
    if shown > 1:
        cards.append((HINTS[1], lambda: _heads(result)))
    wide = 3 if presenting() and len(cards) > 2 else 2
    for first in range(0, len(cards), wide):
        for column, (title, content) in zip(st.columns(wide, gap="small"), cards[first : first + wide], strict=False):
            with column.container(border=True, gap="xsmall"):
                st.markdown(f"**{title}**")
                content()


def _bars(table: Any, color: str) -> None:
    """Tokens with bars, in percent of the longest: the unit of a pre-activation says nothing without the stream's length.

    Nothing that a token's own text could bring in."""
    some = table.head(ROWS)
    most = float(some["value"].abs().max()) or 1.0
    rows = "".join(
        "<div style='display:grid;grid-template-columns:5.4rem 1fr 3rem;gap:.4rem;align-items:center'>"
        "<span style='overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font-family:monospace'>"
        f"{html.escape(quoted(piece)[1:-1])}</span>"
        f"<div style='height:8px;border-radius:2px;width:{100 * abs(value) / most:.0f}%;background:{color}'></div>"
        f"<span style='text-align:right'>{100 * value / most:.0f} %</span></div>"
        for piece, value in zip(some["piece"], some["value"], strict=True)
    )
    st.html(f"<div style='line-height:1.45;font-size:.85rem'>{rows}</div>")


def _listed(rows: Iterable[tuple[str, float, str]]) -> None:
    """One row each: a name, a number and some tokens."""
    lines = "".join(
        "<div style='display:grid;grid-template-columns:4rem 2.4rem 1fr;gap:.5rem'>"
        f"<span>{html.escape(name)}</span><b style='color:{theme().accent};text-align:right'>{value:.2g}</b>"
        "<span style='font-family:monospace;overflow:hidden;text-overflow:ellipsis;white-space:nowrap'>"
        f"{html.escape(tokens)}</span></div>"
        for name, value, tokens in rows
    )
    st.html(f"<div style='line-height:1.45;font-size:.85rem'>{lines}</div>")


def _earlier(result: CaseResult) -> None:
    """What drives it from layers below, as far as fixed weights say."""
    _listed((f"L{row.layer} {row.feature}", row.weight, row.writes) for row in result.earlier.itertuples())
    st.caption("What one unit of each adds, and the tokens that it promotes itself.")


def _writes(result: CaseResult) -> None:
    _bars(result.promotes, theme().accent)
    least = ", ".join(quoted(piece) for piece in result.suppresses["piece"].head(3))
    st.caption(escaped(f"Least likely: {least}"))


def _heads(result: CaseResult) -> None:
    """How much of what it reads each head could bring from elsewhere, and which tokens first."""
    most = float(result.heads["norm"].max()) or 1.0
    _listed((f"head {row.head}", row.norm / most, row.tokens) for row in result.heads.itertuples())
    st.caption("How much of what it reads each head could bring, the best one being 1, and the first tokens.")


def _examples(result: CaseResult) -> None:
    """Tokens on which it fires, from its strongest band down to its weakest, its strength as colour."""
    lines = [_window(rows, result.maximum, result.model) for _, rows in result.examples.groupby("example", sort=True)]
    with st.container(border=True, gap="xsmall"):
        st.markdown(
            f"**{HINTS[2]}** :gray[on {result.frequency:.2%} of {result.tokens:,} tokens; from its strongest down]"
        )
        st.html(f"<div style='font-size:.85rem'>{''.join(lines)}</div>")


def _window(rows: Any, maximum: float, model: str) -> str:
    """A stretch of text in a row, coloured by how strongly the feature fires, its own token underlined; words of a language
    of words have a blank between them."""
    pieces = [START if piece in BOUNDARIES else piece for piece in rows["piece"]]
    values = list(rows["value"]) if "value" in rows else [0.0] * len(rows)
    mark = int(rows["centre"].to_numpy().argmax())
    if model == "spans-1l":
        pieces = [text for piece in pieces for text in (piece, " ")]
        values, mark = [number for value in values for number in (value, 0.0)], 2 * mark
    return coloured_tokens_html(pieces, values, maximum=maximum, mark=mark)


def _best_labels(result: CaseResult, said: str) -> None:
    """The labels that say best where it fires, and the reader's own."""
    best = result.labels.head(BEST)
    own = result.labels[(result.labels["label"] == said) & ~result.labels["label"].isin(best["label"])]
    table = [
        {
            "label": f"**{escaped(row.label)}** (yours)" if row.label == said else escaped(row.label),
            "F1": f"{row.f1:.2f}",
            "it fires on": f"{row.precision:.0%} of its tokens",
            "holds of": f"{row.recall:.0%} of the firings",
        }
        for row in [*best.itertuples(), *own.itertuples()]
    ]
    st.table(table, border="horizontal", hide_index=True)


# --- answer ----------------------------------------------------------------------------------------------------------


def _answer(room: Room, result: CaseResult, state: dict[str, Any]) -> None:
    """Hints, the answer, and what it is worth."""
    if state["judged"] is not None:
        _verdict(room, result, state)
        return
    left = len(HINTS) - state["hints"]
    st.button(
        f"Hint {state['hints'] + 1} of {len(HINTS)}" if left else "No more hints",
        key="_case.hint",
        on_click=_hint,
        icon=":material/lightbulb:",
        disabled=not left,
    )
    if len(result.labels):
        _choose_label(result, state)
    else:
        _say_where(result, state)


def _choose_label(result: CaseResult, state: dict[str, Any]) -> None:
    """One of the labels, in the order of their names, so that the order says nothing."""
    chosen = st.selectbox(
        "What is it about?",
        sorted(result.labels["label"], key=natural),
        index=None,
        key=f"_case.label.{state['of']}",
        placeholder=f"one of {len(result.labels)} labels; type to search",
        help="Each label is true or false of every token by the grammar of the corpus: which token or slot it is, the first "
        "year or decade of its sentence, its verb's mode, a bound that holds at END, where the second year comes next.",
    )
    st.button(
        "Answer",
        key="_case.answer",
        type="primary",
        disabled=chosen is None,
        on_click=_judge,
        args=(chosen, lambda: judge_label(result.labels, chosen or "")),
    )


def _say_where(result: CaseResult, state: dict[str, Any]) -> None:
    """The reader's words, kept for the reader alone, and where the feature fires by them."""
    said = st.text_input(
        "What is it about?", max_chars=200, key=f"_case.text.{state['of']}", placeholder="your hypothesis"
    )
    st.caption("Does it fire on the underlined token?")
    answers: dict[int, bool] = {}
    box = st.container(gap="xxsmall")
    for window, rows in result.quiz.groupby("window", sort=True):
        with box.container(horizontal=True, vertical_alignment="center", gap="small", key=f"_case_row_{window}"):
            st.html(f"<div style='font-size:.8rem'>{_window(rows, 1.0, result.model)}</div>", width="stretch")
            key = f"_case.quiz.{state['of']}.{window}"
            answers[int(window)] = st.toggle("it fires here", key=key, label_visibility="collapsed")
    state["answers"] = answers
    st.button(
        "Answer",
        key="_case.answer",
        type="primary",
        on_click=_judge,
        args=(said, lambda: judge_quiz(result.quiz, answers)),
    )


def _judge(said: str, judged: Callable[[], Judgement]) -> None:
    st.session_state[STATE] |= {"said": said, "judged": judged()}


def _verdict(room: Room, result: CaseResult, state: dict[str, Any]) -> None:
    """How good the answer was, the tokens asked about with the truth, and ways on."""
    judged: Judgement = state["judged"]
    st.markdown(f"{VERDICTS[judged.verdict]} with {state['hints']} of {len(HINTS)} hints")
    if state["said"] and not len(result.labels):
        st.markdown(f"You said: *{escaped(state['said'])}*")
    st.markdown(escaped(judged.says))
    box = st.container(gap="xxsmall")
    for window, rows in result.quiz.groupby("window", sort=True):
        fires = bool(rows["fires"].iloc[0])
        mark = "check" if fires == state["answers"][int(window)] else "close"
        with box.container(horizontal=True, vertical_alignment="center", gap="small", key=f"_case_row_{window}"):
            st.html(f"<div style='font-size:.8rem'>{_window(rows, 1.0, result.model)}</div>", width="stretch")
            st.markdown(f":material/{mark}: {'fires' if fires else 'silent'}", width="content")
    with st.container(horizontal=True, gap="small"):
        st.button("Next case", key="_case.next", type="primary", on_click=_next, icon=":material/arrow_forward:")
        if "features" in room.experiments:
            st.button(
                "Its dashboard", key="_case.dashboard", icon=":material/insights:", on_click=_dashboard, args=(result,)
            )


def _next() -> None:
    """The case that comes next; the last one leads to the first."""
    (control,) = (one for one in knobs.visible(CaseConfig) if one.name == "seed")
    now, low, high = int(knobs.knob_value("case", "seed")), int(control.low or 0), int(control.high or 0)
    knobs.set_knobs("case", seed=low if now == high else now + 1)


def _dashboard(result: CaseResult) -> None:
    """Go to the page's view of features with this one."""
    knobs.show_view("features", model=result.model, kind="transcoder", layer=result.layer, unit=result.feature)


def natural(label: str) -> tuple[str, int, str]:
    """How labels are ordered: by name, numbers in them by size.

    >>> sorted(["decade: 30", "decade: 4", "city: 5"], key=natural)
    ['city: 5', 'decade: 4', 'decade: 30']
    """
    words = label.split()
    number = next((int(word) for word in words if word.isdigit()), -1)
    return " ".join(word for word in words if not word.isdigit()), number, label
