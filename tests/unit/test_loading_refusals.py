"""What is wrong with a model is one sentence, and it is told before anything runs."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_core import load_model
from mi_core.errors import InputError, ModelError, OutOfMemory
from mi_core.model.loading import check_weights
from mi_core.model.spec import ModelSpec
from tests.loading import change_config, change_weights, refused, save_models


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of random models that tests only read."""
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def model_folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the Llama model that a test may spoil."""
    return shutil.copytree(saved / "llama", tmp_path / "m")


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
