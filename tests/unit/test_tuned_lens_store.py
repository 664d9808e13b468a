"""Where tuned lenses live, and training one that is saved there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_core.analyses import TunedLensSaveInputs, TunedLensTrainResult, tuned_lens_train_and_save
from mi_core.analyses.tuned_lens_files import write_lens
from mi_core.analyses.tuned_lens_store import data_folder, lenses_of, open_lens, save_folder, save_lens
from mi_core.cli import main
from mi_core.engine.holder import load_model
from mi_core.errors import Cancelled, InputError
from mi_core.model.spec import ModelSpec
from tests.disk import save_model
from tests.lenses import model, pickled, some_lens
from tests.words import WORDS


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lens(some_lens(), tmp_path / "mine")
    return tmp_path / "mine"


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def test_lenses_are_saved_beside_a_models_folder(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load_model(str(folder))
    lens = some_lens("first", layers=loaded.dims.n_layers)
    assert save_lens(loaded, lens) == folder / "lenses" / "first"
    assert [(one.name, one.place, one.problem) for one in lenses_of(loaded)] == [
        ("first", "beside the model", "")
    ]
    assert open_lens(loaded, "first").fingerprint == lens.fingerprint
    assert open_lens(loaded, str(folder / "lenses" / "first")).fingerprint == lens.fingerprint
    assert load_model(str(folder)).fingerprint == loaded.fingerprint  # the lens is no part of the model


def test_lenses_of_other_models_go_to_the_users_data_folder(tmp_path: Path) -> None:
    llama = model()
    folder = save_lens(llama, some_lens())
    assert folder == tmp_path / "data" / "lantern" / "lenses" / "weights-of-llama" / "mine"
    assert [(one.name, one.place) for one in lenses_of(llama)] == [("mine", "your data folder")]
    assert not lenses_of(model("gpt2"))
    bundled = replace(model(), spec=ModelSpec("atlas"), fingerprint="abc")
    assert save_folder(bundled, "x") == data_folder("abc") / "x"  # the program's own folder is not written to


def test_a_lens_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    llama = model()
    save_lens(llama, some_lens())
    first = open_lens(llama, "mine").fingerprint
    other = some_lens()
    other.bias[0] += 1
    save_lens(llama, other, replace=True)
    assert open_lens(llama, "mine").fingerprint == other.fingerprint != first


def test_lenses_that_cannot_be_used_are_listed_with_their_reason(tmp_path: Path) -> None:
    llama = model()
    for name, spoil in (("a", pickled), ("b", lambda f: (f / "config.json").write_text("{"))):
        spoil(save_lens(llama, some_lens(name)))
    (data_folder(llama.fingerprint) / "empty").mkdir()
    a, b = lenses_of(llama)
    assert "pickle" in a.problem
    assert "not JSON" in b.problem
    with pytest.raises(InputError, match="This lens is a pickle"):
        open_lens(llama, "a")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 61, "x y", "naïve", "con."])
def test_names_that_cannot_be_folders(name: str) -> None:
    with pytest.raises(InputError, match="A lens cannot be called"):
        save_lens(model(), some_lens(name))


@pytest.mark.parametrize("lens", ["", "nowhere", "\0", "~nobody-here/x", "a" * 5000])
def test_lenses_that_are_not_there(lens: str) -> None:
    with pytest.raises(InputError, match="There is no tuned lens"):
        open_lens(model(), lens)


def inputs(**changes: Any) -> TunedLensSaveInputs:
    random = np.random.default_rng(0)
    texts = tuple(" ".join(random.choice(WORDS, 12)) for _ in range(14))
    usual: dict[str, Any] = {"texts": texts, "steps": 3, "batch_tokens": 48, "context": 16}
    return TunedLensSaveInputs(**{**usual, **changes})


def test_a_trained_lens_is_saved_with_its_story() -> None:
    llama = model()
    result = tuned_lens_train_and_save(llama, inputs(save_as="fresh"))
    opened = open_lens(llama, "fresh")
    assert result.saved_to == str(data_folder(llama.fingerprint) / "fresh")
    assert opened.fingerprint == result.fingerprint
    assert opened.warnings == ()
    story = opened.origin.training
    assert story["validation"]["tuned_kl"] == [round(float(value), 6) for value in result.tuned_kl]
    assert story["settings"]["steps"] == 3
    assert len(story["text_sha256"]) == 64
    assert "texts" not in story["settings"]
    assert type(result.inputs).__name__ == "TunedLensTrainInputs"  # the recipe trains, and saves nothing
    with pytest.raises(InputError, match="There is a lens 'fresh' already"):
        tuned_lens_train_and_save(llama, inputs(save_as="fresh"))
    tuned_lens_train_and_save(llama, inputs(save_as="fresh", steps=1, replace=True))
    assert open_lens(llama, "fresh").fingerprint != result.fingerprint


def test_a_training_that_is_stopped_saves_the_best_so_far() -> None:
    llama = model()

    def stop(step: Any) -> None:
        if step.done >= 4:
            raise Cancelled

    result = tuned_lens_train_and_save(llama, inputs(save_as="half", steps=10_000), on_step=stop)
    assert result.cancelled
    assert open_lens(llama, "half").origin.training["stopped_early_by_user"] is True


def test_a_training_that_is_stopped_at_once_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = model()
    monkeypatch.setattr("mi_core.analyses.tuned_lens_training.SECONDS_BETWEEN_STEPS", 0.0)

    def stop(step: Any) -> None:
        if step.text.startswith("training"):
            raise Cancelled

    result = tuned_lens_train_and_save(llama, inputs(save_as="none"), on_step=stop)
    assert result.cancelled
    assert result.saved_to == ""
    assert result.counts.seen_tokens == 0
    assert not lenses_of(llama)


def test_going_on_from_a_lens_begins_where_it_ended() -> None:
    llama = model()
    first = tuned_lens_train_and_save(llama, inputs(save_as="first", steps=6))
    measured = tuned_lens_train_and_save(llama, inputs(save_as="same", steps=0, start="first"))
    assert (measured.tuned_kl == first.tuned_kl).all()
    assert measured.fingerprint == first.fingerprint
    more = tuned_lens_train_and_save(llama, inputs(save_as="more", steps=2, start="first"))
    assert (more.stopping_kl[0] == measured.stopping_kl[0]).all()


def test_the_command_trains_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_model(tmp_path / "model")
    text, output = tmp_path / "text.txt", tmp_path / "out.json"
    text.write_text("\n\n".join(f"The {word} is in downtown Seattle." for word in WORDS), encoding="utf-8")
    command = ["tuned-lens-train", "--model", str(folder), "--texts", str(text), "--save-as", "mine"]
    options = ["--steps", "2", "--batch-tokens", "64", "--context", "16", "--output", str(output)]
    assert main([*command, *options]) == 0
    written = TunedLensTrainResult.from_json(output.read_text(encoding="utf-8"))
    assert written.saved_to == str(folder / "lenses" / "mine")
    assert open_lens(load_model(str(folder)), "mine").fingerprint == written.fingerprint
    assert main([*command, *options]) == 2
    assert "There is a lens 'mine' already" in capsys.readouterr().err
