import gc
import json
import logging
import shutil
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging as hf_logging

from mi_core import load_model
from mi_core.engine import build_model, run
from mi_core.engine.holder import ModelHolder, free
from mi_core.errors import Cancelled, InputError, ModelError, OutOfMemory
from mi_core.model.background import watch
from mi_core.model.checkpoint import read_checkpoint
from mi_core.model.loading import check_weights, read_model
from mi_core.model.progress import PHASES, silent
from mi_core.model.reading import fingerprint, open_weights
from mi_core.model.spec import ModelSpec
from tests.disk import byte_level, save_model

TOKENS = torch.tensor([[5, 17, 300, 4, 9]])


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of random models that tests only read."""
    root = tmp_path_factory.mktemp("models")
    save_model(root / "llama")
    save_model(root / "sharded", shard="20KB", tie_word_embeddings=True)
    save_model(root / "gpt2", "gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64)
    save_model(root / "mixtral", "mixtral", num_local_experts=2, num_hidden_layers=1, intermediate_size=32)
    return root


@pytest.fixture
def model_folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the Llama model that a test may spoil."""
    return shutil.copytree(saved / "llama", tmp_path / "m")


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(spec: ModelSpec | str | Path, error: type[Any] = ModelError) -> Any:
    with pytest.raises(error) as caught:
        load_model(str(spec) if isinstance(spec, Path) else spec)
    assert "\n" not in str(caught.value)
    return caught.value


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
    assert torch.equal(run(model, TOKENS).logits, before)


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


# --- what is wrong with a model
# -----------------------------------------------------------------------------------


def test_missing_weights_are_named(model_folder: Path) -> None:
    change_weights(model_folder, lambda tensors: tensors.pop("model.layers.1.mlp.down_proj.weight"))
    error = refused(model_folder)
    assert error.kind == "corrupt"
    assert str(error) == (
        f"'{model_folder}' is incomplete: the weights lack model.layers.1.mlp.down_proj.weight. "
        "Download or copy the model again."
    )


def test_weights_of_another_shape_are_named(model_folder: Path) -> None:
    change_config(model_folder, intermediate_size=48)
    error = refused(model_folder)
    assert error.kind == "corrupt"
    sentence = "model.layers.0.mlp.down_proj.weight has shape (32, 64), the config says (32, 48)"
    assert f"do not fit its config.json: {sentence}" in str(error)


def test_layers_that_the_config_forgets_are_named(model_folder: Path) -> None:
    """A config with fewer layers would otherwise give a model that runs, and is another one."""
    change_config(model_folder, num_hidden_layers=2)
    error = refused(model_folder)
    assert error.kind == "corrupt"
    assert "it has no place for model.layers.2.input_layernorm.weight and 8 more" in str(error)


def test_weights_that_belong_to_nothing_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    info = {"missing_keys": set(), "mismatched_keys": set(), "unexpected_keys": {"value_head.weight"}}
    check_weights("m", info, {"lm_head.weight"})
    assert "m: weights that the model does not use: value_head.weight" in caplog.text


