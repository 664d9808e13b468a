"""What the model says after a token of the prompt, and how much every token surprised it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.next_token_inputs import MAX_TEMPERATURE, MAX_TOP, MIN_TEMPERATURE, NextTokenInputs
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, page_state, pass_seconds, prompt_inputs
from pages.shared.selection import select, selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import NextTokenResult

TABLE_HEIGHT, FEW_ROWS = 560, 15
SURPRISE_FORMULA = r"$\text{surprise}(t)=-\log P(x_t\mid x_{<t})$"
NEXT_FORMULA = r"$P(x\mid x_{\le t})=\mathrm{softmax}(\text{logits}_t/T)_x$"


def draw_next_tab() -> None:
    """Surprise of every token, and the table after the chosen one."""
    from mi_core.analyses import next_token
    from mi_core.exports.next_token import next_token_figure, surprise_figure

    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None or asked.tokens is None:
        return
    position = _position(len(asked.tokens))
    _draw_controls()
    state = st.session_state
    inputs = NextTokenInputs(
        asked.prompt, k=state["next_count"], position=position, temperature=float(state["next_temperature"]),
        answer=state["answer"] or None, distractor=state["distractor"] or None, bos=state["bos"],
    )  # fmt: skip
    result = instant(
        "next_token", inputs, next_token, "Next token", about=asked.about, seconds=pass_seconds(asked)
    )
    if result is None:
        return
    draw_warnings(result)
    _draw_facts(result)
    figure_card(
        "surprise", surprise_figure(result, chosen=result.position), on_cell=_choose, formula=SURPRISE_FORMULA
    )
    left, right = st.columns([3, 2])
    with left:
        figure_card("next_token", next_token_figure(result), formula=NEXT_FORMULA)
    with right:
        _draw_table(result)


def _draw_table(result: NextTokenResult) -> None:
    from mi_core.exports.next_token import top_table

    frame = top_table(result)
    decimals = {name: st.column_config.NumberColumn(format="%.4g") for name in frame.columns[4:]}
    st.dataframe(
        frame,
        hide_index=True,
        height="content" if len(frame) <= FEW_ROWS else TABLE_HEIGHT,
        column_config=decimals,
        alt="The most probable next tokens with rank, probability, log-probability and logit.",
    )


def _position(count: int) -> int | None:
    """The selected token, if the prompt has it; else None, the last one, and that is said."""
    position = selection().position
    if position is not None and position >= count:
        st.info(f"The prompt has no token {position}; the last one is shown instead.")
        return None
    return position


def _draw_controls() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="next_bar"):
        st.number_input("Tokens in the table", 1, MAX_TOP, key="next_count", width=170)
        st.number_input(
            "Temperature",
            MIN_TEMPERATURE,
            MAX_TEMPERATURE,
            step=0.1,
            key="next_temperature",
            width=150,
            help="Divides the logits in the table of next tokens. Surprise is always at temperature 1.",
        )
        if selection().position is not None:
            st.button("After the last token", icon=":material/last_page:", on_click=_last, key="next_last")


def _last() -> None:
    select(replace(selection(), position=None))


def _choose(cell: dict[str, Any]) -> None:
    if isinstance(cell.get("position"), int):
        select(replace(selection(), position=cell["position"]))


def _draw_facts(result: NextTokenResult) -> None:
    from mi_core.charts.text import number, token_label

    token = result.tokens[result.position]
    facts = {
        "After token": plain(token_label(token.position, token.visible)),
        "Top token": plain(result.visible(int(result.ids[0]))),
        "Its probability": number(float(result.probabilities[0])),
        "Entropy": f"{number(result.entropy)} nats",
    }
    if len(result.tokens) > 1:
        facts["Mean surprise"] = f"{number(result.mean_surprise)} nats"
    with st.container(horizontal=True, gap="medium", key="next_facts"):
        for name, value in facts.items():
            st.metric(name, value, width="content")
