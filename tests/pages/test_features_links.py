"""Links into the features page that ask for what is not there: one sentence each, and the rest is kept."""

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from mi_core.errors import InputError
from mi_core.transcoders import FeatureGenerationInputs
from pages.shared import running
from pages.shared.catalogue import all_fields
from pages.shared.link import read_link
from pages.shared.session import hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, texts
from tests.pages.test_every_prompt import RUNS

PROMPT = "The Louvre Museum is located in the city of"
PLAN = {"fp_up": "L0F1", "target": " Paris", "fp_n": "0", "fp_grid": "1", "fr_grid": "1"}


def opened(frame: Callable[..., AppTest], tab: str, **link: str) -> AppTest:
    session = frame("features", **{"prompt": PROMPT, "ft_tab": tab, **link})
    until_idle(session, RUNS[tab])
    session.run()
    assert_sound(session)
    return session


@pytest.mark.parametrize(
    ("tab", "link", "said"),
    [
        ("feature", {"layer": "5", "feature": "1024"}, "Layer 5 has no feature 1,024"),
        ("feature", {"layer": "5", "feature": "99999999"}, "Layer 5 has no feature 99,999,999"),
        ("feature", {"feature": "3"}, "may have a feature 3: type its layer"),
        ("feature", {"layer": "99", "feature": "3"}, "no layer 99"),
        ("feature", {"layer": "5", "feature": "3", "fw_at": "banana"}, "does not write to layer banana"),
        ("feature", {"layer": "5", "feature": "3", "fc_test": "x " * 2000}, "The text has"),
        ("prompt", {"fq_tokens": "999,1"}, "Left out: tokens 999"),
        ("prompt", {"fq_dense": "0"}, "hidden because they are dense"),
        ("inject", {"fi": "L5F99999@3:set=3"}, "no feature 99,999"),
        ("inject", {"fi": "L5F102@99:set=3"}, "names token 99"),
        ("inject", {"fi": "L5F102@3:set=1e300"}, "beyond 1,000,000"),
        ("steer", {"fg_f": "L0F966"}, "Write for example L5F102:add=2"),
        ("steer", {"fg_f": "L0F966@3:add=5"}, "names tokens"),
        ("planning", {**PLAN, "fp_grid": "1, x"}, "The strengths '1, x' cannot be read"),
        ("planning", {**PLAN, "fr_pos": "999"}, "There is no pushed token 999"),
        ("planning", {**PLAN, "fr_q": "999"}, "There is no reading token 999"),
        ("graph", {"gr_edge": "L0F1@1>L0F2@99"}, "The edge L0F1@1 to L0F2@99 is not in this graph"),
        ("graph", {"gr_node": "L99F99@99"}, "The node L99F99@99 is not in this graph"),
        ("probe", {"layer": "99"}, "no features in layer 99"),
    ],
)
def test_what_is_not_there_is_said(
    tab: str, link: dict[str, str], said: str, frame: Callable[..., AppTest]
) -> None:
    session = frame("features", **{"prompt": PROMPT, "ft_tab": tab, **link})
    until_idle(session, RUNS[tab])
    assert_sound(session)
    assert said in texts(session).replace("\\", "")


def test_what_was_refused_is_still_said_when_its_figure_comes_late(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.0)
    hub().results.clear()
    session = opened(frame, "planning", **PLAN, fr_q="999")
    assert "There is no reading token 999" in texts(session)
    session.number_input(key="routing_query").set_value(2).run()
    assert "There is no reading token" not in texts(session)
    assert_sound(session)


def test_a_bad_list_of_pins_is_refused_as_a_whole_and_said() -> None:
    fields = all_fields()
    good, problems = read_link({"ft_pins": "L0F1,banana", "fp_s": "5"}, fields)
    assert good == {"planning_strength": 5.0}
    assert len(problems) == 1
    assert "names no feature" in problems[0]
    assert read_link({"ft_pins": "0:1, L3F7"}, fields)[0] == {"feature_pins": "L0F1,L3F7"}


@pytest.mark.parametrize(("key", "raw"), [("fq_tokens", "99,x"), ("fq_layers", "-1"), ("ft_pins", "foo")])
def test_what_a_link_lost_leaves_no_gap_in_the_sentence(key: str, raw: str) -> None:
    (problem,) = read_link({key: raw}, all_fields())[1]
    assert problem.endswith("Using no value instead.")


def test_a_bad_fit_says_what_else_it_may_be(frame: Callable[..., AppTest]) -> None:
    repeated = opened(frame, "words", prompt="the the the the the")
    assert any("one that repeats itself" in error.value for error in repeated.error)
    with_bos = opened(frame, "words", ft_bos="1")
    assert any("switch “Show BOS” off" in error.value for error in with_bos.error)


def test_everything_that_can_be_read_stays_in_the_link(frame: Callable[..., AppTest]) -> None:
    """A folder that is no transcoder costs nothing of what was set in any tab."""
    link = {
        "ft_tc": "/etc", "layer": "1", "feature": "3", "fi": "L0F1@1:set=2", "fg_f": "L0F1:add=2",
        "fp_up": "L0F1", "gr_pins": "T@1", "ft_pins": "L0F1,L3F7",
    }  # fmt: skip
    session = opened(frame, "graph", **link)
    assert "/etc is no transcoder" in texts(session).replace("\\", "")
    assert len(session.error) == 1
    assert {key: session.query_params[key] for key in link} == link


def test_a_push_needs_an_amount() -> None:
    with pytest.raises(InputError, match="Write for example L5F102:add=2"):
        FeatureGenerationInputs("a", "L0F966")
