"""One model at a time: the holder frees the old model before the new one takes memory."""

import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_core import load_model
from mi_core.engine import run
from mi_core.engine.holder import ModelHolder, free
from mi_core.errors import Cancelled, ModelError
from mi_core.model.spec import ModelSpec
from tests.loading import change_weights, save_models

TOKENS = torch.tensor([[5, 17, 300, 4, 9]])


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of random models that tests only read."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def model_folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the Llama model that a test may spoil."""
    return shutil.copytree(saved / "llama", tmp_path / "m")


def weights_alive(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_holder_frees_the_old_model_before_the_new_one_takes_memory(saved: Path) -> None:
    """Evidence: when the first byte is read, the tensors of the old model are empty, though it is held."""
    holder = ModelHolder()
    old = holder.get(ModelSpec(str(saved / "llama")))
    modules, alive = old.hf, []

    def on_phase(phase: str, share: float, _text: str) -> None:
        if phase in ("find", "read"):
            alive.append((phase, weights_alive(modules) > 0))

    new = holder.get(ModelSpec(str(saved / "gpt2")), on_phase)
    assert {flag for phase, flag in alive if phase == "find"} == {True}
    assert {flag for phase, flag in alive if phase == "read"} == {False}
    assert holder.model is new
    with pytest.raises(ModelError) as caught:
        run(old, TOKENS)
    assert str(caught.value) == (
        f"{saved / 'llama'} is no longer loaded: another model took its place. Load it again."
    )


def test_an_old_model_that_nobody_keeps_is_gone_when_the_new_one_is_read(saved: Path) -> None:
    holder = ModelHolder()
    watched = weakref.ref(holder.get(ModelSpec(str(saved / "llama"))))
    seen: list[bool] = []

    def on_phase(phase: str, _share: float, _text: str) -> None:
        if phase == "read":
            seen.append(watched() is None)

    holder.get(ModelSpec(str(saved / "gpt2")), on_phase)
    assert set(seen) == {True}


def test_the_same_spec_is_loaded_once(saved: Path) -> None:
    holder = ModelHolder()
    spec = ModelSpec(str(saved / "llama"))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(holder.get(spec))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(model) for model in found}) == 1


def test_a_typing_error_costs_nothing_and_a_damaged_model_the_old_one(
    saved: Path, model_folder: Path
) -> None:
    holder = ModelHolder()
    model = holder.get(ModelSpec(str(saved / "llama")))
    for wrong in (ModelSpec("nothing"), ModelSpec(str(saved / "gpt2"), device="cuda:99")):
        with pytest.raises(ModelError):
            holder.get(wrong)
        assert holder.model is model
        assert weights_alive(model.hf) > 0
    change_weights(model_folder, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelError, match="is incomplete"):
        holder.get(ModelSpec(str(model_folder)))
    assert holder.model is None
    assert holder.get(ModelSpec(str(saved / "llama"))).report.passed


def test_whoever_waits_for_the_holder_can_stop_waiting(saved: Path) -> None:
    holder, entered, leave = ModelHolder(), threading.Event(), threading.Event()

    def slow(phase: str, _share: float, _text: str) -> None:
        if phase == "read":
            entered.set()
            leave.wait(10)

    loading = threading.Thread(target=holder.get, args=(ModelSpec(str(saved / "llama")), slow))
    loading.start()
    entered.wait(10)
    texts: list[str] = []

    def impatient(_phase: str, _share: float, text: str) -> None:
        texts.append(text)
        raise Cancelled

    with pytest.raises(Cancelled):
        holder.get(ModelSpec(str(saved / "gpt2")), impatient)
    leave.set()
    loading.join()
    assert texts == ["waiting for another model that is being loaded"]
    assert holder.model is not None


def test_freeing_waits_for_the_pass_that_runs_and_can_be_repeated(saved: Path) -> None:
    model = load_model(str(saved / "llama"))
    hf = model.hf
    with model.lock:
        freeing = threading.Thread(target=free, args=(model,))
        freeing.start()
        freeing.join(0.1)
        assert weights_alive(hf) > 0
    freeing.join()
    assert weights_alive(hf) == 0
    free(model)
