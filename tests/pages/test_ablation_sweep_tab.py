"""The tab "Sweeps": its numbers are the library's, a chosen cell goes into the list, links reopen it."""

from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import AblationSweepInputs, AblationSweepResult, ablation_sweep
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The tab, drawn twice."""
    session = frame("knockout", **{"prompt": PROMPT, "ko_tab": "sweeps", **link})
    settle(session, "ablation_sweep")
    session.run()
    assert_sound(session)
    return session


def result_of(session: AppTest) -> AblationSweepResult:
    return session.session_state["_run_ablation_sweep"].result


def test_the_tab_shows_the_librarys_numbers(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, vs=" Rome")
    result, model = result_of(session), hub().resident(default_spec())
    assert model is not None
    again = ablation_sweep(model, AblationSweepInputs(PROMPT, mode="zero", distractor=" Rome"))
    assert result.inputs == again.inputs
    np.testing.assert_allclose(result.values, again.values, atol=1e-5)
    assert "Click a cell or a bar" in texts(session)
    before = session.session_state["_run_ablation_sweep"]
    session.segmented_control(key="ablation_metric").set_value("logit_difference").run()
    assert_sound(session)
    assert session.session_state["_run_ablation_sweep"] is before  # another metric computes nothing
    assert "logit difference" in texts(session)


def test_a_chosen_cell_goes_into_the_list_and_has_a_joint_effect(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, layer="0", head="1")
    assert session.session_state["interventions"] == ""
    session.button(key="ablation_add").click().run()
    settle(session, "joint_ablation")
    assert_sound(session)
    assert session.session_state["interventions"] == "L0H1:zero"
    joint = session.session_state["_run_joint_ablation"].result
    assert joint.joint_effect("logit") == pytest.approx(joint.sum_of_singles("logit"), abs=1e-5)
    assert session.button(key="ablation_add").disabled
    session.toggle(key="ablation_listed").set_value(True).run()
    settle(session, "ablation_sweep")
    assert_sound(session)
    assert result_of(session).inputs.interventions == "L0H1:zero"


@pytest.mark.parametrize(
    ("link", "texts_of"),
    [
        ({"ks_what": "modules", "ks_mode": "mean", "ks_at": "last"}, "L0attn@11:mean"),
        ({"ks_what": "edges"}, "e11-0@L0"),
        ({"ks_what": "edges", "ks_heads": "L4H0 L3H1"}, "e11-0@L4H0"),
        ({"ks_what": "keys"}, "c0@all"),
    ],
)
def test_a_link_opens_every_kind_of_sweep(
    frame: Callable[..., AppTest], link: dict[str, str], texts_of: str
) -> None:
    session = opened(frame, **link)
    assert result_of(session).units.texts[0][0] == texts_of


def test_the_dose_of_an_edge(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, ks_dose="1", ks_layer="4", ks_key="5", ks_metric="logit")
    settle(session, "attention_dose")
    assert_sound(session)
    result = session.session_state["_run_attention_dose"].result
    assert result.edge == "e11-5@L4"
    session.number_input(key="dose_head").set_value(9).run()
    settle(session, "attention_dose")
    said = [element.value.replace("\\", "") for element in session.error]
    assert any("no head 9" in text for text in said)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"ks_mode": "resample"}, "needs a second prompt"),
        ({"ks_mode": "resample", "b": "Rome"}, "equal length"),
        ({"ks_what": "edges", "ks_heads": "first"}, "names no head"),
        ({"ks_what": "edges", "ks_heads": "L99H0"}, "no head L99H0"),
        ({"ko": "L1H99:zero"}, "no head 99"),
    ],
)
def test_mistakes_cost_one_sentence(frame: Callable[..., AppTest], link: dict[str, str], said: str) -> None:
    session = frame("knockout", **{"prompt": PROMPT, "ko_tab": "sweeps", **link})
    until_idle(session, ("ablation_sweep", "joint_ablation"))
    assert_sound(session)
    shown = [element.value for element in (*session.error, *session.warning, *session.info)]
    assert any(said in text.replace("\\", "") for text in shown)
