"""A model is loaded as transformers loads it: numbers, formats, phases, no network, several devices."""

import gc
import logging
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging as hf_logging

from mi_core import load_model
from mi_core.engine import build_model, run
from mi_core.engine.holder import free
from mi_core.errors import Cancelled, ModelError
from mi_core.model.background import watch
from mi_core.model.checkpoint import read_checkpoint
from mi_core.model.loading import read_model
from mi_core.model.progress import PHASES, silent
from mi_core.model.reading import fingerprint, open_weights
from mi_core.model.spec import ModelSpec
from tests.disk import byte_level
from tests.loading import change_weights, refused, save_models
from tests.two_passes import agree

TOKENS = torch.tensor([[5, 17, 300, 4, 9]])


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of random models that tests only read."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def model_folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the Llama model that a test may spoil."""
    return shutil.copytree(saved / "llama", tmp_path / "m")


@pytest.mark.parametrize("name", ["llama", "sharded", "gpt2", "mixtral"])
def test_numbers_are_those_of_transformers(saved: Path, name: str) -> None:
    """Identity: our reading of the file gives bit for bit the weights that from_pretrained gives."""
    model = load_model(str(saved / name))
    reference = AutoModelForCausalLM.from_pretrained(saved / name, dtype=torch.float32).eval()
    ours, theirs = model.hf.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with torch.inference_mode():
        expected = reference(TOKENS).logits
    torch.testing.assert_close(run(model, TOKENS).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_loaded_model_is_ready_and_frozen(saved: Path) -> None:
    model = load_model(ModelSpec(str(saved / "llama")))
    assert model.spec == ModelSpec(str(saved / "llama"))
    assert model.report.passed
    assert not any(module.training for module in model.hf.modules())
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert model.tokenizer.is_fast
    assert model.load_seconds > 0
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


def test_weights_do_not_follow_the_file(model_folder: Path) -> None:
    """A mapped file would change the model that somebody is looking at when it is trained again."""
    model = load_model(str(model_folder))
    before = run(model, TOKENS).logits
    path = model_folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x7f" * 4000)
    assert agree(run(model, TOKENS).logits, before)


def test_tied_weights_stay_one_tensor(saved: Path) -> None:
    model = load_model(str(saved / "sharded"))
    assert model.hf.lm_head.weight is model.hf.model.embed_tokens.weight
    assert len(list((saved / "sharded").glob("*.safetensors"))) > 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_number_format_is_the_one_asked_for(saved: Path, dtype: Any) -> None:
    model = load_model(ModelSpec(str(saved / "llama"), dtype=dtype))
    assert {parameter.dtype for parameter in model.hf.parameters()} == {getattr(torch, dtype)}
    assert torch.get_default_dtype() == torch.float32


def test_phases_come_in_order_with_real_bytes(saved: Path) -> None:
    told: list[tuple[str, float, str]] = []
    load_model(str(saved / "llama"), on_phase=lambda *step: told.append(step))
    phases = [phase for phase, _, _ in told]
    assert list(dict.fromkeys(phases)) == list(PHASES)
    for phase in PHASES:
        shares = [share for name, share, _ in told if name == phase]
        assert all(0 <= share <= 1 for share in shares)
        assert shares[-1] == 1
    reading = [(share, text) for phase, share, text in told if phase == "read"]
    assert [share for share, _ in reading] == sorted(share for share, _ in reading)
    assert "/s" in reading[-1][1]


def test_bytes_are_counted_once_each(saved: Path) -> None:
    checkpoint = read_checkpoint(saved / "sharded", "m")
    counts: list[int] = []
    fingerprint(checkpoint, counts.append)
    assert sum(counts) == sum(file.path.stat().st_size for file in checkpoint.files)


def modules_alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.nn.Module) for thing in gc.get_objects())


def test_stopping_in_any_phase_leaves_nothing(saved: Path) -> None:
    before, threads, kept = modules_alive(), threading.active_count(), []
    for phase in PHASES:

        def stop(name: str, _share: float, _text: str, where: str = phase) -> None:
            if name == where:
                raise Cancelled

        with pytest.raises(Cancelled) as caught:
            load_model(str(saved / "llama"), on_phase=stop)
        kept.append(
            caught.value
        )  # a log may keep an error and its traceback; the weights must go all the same
    assert modules_alive() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "lantern-reader"]
    assert threading.active_count() <= threads + 4  # transformers' own readers end by themselves
    assert load_model(str(saved / "llama")).report.passed


