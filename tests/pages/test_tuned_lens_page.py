"""The tuned-lens tab: train, save, list, use in the grid, measure, and what is told about mistakes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import TunedLens, TunedLensTrainResult, open_lens, tuned_lens_train
from mi_core.analyses.tuned_lens_files import write_lens
from pages.shared.session import default_spec, hub
from tests.pages.conftest import assert_sound, settle, texts

SHORT = {"ll_tab": "tuned", "ll_tsteps": "2", "ll_tbatch": "64", "ll_tcontext": "32"}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder for this test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    about = hub().about(default_spec())
    return tmp_path / "data" / "lantern" / "lenses" / ("" if about is None else about.fingerprint)


def train(session: AppTest) -> TunedLensTrainResult:
    session.button(key="train_tuned").click().run()
    settle(session, "tuned_lens")
    assert_sound(session)
    return session.session_state["_run_tuned_lens"].result


def said(session: AppTest) -> str:
    return texts(session).replace("\\", "") + " ".join(element.value for element in session.success)


def test_a_lens_is_trained_saved_and_used_in_the_grid(frame: Callable[..., AppTest]) -> None:
    session = frame("logit_lens", **SHORT, ll_tname="first")
    assert_sound(session)
    assert "128 tokens at 8 layers, 3,475 logits each" in said(session)
    result = train(session)
    model = hub().resident(default_spec())
    assert model is not None
    assert open_lens(model, "first").fingerprint == result.fingerprint
    assert tuned_lens_train(model, result.inputs).fingerprint == result.fingerprint  # the library's numbers
    assert "Saved to" in said(session)
    assert "needs another name" in said(session)
    assert len(session.get("vega_lite_chart")) == 2  # quality and course
    used = next(b for b in session.button if (b.key or "").startswith("tuned_use_") and not b.disabled)
    used.click().run()
    assert session.session_state["lens_file"] in ("first", "atlas-text")
    session.run()
    assert_sound(session)


def test_measuring_a_lens_compares_it_with_the_plain_one(frame: Callable[..., AppTest], own: Path) -> None:
    session = frame("logit_lens", **SHORT)
    zero = TunedLens.plain(8, 128)
    write_lens(zero, own / "zero")
    session.run()
    names = [lens for lens in session.button if (lens.key or "").startswith("tuned_measure_")]
    assert len(names) >= 2
    session.text_input(key="tuned_path").set_value(str(own / "zero")).run()
    session.button(key="tuned_measure_path").click().run()
    settle(session, "tuned_lens")
    assert_sound(session)
    result: TunedLensTrainResult = session.session_state["_run_tuned_lens"].result
    assert np.array_equal(result.plain_kl, result.tuned_kl)
    assert not result.saved_to
    assert len(session.get("vega_lite_chart")) == 1


def test_mistakes_are_told(frame: Callable[..., AppTest], own: Path) -> None:
    write_lens(TunedLens.plain(8, 128), own / "taken")
    write_lens(TunedLens.plain(8, 128), own / "pickled")
    (own / "pickled" / "params.safetensors").rename(own / "pickled" / "params.pt")
    session = frame("logit_lens", **SHORT, ll_tname="taken")
    assert_sound(session)
    assert "There is a lens 'taken' already" in said(session)
    assert session.button(key="train_tuned").disabled
    session.checkbox(key="tuned_replace").check().run()
    assert not session.button(key="train_tuned").disabled
    session.text_input(key="tuned_name").set_value("../up").run()
    assert "A lens cannot be called '../up'" in said(session)
    session.text_input(key="tuned_path").set_value(str(own / "pickled")).run()
    session.button(key="tuned_measure_path").click().run()
    settle(session, "tuned_lens")
    assert_sound(session)
    assert any("This lens is a pickle" in element.value.replace("\\", "") for element in session.error)


def test_a_text_file_is_needed_for_ones_own_text(frame: Callable[..., AppTest]) -> None:
    session = frame("logit_lens", **SHORT, ll_tset="file")
    assert_sound(session)
    assert "Upload a text file." in said(session)
    session.session_state["_tuned_text"] = (
        "mine.txt",
        tuple(f"line {i} of the city of Paris" for i in range(30)),
    )
    session.run()
    assert "30 documents" in said(session)
    assert not session.button(key="train_tuned").disabled
    result = train(session)
    assert result.inputs.text_name == "mine.txt"


def test_the_tab_loads_without_a_data_folder(frame: Callable[..., AppTest], own: Path) -> None:
    shutil.rmtree(own, ignore_errors=True)
    session = frame("logit_lens", **SHORT)
    session.run()
    assert_sound(session)