def test_a_file_that_is_damaged_inside_is_told(model_folder: Path) -> None:
    """The header is whole, so only the safetensors library can see that two tensors overlap."""
    path = model_folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    first, second = (header[f"model.layers.{layer}.input_layernorm.weight"] for layer in (0, 1))
    second["data_offsets"] = first["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    error = refused(model_folder)
    assert error.kind == "corrupt"
    assert str(error).startswith("model.safetensors is damaged: the safetensors library refuses it.")


def test_a_config_that_transformers_refuses(model_folder: Path) -> None:
    change_config(model_folder, rms_norm_eps="small")
    error = refused(model_folder)
    assert error.kind == "corrupt"
    assert "transformers refuses its config.json" in str(error)


def test_unknown_families_and_code_in_repositories(model_folder: Path) -> None:
    change_config(model_folder, model_type="novel")
    assert str(refused(model_folder)) == (
        "Models of type 'novel' are not supported: the installed transformers does not know them. "
        "Install a newer transformers."
    )
    change_config(model_folder, auto_map={"AutoModelForCausalLM": "evil.Model"})
    (model_folder / "evil.py").write_text("raise SystemExit('ran')")
    error = refused(model_folder)
    assert error.kind == "unsupported"
    assert "they need code from their repository, which Lantern never runs" in str(error)


def test_a_type_without_a_causal_model(model_folder: Path) -> None:
    change_config(model_folder, model_type="clip_text_model", architectures=None)
    error = refused(model_folder)
    assert error.kind == "not_causal_lm"
    assert "transformers has no causal language model of type 'clip_text_model'" in str(error)


def test_code_beside_a_known_family_is_never_run(model_folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (model_folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    change_config(
        model_folder,
        auto_map=names,
        attn_implementation="org/evil-kernel",
        _attn_implementation="org/evil-kernel",
        experts_implementation="org/evil",
        transformers_weights="../other.safetensors",
        fusion_config={"x": 1},
    )
    tokenizer = model_folder / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "auto_map": names}))
    (model_folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    assert load_model(str(model_folder)).report.passed
    assert not mark.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("spoil", "kind", "sentence"),
    [
        (
            "gone",
            "missing",
            "has no tokenizer: its folder has no tokenizer.json. Save the tokenizer beside the weights",
        ),
        ("cut", "corrupt", "cannot be read: "),
        ("empty object", "corrupt", "cannot be read: "),
    ],
)
def test_tokenizers_that_cannot_be_read(model_folder: Path, spoil: str, kind: str, sentence: str) -> None:
    path = model_folder / "tokenizer.json"
    if spoil == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text()[:100] if spoil == "cut" else "{}")
    error = refused(model_folder)
    assert error.kind == kind
    assert sentence in str(error)


def test_a_sentencepiece_file_alone_is_refused(model_folder: Path) -> None:
    (model_folder / "tokenizer.json").unlink()
    (model_folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (model_folder / "tokenizer.model").write_bytes(b"\x0a\x0eSentencePiece")
    error = refused(model_folder)
    assert error.kind == "unsupported"
    assert "its folder has only a SentencePiece file. Choose a model with a tokenizer.json." in str(error)


def test_a_tokenizer_without_offsets_is_refused(model_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model_folder / name).unlink()
    (model_folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CTRLTokenizer"}')
    (model_folder / "vocab.json").write_text('{"a</w>": 0, "<unk>": 1}')
    (model_folder / "merges.txt").write_text("#version: 0.2\n")
    error = refused(model_folder)
    assert error.kind == "unsupported"
    assert (
        "CTRLTokenizer does not tell which characters a token covers. Choose a model with a tokenizer.json."
        in str(error)
    )


def test_a_model_that_is_too_big_is_refused_before_it_is_read(model_folder: Path) -> None:
    phases: list[str] = []
    change_config(model_folder, vocab_size=10**13)
    with pytest.raises(ModelError) as caught:
        load_model(str(model_folder), on_phase=lambda phase, *_: phases.append(phase))
    assert caught.value.kind == "too_big"
    assert "read" not in phases


def test_a_device_that_is_not_there_is_told_first(saved: Path) -> None:
    assert refused(ModelSpec(str(saved / "llama"), device="cuda:99")).kind == "device"


def test_names_that_name_nothing(saved: Path) -> None:
    refused("", InputError)
    assert refused(saved / "nothing").kind == "missing"


def test_memory_that_runs_out_while_reading_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers hides the cause in its log; here torch itself is made to refuse."""
    really_to = torch.Tensor.to

    def refuse(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if options.get("dtype") == torch.float64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return really_to(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", refuse)
    error = refused(ModelSpec(str(saved / "llama"), dtype="float64"), OutOfMemory)
    assert "does not fit on cpu: memory ran out while it was read. Choose a smaller number format" in str(
        error
    )


# --- spreading a model over devices
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
    assert torch.equal(run(spread, TOKENS).logits, run(reference, TOKENS).logits)
    free(spread)


def test_a_device_map_without_accelerate_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.import_utils.is_accelerate_available", lambda: False)
    error = refused(ModelSpec(str(saved / "llama"), device_map="auto"))
    assert error.kind == "device"
    assert str(error) == "A device map needs accelerate: it is not installed. pip install accelerate."


# --- one model at a time
# --------------------------------------------------------------------------------------------


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


def test_reading_alone_gives_the_parts(saved: Path) -> None:
    read = read_model(ModelSpec(str(saved / "llama")), silent)
    assert read.found.name == str(saved / "llama")
    assert len(read.tokenizer) == len(byte_level())
    assert not read.hf.training