def test_a_slow_read_is_stopped_between_tensors() -> None:
    """The watcher stops work that is waiting, and raises only after the work has ended."""
    steps: list[str] = []
    gate = threading.Event()

    def work(on_bytes: Callable[[int], None]) -> None:
        for _ in range(1000):
            on_bytes(1)
            gate.wait(0.01)
        steps.append("finished")

    def tell(done: int) -> None:
        if done > 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        watch(work, tell)
    assert steps == []


def test_an_error_in_the_helper_thread_reaches_the_caller() -> None:
    def work(_on_bytes: Callable[[int], None]) -> None:
        raise ModelError("broken", kind="corrupt")

    with pytest.raises(ModelError, match="broken"):
        watch(work, lambda _done: None)


def test_nothing_is_printed_and_transformers_keeps_its_settings(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def settings() -> tuple[Any, ...]:
        root = logging.getLogger("transformers")
        return (
            hf_logging.get_verbosity(),
            hf_logging.is_progress_bar_enabled(),
            list(root.handlers),
            [list(handler.filters) for handler in root.handlers],
        )

    before = settings()
    load_model(str(saved / "gpt2"))
    refused(saved / "nowhere")
    assert settings() == before
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_loading_never_connects_anywhere(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def record(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", record)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where) or [])
    load_model(str(saved / "llama"))
    refused("org/not-here")
    assert asked == []


def test_a_download_is_only_tried_when_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        load_model("org/not-here", allow_download=True)
    assert caught.value.kind == "offline"
    with pytest.raises(ModelError) as caught:
        load_model("./not-here", allow_download=True)
    assert caught.value.kind == "missing"


def test_fingerprints_follow_the_bytes(saved: Path, model_folder: Path) -> None:
    def of(folder: Path) -> str:
        return fingerprint(read_checkpoint(folder, "m"), lambda _count: None)

    assert of(model_folder) == of(saved / "llama") == load_model(str(model_folder)).fingerprint
    assert len(of(model_folder)) == 16
    change_weights(model_folder, lambda tensors: tensors["model.norm.weight"].mul_(2))
    assert of(model_folder) != of(saved / "llama")


def test_a_cached_model_has_its_commit_as_fingerprint(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(saved / "llama", tmp_path / "models--org--m" / "snapshots" / ("a" * 40))
    model = load_model("org/m@" + "a" * 12)
    assert model.fingerprint == "a" * 40
    assert model.spec == ModelSpec("org/m", "a" * 12)


# ---------------------------------------------------------------------------------


def test_a_device_map_gives_the_same_numbers(saved: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    spread = load_model(ModelSpec(str(saved / "llama"), device_map="auto"))
    plain = load_model(str(saved / "llama"))
    torch.testing.assert_close(
        run(spread, TOKENS).logits.cpu(), run(plain, TOKENS).logits.cpu(), atol=1e-5, rtol=1e-5
    )
    free(spread)


def test_lazy_tensors_go_to_the_disk_and_come_back(saved: Path, tmp_path: Path) -> None:
    """What a device map does with a model that is larger than memory, here with very little memory."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    reference = load_model(str(saved / "llama"))
    with open_weights(read_checkpoint(saved / "llama", "m"), lambda _count: None) as tensors:
        hf: Any = LlamaForCausalLM.from_pretrained(
            None,
            config=reference.hf.config,
            state_dict=tensors,
            dtype=torch.float32,
            device_map="auto",
            max_memory={"cpu": 100_000},
            offload_folder=str(tmp_path),
        )
    assert "disk" in hf.hf_device_map.values()
    spread = build_model(hf)
    assert agree(run(spread, TOKENS).logits, run(reference, TOKENS).logits)
    free(spread)


def test_a_device_map_without_accelerate_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.import_utils.is_accelerate_available", lambda: False)
    error = refused(ModelSpec(str(saved / "llama"), device_map="auto"))
    assert error.kind == "device"
    assert str(error) == "A device map needs accelerate: it is not installed. pip install accelerate."


# --------------------------------------------------------------------------------------------


def test_reading_alone_gives_the_parts(saved: Path) -> None:
    read = read_model(ModelSpec(str(saved / "llama")), silent)
    assert read.found.name == str(saved / "llama")
    assert len(read.tokenizer) == len(byte_level())
    assert not read.hf.training
