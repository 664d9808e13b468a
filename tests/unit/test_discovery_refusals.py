"""Models that are not here, not usable or not whole: one sentence each, before anything is read."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from mi_core.errors import InputError, ModelError
from mi_core.model.discovery import discover, find
from tests.found_models import COMMITS, CONFIG, TENSORS, cached, look, machine, make, refused


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "org/none",
            "'org/none' is not on this machine. Allow its download, or choose a model that is here (atlas).",
        ),
        ("./none", "The folder './none' does not exist. Check the path."),
        ("../x", "The folder '../x' does not exist. Check the path."),
        (
            "org/../x",
            "'org/../x' is no bundled model, no folder and no Hugging Face id. Choose a model that is here",
        ),
        ("models--org--x", "is no bundled model, no folder and no Hugging Face id"),
        ("a b", "'a b' is no bundled model, no folder and no Hugging Face id"),
        ("a/b/c", "'a/b/c' is no bundled model"),
        ("x" * 97, "is no bundled model"),
        ("-x", "is no bundled model"),
        ("%2e%2e/x", "is no bundled model"),
    ],
)
def test_what_is_not_here(place: Path, name: str, sentence: str) -> None:
    error = refused(place, name)
    assert error.kind == "missing"
    assert sentence in str(error)


def test_a_hostile_id_never_leaves_the_cache(place: Path) -> None:
    make(place / "secret")
    for name in ("x/../../secret", "models--..--secret", "atlas/../../secret"):
        assert refused(place, name).kind == "missing"
    with pytest.raises(InputError, match="is not a branch, tag or commit"):
        look(place, "org/m", "../../../secret")


def test_without_a_bundled_model_the_advice_is_a_folder(place: Path) -> None:
    with pytest.raises(ModelError, match=r"Allow its download, or give the folder of a model\.$"):
        find("org/none", cache=place / "cache", assets=place / "nowhere")


def test_revisions_that_are_not_here(place: Path) -> None:
    with pytest.raises(InputError) as caught:
        look(place, "atlas", "main")
    assert str(caught.value) == "'atlas' is a folder and has no revisions: revision 'main' was asked for."
    with pytest.raises(InputError, match="has no revisions"):
        look(place, str(make(place / "one")), "v1")
    cached(place / "cache", "org/m", COMMITS[0], refs=("main", "v1"))
    assert str(refused(place, "org/m", "v3")) == (
        "'org/m@v3' is not on this machine: the cache has main, v1. Allow its download, or choose another."
    )
    cached(place / "cache", "org/bare", COMMITS[0])
    assert "the cache has other commits" in str(refused(place, "org/bare", "v3"))
    (place / "cache" / "models--org--begun" / "refs").mkdir(parents=True)
    assert "the cache has only the beginning of it" in str(refused(place, "org/begun"))


def test_two_commits_with_one_beginning_are_not_guessed_between(place: Path) -> None:
    for last in "12":
        cached(place / "cache", "org/m", "a" * 39 + last)
    assert refused(place, "org/m", "aaaaaaaa").kind == "missing"


@pytest.mark.parametrize(
    ("config", "kind", "sentence"),
    [
        (
            {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            "not_causal_lm",
            "'m' is not a causal language model: BertForMaskedLM does not predict the next token from those "
            "before it. Choose a decoder such as GPT-2, Llama, Qwen or Gemma.",
        ),
        (
            {"model_type": "bert", "architectures": ["BertLMHeadModel"]},
            "not_causal_lm",
            "BertLMHeadModel does not",
        ),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "not_causal_lm", "T5For"),
        (
            {"model_type": "bart", "architectures": ["BartForCausalLM"], "is_encoder_decoder": True},
            "not_causal_lm",
            "",
        ),
        (
            {**CONFIG, "architectures": ["LlamaForSequenceClassification"]},
            "not_causal_lm",
            "LlamaForSequence",
        ),
        ({**CONFIG, "architectures": ["LlamaModel"]}, "not_causal_lm", "LlamaModel"),
        ({"model_type": "roberta"}, "not_causal_lm", "roberta does not predict"),
        (
            {**CONFIG, "quantization_config": {"quant_method": "gptq"}},
            "unsupported",
            "The weights of 'm' are quantised: its numbers could not be compared with those of the published "
            "model. Choose the unquantised model.",
        ),
        ({"model_type": "mamba"}, "unsupported", "'m' has no attention: mamba is a recurrent model."),
        ({}, "unsupported", "'m' does not say what it is: its config.json has no model_type."),
        ({"model_type": ["x"]}, "unsupported", "'m' does not say what it is"),
        (
            {"model_type": "llama"},
            "unsupported",
            "The model's size is unknown: its config.json has no hidden_size.",
        ),
        (
            "{",
            "corrupt",
            "'m' cannot be read: config.json is damaged (it is not JSON). Download or copy the model again.",
        ),
        ("[1]", "corrupt", "config.json is damaged (it is not a JSON object)"),
        ("[" * 100_000, "corrupt", "config.json is damaged (it is not JSON)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_configs_that_rule_a_model_out(place: Path, config: Any, kind: str, sentence: str) -> None:
    make(place / "assets" / "m", config)
    error = refused(place, "m")
    assert error.kind == kind
    assert sentence in str(error)
    (listed,) = [
        model for model in discover(cache=place / "cache", assets=place / "assets") if model.name == "m"
    ]
    assert (listed.usable, listed.reason, listed.kind) == (False, str(error), kind)


def test_a_decoder_of_an_encoder_family_is_let_through(place: Path) -> None:
    config = {**CONFIG, "model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}
    make(place / "assets" / "m", config)
    assert look(place, "m").usable


def damage(folder: Path, how: str) -> None:
    """Spoil the weights of a model in one way."""
    weights, whole = folder / "model.safetensors", (folder / "model.safetensors").read_bytes()
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}

    def write(changes: dict[str, Any], data: bytes = bytes(8)) -> None:
        text = json.dumps({"a": {**header["a"], **changes}}).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + data)

    actions = {
        "none": weights.unlink,
        "short": lambda: weights.write_bytes(whole[:-1]),
        "long": lambda: weights.write_bytes(whole + b"x"),
        "empty": lambda: weights.write_bytes(b""),
        "no header": lambda: weights.write_bytes(struct.pack("<Q", 1 << 40) + b"{}"),
        "cut header": lambda: weights.write_bytes(whole[:20]),
        "pickle": lambda: weights.write_bytes(b"\x80\x04\x95" + bytes(100)),
        "no json": lambda: weights.write_bytes(struct.pack("<Q", 2) + b"{]"),
        "list": lambda: weights.write_bytes(struct.pack("<Q", 2) + b"[]"),
        "odd dtype": lambda: write({"dtype": "F3"}),
        "odd shape": lambda: write({"shape": [3]}),
        "negative shape": lambda: write({"shape": [-2, -1]}),
        "html": lambda: weights.write_text("<html>not found</html>" * 9),
    }
    actions[how]()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("short", "model.safetensors is damaged (it has 175 bytes of 176)"),
        ("long", "model.safetensors is damaged (it has 177 bytes of 176)"),
        ("empty", "model.safetensors is damaged (it is cut off, or not a safetensors file)"),
        ("no header", "it is cut off, or not a safetensors file"),
        ("cut header", "it is cut off, or not a safetensors file"),
        ("pickle", "it is cut off, or not a safetensors file"),
        ("html", "it is cut off, or not a safetensors file"),
        ("no json", "its header is not that of a safetensors file"),
        ("list", "its header is not that of a safetensors file"),
        ("odd dtype", "its header is not that of a safetensors file"),
        ("odd shape", "its header is not that of a safetensors file"),
        ("negative shape", "its header is not that of a safetensors file"),
    ],
)
def test_damaged_weights_are_seen_before_they_are_read(place: Path, how: str, why: str) -> None:
    damage(make(place / "assets" / "m"), how)
    error = refused(place, "m")
    assert error.kind == "corrupt"
    assert str(error).startswith("'m' cannot be read: model.safetensors is damaged")
    assert why in str(error)
    assert str(error).endswith("Download or copy the model again.")


def shards(folder: Path, weight_map: Any = None, *, files: int = 2) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, (key, value) in list(zip(names, TENSORS.items(), strict=True))[:files]:
        save_file({key: value}, folder / name)
    mapping = dict(zip(TENSORS, names, strict=True)) if weight_map is None else weight_map
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


def test_shards_count_together(place: Path) -> None:
    shards(make(place / "assets" / "m", weights=False))
    assert look(place, "m").parameters == 10


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"files": 1}, "model-00002-of-00002.safetensors is listed in the index and not there"),
        (
            {"weight_map": {"c": "model-00001-of-00002.safetensors"}},
            "model-00001-of-00002.safetensors does not hold c",
        ),
        ({"weight_map": {"c": "../secret.safetensors"}}, "it names a file outside the model's folder"),
        ({"weight_map": {"c": "/etc/passwd"}}, "it names a file outside the model's folder"),
        ({"weight_map": {}}, "it lists no weights"),
        ({"weight_map": [1]}, "it lists no weights"),
        ({"weight_map": {"c": 5}}, "it lists no weights"),
    ],
)
def test_an_index_that_does_not_fit_its_shards(place: Path, options: dict[str, Any], why: str) -> None:
    shards(make(place / "assets" / "m", weights=False), **options)
    error = refused(place, "m")
    assert error.kind == "corrupt"
    assert why in str(error)


@pytest.mark.parametrize(
    ("files", "kind", "sentence"),
    [
        (
            [],
            "missing",
            "'m' has no weights: model.safetensors is not there. Download or copy the model again.",
        ),
        (["other.safetensors"], "missing", "model.safetensors is not there, only other.safetensors"),
        (
            ["pytorch_model.bin"],
            "pickle_only",
            "'m' has no safetensors weights: only pytorch_model.bin, and such files can run code when they "
            "are read. Take a revision with safetensors, or convert it with transformers' save_pretrained.",
        ),
        (["consolidated.00.pth"], "pickle_only", "only consolidated.00.pth"),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "unsupported",
            "'m' is an adapter, not a model. Merge it into its base model first.",
        ),
    ],
)
def test_folders_without_safetensors(place: Path, files: list[str], kind: str, sentence: str) -> None:
    folder = make(place / "assets" / "m", weights=False)
    for name in files:
        (folder / name).write_bytes(b"x")
    error = refused(place, "m")
    assert error.kind == kind
    assert sentence in str(error)


def test_a_folder_without_config_says_what_to_give(place: Path) -> None:
    (place / "photos").mkdir()
    assert str(refused(place, str(place / "photos"))).endswith(
        "is not a model: its folder has no config.json. Give the folder that save_pretrained wrote, or "
        "download it again."
    )


def test_a_broken_link_in_the_cache_is_an_incomplete_download(place: Path) -> None:
    folder = cached(place / "cache", "org/m", COMMITS[0], refs=("main",))
    (place / "cache" / "models--org--m" / "blobs" / COMMITS[0] / "model.safetensors").unlink()
    assert (folder / "model.safetensors").is_symlink()
    assert refused(place, "org/m").kind == "missing"


def test_an_unreadable_file_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(place / "assets" / "m")

    really_open = Path.open
    for name in ("model.safetensors", "config.json"):

        def refuse(self: Path, *args: Any, locked: str = name, **options: Any) -> Any:
            if self.name == locked:
                raise PermissionError(13, "Permission denied")
            return really_open(self, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "open", refuse)
            assert f"{name} cannot be read (Permission denied)" in str(refused(place, "m"))
    (folder / "config.json").write_text(" " * 50_000_001)
    assert "config.json cannot be used (it is larger than 50 MB)" in str(refused(place, "m"))
