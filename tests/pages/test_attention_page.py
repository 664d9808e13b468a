"""The attention page: the library's numbers, links that open everything, two prompts, types, mistakes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from mi_core.analyses import (
    AttentionInputs,
    AttentionResult,
    HeadScoresInputs,
    attention_patterns,
    head_scores,
)
from mi_core.engine import parse_edit
from mi_core.model.model import LoadedModel
from pages.shared.attention_actions import ablation, cut
from pages.shared.attention_fields import parse_pins, pinned_heads, pins_text
from pages.shared.attention_grid import colour_bytes
from pages.shared.attention_tiles import choose_square_cell
from pages.shared.link import BadValue
from pages.shared.session import default_spec, hub
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"
OTHER = "The Prado Museum is located in the city of"


def open_page(frame: Callable[..., AppTest], **link: str) -> AppTest:
    session = frame("attention", **{"prompt": PROMPT, **link})
    settle(session, "head_scores" if link.get("at_tab") else "attention")
    assert_sound(session)
    return session


def shown(session: AppTest) -> AttentionResult:
    return session.session_state["_run_attention"].result


def charts(session: AppTest) -> list[dict[str, list[dict[str, Any]]]]:
    """The data sets of every drawing, by name, in the order of the page."""
    return [
        {
            data.name: convert_arrow_bytes_to_pandas_df(data.data.data).to_dict("records")
            for data in chart.proto.datasets
        }
        for chart in session.get("vega_lite_chart")
    ]


def card(session: AppTest, name: str) -> dict[str, list[dict[str, Any]]]:
    """The data sets of one of the five cards of a page without pins."""
    names = ["heads", "square", "text", "pairs", "sums"]
    assert len(charts(session)) == len(names)
    return charts(session)[names.index(name)]


def atlas() -> LoadedModel:
    model = hub().resident(default_spec())
    assert model is not None
    return model


def test_the_page_shows_the_librarys_numbers_without_a_button(frame: Callable[..., AppTest]) -> None:
    session = open_page(frame)
    result = shown(session)
    again = attention_patterns(atlas(), AttentionInputs(PROMPT))
    np.testing.assert_allclose(result.values, again.values, atol=1e-6)
    strongest = np.unravel_index(np.abs(again.metric("effect")).argmax(), (8, 4))
    assert f"Layer {strongest[0]}, head {strongest[1]}" in texts(session), "the largest effect comes first"
    cells = card(session, "square")["cells"]
    last = [cell for cell in cells if cell["query"] == len(result.tokens) - 1]
    assert sum(cell["value"] for cell in last) == pytest.approx(1, abs=1e-5)
    session.run()
    assert_sound(session)
    assert shown(session) is result, "a rerun computes nothing"


def test_a_link_opens_head_cell_mask_and_what_is_shown(frame: Callable[..., AppTest]) -> None:
    link = {"layer": "4", "head": "0", "pos": "10", "key": "5", "at_mask": "1", "at_show": "contribution"}
    session = open_page(frame, **link, at_shade="induction", at_dir="to", target=" Paris", vs=" Rome")
    result, drawn = shown(session), card(session, "square")
    assert result.inputs.show == "contribution"
    assert result.inputs.distractor == " Rome"
    assert "Layer 4, head 0" in texts(session)
    assert drawn["chosen"] == [{"xc": 5, "yc": 10}]
    assert not [cell for cell in drawn["cells"] if cell["key"] == 0]
    assert "is masked" in texts(session)
    assert "Who reads" in texts(session)
    cells = {(cell["query"], cell["key"]): cell["value"] for cell in drawn["cells"]}
    assert cells[10, 5] == pytest.approx(float(result.values[4, 0, 10, 5]))


def test_pinned_heads_stand_beside_each_other_on_one_scale(frame: Callable[..., AppTest]) -> None:
    session = open_page(frame, at_pins="L4H0,L5H1,L99H0")
    drawn = charts(session)
    assert len(drawn) == 6
    assert {cell["kind"] for cell in drawn[1]["cells"]} == {"L4H0:a", "L5H1:a"}
    session.button(key="attention_pin").click().run()
    assert_sound(session)
    assert len(pinned_heads(session.session_state["attention_pins"])) in (1, 3)


def test_two_prompts_and_their_difference(frame: Callable[..., AppTest]) -> None:
    session = open_page(frame, b=OTHER, at_side="difference", layer="4", head="0")
    result = shown(session)
    assert result.compared
    cells = card(session, "square")["cells"]
    by_hand = result.values[4, 0] - result.second_values[4, 0]  # type: ignore[index]
    assert all(cell["value"] == pytest.approx(by_hand[cell["query"], cell["key"]]) for cell in cells)
    session.session_state["attention_side"] = "both"
    session.run()
    assert_sound(session)
    kinds = {cell["kind"] for cell in card(session, "square")["cells"]}
    assert kinds == {"L4H0:a", "L4H0:b"}


def test_prompts_of_different_length_show_a_alone_and_say_why(frame: Callable[..., AppTest]) -> None:
    session = open_page(frame, b="The Prado is in the city of", at_side="b")
    assert not shown(session).compared
    assert "Only A is shown" in texts(session)
    assert "differ in length" in texts(session)


def test_mistakes_in_a_link_are_told(frame: Callable[..., AppTest]) -> None:
    session = open_page(frame, at_pins="all", at_shade="luck", layer="50", head="1", pos="400", key="399")
    told = texts(session)
    assert "at_pins" in told
    assert "at_shade" in told
    assert "Layer 50" not in told


def test_a_head_that_the_model_lacks_is_told_and_another_is_shown(frame: Callable[..., AppTest]) -> None:
    session = open_page(frame, layer="99", head="7")
    assert any("no head L99H7" in warning.value for warning in session.warning)
    assert not open_page(frame, layer="4", head="3").warning
    assert not open_page(frame, layer="99").warning  # a layer alone selects no head


def test_the_head_types_are_the_librarys(frame: Callable[..., AppTest]) -> None:
    link = {"at_length": "12", "at_n": "2", "at_seed": "3", "at_score": "previous_token"}
    session = open_page(frame, at_tab="types", **link)
    result = session.session_state["_run_head_scores"].result
    again = head_scores(atlas(), HeadScoresInputs(length=12, samples=2, seed=3))
    np.testing.assert_allclose(result.samples, again.samples, atol=1e-6)
    assert "previous token score" in texts(session)
    session.run()
    assert_sound(session)


def test_a_model_without_patterns_is_explained_with_a_way_out(frame: Callable[..., AppTest]) -> None:
    missing = atlas().structure.missing
    missing["pattern"] = "its attention has sinks"
    try:
        session = frame("attention", prompt=PROMPT)
        assert_sound(session)
        assert "its attention has sinks" in texts(session)
        assert not session.get("vega_lite_chart")
        assert session.button(key="attention_eager")
    finally:
        del missing["pattern"]


def test_without_a_prompt_the_page_says_what_to_do(frame: Callable[..., AppTest]) -> None:
    session = frame("attention", prompt="", target="x")
    assert_sound(session)
    assert "Type a prompt" in texts(session)


def test_knock_out_is_offered_only_when_there_is_such_a_page(frame: Callable[..., AppTest]) -> None:
    from pages.shared.catalogue import PAGES

    session = open_page(frame, layer="4", head="0", pos="9", key="3")
    actions = {"Ablate this head", "Cut this edge"}
    there = any(page.name == "knockout" for page in PAGES)
    assert {link.proto.label for link in session.get("page_link")} & actions == (actions if there else set())


def test_what_is_carried_to_the_knock_out_is_an_edit() -> None:
    assert ablation(4, 0) == "L4H0:zero"
    assert cut(4, 0, 9, 3) == "e9-3@L4H0"
    assert parse_edit(cut(4, 0, 9, 3)).keys == (3,)
    assert parse_edit(ablation(4, 0)).operation == "zero"


def test_lists_of_pins() -> None:
    assert pins_text(pinned_heads(parse_pins(" L4H0, L5H1 ,L4H0"))) == "L4H0,L5H1"
    for bad in ("4,0", "L4", "L1H1," * 7 + "L2H2,L3H3,L4H4,L5H5,L6H6,L7H7", "<b>"):
        with pytest.raises(BadValue):
            parse_pins(bad)


def test_a_click_that_is_no_cell_changes_nothing() -> None:
    choose_square_cell({"kind": "<script>", "query": 1, "key": 0})
    choose_square_cell({"kind": "L1H1:a", "query": "1"})


def test_the_canvas_has_the_figures_colours() -> None:
    plain, signed = colour_bytes(signed=False), colour_bytes(signed=True)
    assert len(plain) == len(signed) == 255 * 3
    assert plain[:3] == [0x00, 0x20, 0x51]
    assert signed[127 * 3 : 127 * 3 + 3] == [255, 255, 255]
