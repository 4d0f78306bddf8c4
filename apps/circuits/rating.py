"""The blind rating: one card at a time, the reader says whether it has a meaning; the key comes at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st
from circuits import drawing
from circuits.features import open_unit
from ui import knobs
from ui.jobs import sentence
from ui.look import escaped, presenting, theme
from ui.room import Room, own_view
from ui.stage import live

if TYPE_CHECKING:
    from lab.circuits.transcoders.views.rating.experiment import Outcome, RatingResult
    from lab.circuits.transcoders.views.rating.session import Deck, Ratings

AT = knobs.prefix("rating")
ANSWERS = {"yes": ("Yes, it means something", "Y"), "maybe": ("Maybe", "M"), "no": ("No", "N")}
HIDDEN = """
**Hidden**: whose unit it is (transcoder, autoencoder, neuron), its number, its scale, and what it does on the tokens around
an example, since how densely a unit fires gives most neurons away.

**Not hidden**: the texts, and the tokens that it makes likelier. Whoever has seen many dashboards may still guess. Only units
that fire on more than one token in ten thousand are dealt. The session's number decides the cards, so nothing but your
honesty keeps you from looking them up under *Features*.

**Not the paper's rating**: there, 50 features of each coder were rated, no neurons, and the autoencoder read the MLP's input.
Here it reads the output, and the language model is small.
"""


@own_view("rating")
def draw(room: Room) -> None:
    """Draw the view."""
    left, right = st.columns([2.4, 1], gap="medium" if presenting() else "large")
    with right:
        config = knobs.draw(room.experiment.config, AT)
        note, below = st.container(), st.container()
        if not presenting():
            with st.expander("What is hidden, and what not", icon=":material/visibility_off:"):
                st.markdown(HIDDEN)
    live(room.experiment, config, None, note, lambda dealt: _session(left, below, dealt, config))
    drawing.nothing_yet(left, room.experiment)


def _session(left: Any, below: Any, dealt: RatingResult, config: Any) -> None:
    """The session of a deck as far as it went: its next card, or what came of it."""
    from lab.circuits.transcoders.views.rating.session import Ratings

    deck = dealt.deck
    try:
        session = Ratings.resume(deck)
    except (ValueError, OSError) as error:
        left.error(escaped(sentence(error)))
        return
    if trouble := st.session_state.pop("_rating.trouble", ""):
        below.error(escaped(trouble))
    with below:
        _progress(deck, session)
    with left:
        if session.next is None:
            _finished(deck, session, config)
        else:
            _card(deck, session)


def _progress(deck: Deck, session: Ratings) -> None:
    done = sum(answer is not None for answer in session.answers)
    st.progress(done / len(session.answers), text=f"{done} of {len(session.answers)} cards rated")
    if done and session.next is not None:
        st.button(
            "Undo the last answer",
            key="_rating.undo",
            icon=":material/undo:",
            type="tertiary",
            on_click=_undo,
            args=(deck, session),
            shortcut="U",
        )


def _card(deck: Deck, session: Ratings) -> None:
    number = session.next
    assert number is not None
    card = deck.cards[number]
    st.container(key="finding").markdown(f"Card {number + 1} of {len(deck.cards)}: does it have a meaning?")
    drawing.card(card)
    with st.container(gap="xsmall"):
        st.markdown(f"Makes likelier: {_listed(card.promotes)}")
        st.markdown(f"Less likely: {_listed(card.suppresses)}")
    with st.container(horizontal=True, gap="small", key="answers"):
        for answer, (says, key) in ANSWERS.items():
            st.button(
                says,
                key=f"_rating.{answer}",
                on_click=_rate,
                args=(deck, session, number, answer),
                shortcut=key,
            )
    shown = st.session_state.get("_rating.shown")
    if shown is None or shown[0] != (deck.coders, deck.seed, number):
        st.session_state["_rating.shown"] = (deck.coders, deck.seed, number), time.monotonic()


def _listed(pieces: tuple[str, ...]) -> str:
    from lab.circuits.transcoders.models.languages import quoted

    return " ".join(escaped(quoted(piece)) for piece in pieces)


def _rate(deck: Deck, session: Ratings, number: int, answer: Any) -> None:
    """Keep the answer; with the last one the session goes on the ledger."""
    from lab.circuits.transcoders.views.rating.experiment import run_rating
    from lab.circuits.transcoders.views.rating.session import put_on_ledger

    card, since = st.session_state.get("_rating.shown", (None, time.monotonic()))
    seconds = time.monotonic() - since if card == (deck.coders, deck.seed, number) else 0.0
    try:
        rated = session.rate(number, answer, seconds=seconds)
        rated.save()
        if rated.next is None:
            put_on_ledger(run_rating, deck.coders)
    except (ValueError, OSError) as error:
        st.session_state["_rating.trouble"] = sentence(error)


def _undo(deck: Deck, session: Ratings) -> None:
    """Take back the answer to the card before."""
    last = max(number for number, answer in enumerate(session.answers) if answer is not None)
    answers = (*session.answers[:last], None, *session.answers[last + 1 :])
    try:
        session.model_copy(update={"answers": answers}).save()
    except OSError as error:
        st.session_state["_rating.trouble"] = sentence(error)


def _finished(deck: Deck, session: Ratings, config: Any) -> None:
    """What all finished sessions say, beside the paper's counts; then the key to this one."""
    from lab.circuits.transcoders.views.rating import figures
    from lab.circuits.transcoders.views.rating.experiment import outcome
    from lab.circuits.transcoders.views.rating.session import sessions

    found = outcome(sessions(deck.coders))
    drawing.chart(figures.answers(found, theme()), "transcoders-rating", finding=True, height=400)
    _says(found)
    st.button(
        "Next session",
        key="_rating.next",
        icon=":material/arrow_forward:",
        type="primary",
        on_click=_next,
        args=(config.session,),
    )
    if presenting():
        return
    st.markdown(f"**The key to session {deck.seed}**: numbers, and what you said of them. Press one to look at it.")
    names = {"transcoder": "Transcoder", "sae": "Autoencoder", "neuron": "Neurons"}
    for kind, says in names.items():
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(says, width=110)
            for (of, unit), answer in zip(deck.key, session.answers, strict=True):
                if of == kind:
                    st.button(
                        f"{unit} {answer}",
                        key=f"_rating.look.{kind}.{unit}",
                        on_click=open_unit,
                        args=("features", kind, config.layer, unit),
                    )


def _says(found: Outcome) -> None:
    names = {"sae": "autoencoder", "neuron": "neurons"}
    lines = []
    for one in found.comparisons:
        low, high = one.interval
        lines.append(
            f"Share of yes, transcoder minus {names[one.baseline]}: {one.difference:+.2f}, 95 % interval "
            f"{low:+.2f} to {high:+.2f} (Newcombe), Fisher's exact p = {one.p:.2g}."
        )
    count = f"{found.sessions} session{'s' if found.sessions > 1 else ''}, {found.cards} cards"
    st.markdown("  \n".join(map(escaped, lines)))
    st.caption(
        escaped(
            f"{count}. They stand on the ledger as yours, a replicate each; an interval over sessions takes five. "
            "The ledger holds the sessions of one layer: those of the layer you finished last."
        )
    )


def _next(session: int) -> None:
    knobs.set_knobs("rating", session=min(session + 1, 99))
