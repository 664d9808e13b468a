"""The top of the features page: the transcoder, how well it fits here, what it takes, what the hub has."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest

from mi_core.model.progress import format_bytes
from mi_core.transcoders import TranscoderCheckInputs, transcoder_check
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts
from tests.range_hub import RangeHub, serve

PROMPT = "The Space Needle is in downtown"
ATLAS_CLT = Path(__file__).resolve().parents[2] / "assets" / "atlas" / "transcoders" / "atlas-clt"


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The page, drawn twice."""
    session = frame("features", **{"prompt": PROMPT, **link})
    settle(session, "feature_source")
    session.run()
    assert_sound(session)
    return session


def test_the_line_above_has_the_librarys_number(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    model = hub().resident(default_spec())
    assert model is not None
    result = transcoder_check(model, TranscoderCheckInputs(PROMPT))
    assert f"Explains **{1 - result.unexplained_all:.0%}** of what the MLPs write" in texts(session)
    assert "cross-layer transcoder, JumpReLU, 8 layers of 1,024 features" in texts(session)
    assert "Format: CLT folder" in texts(session)


def copied(folder: Path, hooks: str) -> Path:
    for path in ATLAS_CLT.glob("W_*"):
        shutil.copy(path, folder)
    (folder / "config.yaml").write_text(hooks)
    return folder


def test_wrong_hooks_are_told_in_red_and_the_right_ones_are_not(
    frame: Callable[..., AppTest], tmp_path: Path
) -> None:
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    wrong = copied(tmp_path, f"model_name: <b>other</b>/model\n{hooks}")
    session = opened(frame, ft_tc=str(wrong))
    (error,) = [error.value for error in session.error]
    assert "Wrong hooks or wrong model" in error
    assert "made for `<b>other</b>/model`" in error
    settle(session, "features_on_prompt")
    assert not any("times the variance" in one.value for one in session.warning)  # it is said above
    copied(tmp_path, "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n")
    session.run()  # the files have changed under the same name
    settle(session, "feature_source")
    assert not session.error
    assert "Explains **" in texts(session)


def test_what_cannot_be_opened_is_one_sentence(frame: Callable[..., AppTest], tmp_path: Path) -> None:
    (tmp_path / "W_enc_0.safetensors").write_bytes(b"nonsense")
    session = opened(frame, ft_tc=str(tmp_path))
    assert "W_enc_0.safetensors is damaged" in texts(session).replace("\\", "")
    for name in ("<b>no/such</b>", "~nobody/clt", "a\0b", "  ", "..", "x" * 400):
        session = opened(frame, ft_tc=name)
        assert session.error, name
        assert "On the hub" not in texts(session)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangeHub]:
    for name, folder in (("HF_HUB_CACHE", "hf"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as hub:
        hub.repos["org/clt"] = {
            path.name: path.read_bytes() for path in ATLAS_CLT.iterdir() if path.is_file()
        }
        from huggingface_hub import constants

        # The library reads the environment when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub


def test_from_the_hub_sizes_first_then_what_is_asked_for(
    frame: Callable[..., AppTest], far: RangeHub
) -> None:
    session = opened(frame, ft_tc="org/clt")
    assert far.asked == far.listed == []
    session.button(key="feature_hub_ask").click()
    session.run()
    assert far.listed == ["org/clt"]
    assert far.asked == []
    assert "encoders: which features are active (8)" in texts(session)
    session.button(key="feature_hub_fetch_encoder").click().run()
    until_idle(session, ["feature_fetch"])
    session.run()
    settle(session, "feature_source")
    assert "Only the encoders are here" in texts(session)
    assert "fit not measured" in texts(session)
    assert not any("W_dec" in line for line in far.asked)
    session.button(key="feature_hub_rows").click().run()
    settle(session, "feature_source")
    assert "Decoder rows come from the hub one by one" in texts(session)
    assert_sound(session)


def test_encoders_of_whole_layers_are_offered_alone_with_the_smaller_size(
    frame: Callable[..., AppTest], far: RangeHub, tmp_path: Path
) -> None:
    """A PLT of Atlas' width: each file holds encoder and decoder; one of them stays whole, and it is said."""
    for layer in range(3):
        tensors = {"W_enc": torch.randn(400, 128), "W_dec": torch.randn(400, 128), "b_enc": torch.zeros(400)}
        save_file({**tensors, "b_dec": torch.zeros(128)}, tmp_path / f"layer_{layer}.safetensors")
    save_file({"W_enc": torch.zeros(4, 128)}, tmp_path / "layer_2.safetensors")
    config = "feature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out\n"
    far.repos["org/plt"] = {path.name: path.read_bytes() for path in tmp_path.glob("layer_*")}
    far.repos["org/plt"]["config.yaml"] = config.encode()
    size = len(far.repos["org/plt"]["layer_0.safetensors"])
    session = opened(frame, ft_tc="org/plt")
    far.ranges = "ignored"
    session.button(key="feature_hub_ask").click()
    session.run()
    assert "encoder and decoder together: the server sends only whole files." in texts(session)
    assert not [button for button in session.button if button.key == "feature_hub_fetch_encoder"]
    far.ranges, far.sent = "right", 0
    session.button(key="feature_hub_again").click()
    session.run()
    assert far.sent < 2000
    assert "encoders alone: all of each layer's file but its decoder (2)" in texts(session)
    assert "layer_2.safetensors` can only be fetched whole" in texts(session)
    assert "it names no W\\_dec" in texts(session)
    session.text_input(key="feature_hub_layers").set_value("1").run()
    assert format_bytes(size - 400 * 128 * 4) in session.button(key="feature_hub_fetch_encoder").label
    assert format_bytes(size) in session.button(key="feature_hub_fetch_both").label
    far.sent = 0
    session.button(key="feature_hub_fetch_encoder").click().run()
    until_idle(session, ["feature_fetch"])
    session.run()
    settle(session, "feature_source")
    assert far.sent == size - 400 * 128 * 4 + len(config)
    assert "Only the encoders are here" in texts(session)
    session.button(key="feature_hub_rows").click().run()
    settle(session, "feature_source")
    assert "Decoder rows come from the hub one by one" in texts(session)
    assert_sound(session)
