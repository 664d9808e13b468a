"""The frame: every page is launched twice, links are followed, mistakes are said, sessions do not mix."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared.catalogue import PAGES
from pages.shared.hub import explain
from pages.shared.session import default_spec, hub
from tests.pages.conftest import assert_sound, load, open_frame

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert(1)</script> *_$ [x](javascript:alert(1)) :red[y] `z` <img src=x onerror=1>"


@pytest.mark.parametrize("page", [card.name for card in PAGES])
def test_every_page_starts_twice(frame: Callable[..., AppTest], page: str) -> None:
    session = frame(page)
    assert_sound(session)
    assert session.title
    assert any(element.value == "Model" for element in session.sidebar.subheader)
    session.run()
    assert_sound(session)


@pytest.mark.parametrize("page", [card.name for card in PAGES])
def test_every_page_is_told_apart_by_file_and_question(page: str) -> None:
    card = next(card for card in PAGES if card.name == page)
    assert card.path.exists()
    assert card.question.endswith("?")


def test_pages_import_nothing_slow() -> None:
    """What a first paint needs, the first figure of Home included, comes without torch and pandas."""
    program = (
        "import sys\n"
        "import pages.shared.header, pages.shared.sidebar, pages.shared.home_view, pages.shared.trace_page\n"
        "import pages.shared.trace_average, pages.shared.help_view\n"
        "from pages.shared.examples import EXAMPLES, stored\n"
        "from mi_core.exports.causal_trace import heatmap_figure\n"
        "assert heatmap_figure(stored(EXAMPLES[0].name).result).spec\n"
        "slow = {'torch', 'transformers', 'pandas', 'altair', 'vl_convert'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_frame_is_imported_before_any_thread_begins() -> None:
    """Else a first visitor and the preload can wait for each other's imports, and one of them is refused."""
    program = (
        "import asyncio, sys, app\n"
        "from pages.shared import preload\n"
        "seen = []\n"
        "preload.start_preload = lambda: seen.append(set(sys.modules))\n"
        "async def start():\n"
        "    async with app.lifespan(app.app):\n"
        "        pass\n"
        "asyncio.run(start())\n"
        "import pages.shared.catalogue, pages.shared.header, pages.shared.sidebar\n"
        "late = {name for name in set(sys.modules) - seen[0] if name.startswith('mi_core.analyses')}\n"
        "assert 'pages.shared.sidebar' in seen[0] and not late, late\n"
        "assert not {'torch', 'transformers', 'pandas'} & seen[0]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_first_visit_starts_with_an_example(frame: Callable[..., AppTest]) -> None:
    session = frame()
    assert session.session_state["subject"]
    assert session.session_state["prompt"].startswith("The Eiffel Tower")


def test_a_deep_link_sets_what_it_says(frame: Callable[..., AppTest]) -> None:
    link = {
        "prompt": "The Space Needle is in",
        "subject": "2-5",
        "n": "4",
        "kinds": "state,head",
        "layer": "3",
    }
    session = frame("causal_trace", **link)
    assert_sound(session)
    assert session.text_input(key="prompt").value == "The Space Needle is in"
    assert session.number_input(key="samples").value == 4
    assert session.session_state["kinds"] == ["state", "head"]
    assert session.session_state["selected_layer"] == 3
    assert not session.warning


def test_a_link_with_mistakes_says_each_and_uses_the_rest(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", n="many", level="4", dir="sideways", color="red")
    assert_sound(session)
    said = session.warning[0].value
    assert all(word in said for word in ("`many`", "`sideways`", "`color`"))
    assert session.number_input(key="noise_level").value == 4.0
    assert session.number_input(key="samples").value == 10
    session.button(key="dismiss_problems").click().run()
    assert not session.warning


def test_a_hostile_link_is_shown_and_not_run(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=HOSTILE, target=HOSTILE, n=HOSTILE)
    assert_sound(session)
    assert session.text_input(key="prompt").value == HOSTILE
    assert not any(element.allow_html for element in (*session.markdown, *session.caption))
    assert "``<script>" in session.warning[0].value  # a code span whose fence the text cannot close


def test_hostile_tokens_reach_the_strip_as_data(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=HOSTILE, subject="1-2")
    assert_sound(session)
    strip = session.get("bidi_component")[0].proto
    chips = json.loads(strip.json)["chips"]
    assert "script" in "".join(chip["text"] for chip in chips)
    assert "innerHTML" not in strip.js_content
    assert [chip["position"] for chip in chips if "subject" in chip["marks"]] == [1, 2]


def test_widgets_keep_their_values_on_page_change(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", subject="2-5")
    session.number_input(key="samples").set_value(7).run()
    session.text_input(key="answer").set_value(" Rome").run()
    session.switch_page("../help.py").run()
    session.switch_page("../causal_trace.py").run()
    assert session.number_input(key="samples").value == 7
    assert session.text_input(key="answer").value == " Rome"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/nowhere/at/all", "does not exist"),
        ("nobody/nothing-at-all", "is not on this machine"),
        ("a b c", "no bundled model, no folder"),
    ],
)
def test_a_model_that_is_not_there_is_one_sentence(
    frame: Callable[..., AppTest], name: str, said: str
) -> None:
    session = frame("causal_trace", model=name)
    assert_sound(session)
    assert said in "\n".join(element.value for element in session.sidebar.error).replace("\\", "")
    assert session.button(key="run_trace").disabled


def test_a_folder_without_a_model_is_one_sentence(frame: Callable[..., AppTest], tmp_path: Path) -> None:
    session = frame("causal_trace", model=str(tmp_path))
    assert_sound(session)
    assert "is not a model" in "\n".join(element.value for element in session.sidebar.error)


def test_a_name_that_cannot_be_one_is_said_by_the_link(frame: Callable[..., AppTest]) -> None:
    session = frame(model="x" * 2000, device="toaster")
    assert_sound(session)
    assert "characters" in session.warning[0].value
    assert "toaster" in session.warning[0].value
    assert session.session_state["model"] == "atlas"


def test_two_sessions_do_not_mix(frame: Callable[..., AppTest], small_model: Path) -> None:
    """Prompts, models and tokens of two browser tabs stay apart although they share one worker."""
    first = frame("causal_trace", prompt="The Space Needle is in", subject="2-5")
    second = open_frame("causal_trace", prompt="The cat sat", subject="1", model=str(small_model))
    assert_sound(second)
    second.button(key="load_model").click().run()
    spec = second.session_state["model"]
    assert spec == str(small_model)
    while hub().worker.pending(second.session_state["_waiter"]):
        second.run()
    second.run()
    first.run()
    assert first.text_input(key="prompt").value == "The Space Needle is in"
    assert second.text_input(key="prompt").value == "The cat sat"
    assert any("8 layers" in element.value for element in first.sidebar.caption)
    assert any("3 layers" in element.value for element in second.sidebar.caption)
    assert any("different model" in element.value for element in first.sidebar.warning)
    load(default_spec())


def test_errors_of_jobs_are_explained() -> None:
    assert explain(ZeroDivisionError("secret path")) == (
        "This run failed with ZeroDivisionError. The log of the server says more."
    )
