import pytest
import torch

from mi_core.errors import InputError, ModelError
from mi_core.model.progress import format_bytes, format_count
from mi_core.model.spec import DTYPES, ModelSpec, choose_device, torch_dtype


@pytest.mark.parametrize(
    ("name", "revision", "text"),
    [
        ("atlas", None, "atlas"),
        ("openai-community/gpt2", "main", "openai-community/gpt2@main"),
        ("EleutherAI/pythia-70m", "step1000", "EleutherAI/pythia-70m@step1000"),
        ("org/model", "refs/pr/1", "org/model@refs/pr/1"),
        ("/models/a@b", None, "/models/a@b@"),
        ("/my models/日本", None, "/my models/日本"),
    ],
)
def test_a_link_text_brings_the_same_spec_back(name: str, revision: str | None, text: str) -> None:
    spec = ModelSpec(name, revision)
    assert spec.text == text
    assert ModelSpec.from_text(text) == spec


def test_a_spec_is_a_cache_key_that_tells_every_field_apart() -> None:
    specs = {
        ModelSpec("a"),
        ModelSpec("b"),
        ModelSpec("a", "main"),
        ModelSpec("a", dtype="float64"),
        ModelSpec("a", device="cpu"),
        ModelSpec("a", attention="eager"),
        ModelSpec("a", device_map="auto"),
        ModelSpec("a"),
    }
    assert len(specs) == 7


def test_describe_says_what_differs_from_the_usual() -> None:
    assert ModelSpec("atlas").describe() == "atlas · float32 · auto"
    eager = ModelSpec("o/m", "v2", dtype="bfloat16", device="cuda:1", attention="eager")
    assert eager.describe() == "o/m@v2 · bfloat16 · cuda:1 · eager attention"
    assert ModelSpec("m", device_map="auto").describe() == "m · float32 · spread over devices"
    assert ModelSpec("m").with_dtype("float64") == ModelSpec("m", dtype="float64")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": ""}, "The model name is empty. Give a bundled name, a folder or a Hugging Face id."),
        ({"name": "  "}, "The model name is empty"),
        ({"name": "x" * 1025}, "The model name has 1,025 characters. Give at most 1,024."),
        ({"name": "a\nb"}, "The model name has control or invisible characters. Type it again."),
        ({"name": "a\u202eb"}, "control or invisible"),
        ({"name": "a\x00"}, "control or invisible"),
        ({"revision": ""}, "The revision is empty"),
        ({"revision": "../../x"}, "The revision '../../x' is not a branch, tag or commit."),
        ({"revision": "a/../b"}, "is not a branch, tag or commit"),
        ({"revision": "-x"}, "is not a branch, tag or commit"),
        ({"revision": "x" * 201}, "The revision has 201 characters. Give at most 200."),
        (
            {"dtype": "int8"},
            "The number format 'int8' does not exist. Choose one of float32, bfloat16, float16, float64.",
        ),
        ({"attention": "flash"}, "The attention 'flash' does not exist. Choose one of fast, eager."),
        ({"device": "tpu"}, "The device 'tpu' does not exist. Choose auto, cpu, cuda, cuda:0 or mps."),
        ({"device": "cuda:x"}, "The device 'cuda:x' does not exist"),
        ({"device_map": "balanced"}, "The device map 'balanced' does not exist. Choose one of None, auto."),
        (
            {"device_map": "auto", "device": "cpu"},
            "A device map chooses the devices itself. Set device to auto",
        ),
    ],
)
def test_what_names_no_model_is_refused(fields: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        ModelSpec(**{"name": "m", **fields})  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_number_formats_are_torch_types() -> None:
    assert [torch_dtype(dtype) for dtype in DTYPES] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.float64,
    ]


def machine(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, mps: bool = False, bf16: bool = True) -> None:
    """Let torch report another machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda _major, _minor: False)


@pytest.mark.parametrize(
    ("has", "fields", "device"),
    [
        ({}, {}, "cpu"),
        ({"gpus": 2, "mps": True}, {}, "cuda:0"),
        ({"gpus": 2}, {"device": "cuda"}, "cuda:0"),
        ({"gpus": 2}, {"device": "cuda:1"}, "cuda:1"),
        ({"gpus": 2}, {"device": "cpu"}, "cpu"),
        ({"mps": True}, {}, "mps"),
        ({"mps": True}, {"dtype": "float64"}, "cpu"),
        ({"mps": True}, {"dtype": "float16", "device": "mps"}, "mps"),
        ({"gpus": 1, "bf16": True}, {"dtype": "bfloat16"}, "cuda:0"),
    ],
)
def test_the_device_is_the_best_that_is_there(
    has: dict[str, bool], fields: dict[str, str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **has)
    assert choose_device(ModelSpec("m", **fields)) == device  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("has", "fields", "sentence"),
    [
        (
            {},
            {"device": "cuda"},
            "cuda:0 is not on this machine: torch finds no CUDA device. Choose auto or cpu.",
        ),
        (
            {"gpus": 1},
            {"device": "cuda:1"},
            "cuda:1 is not on this machine: it has 1 CUDA device. Choose auto or cpu.",
        ),
        ({"gpus": 2}, {"device": "cuda:7"}, "it has 2 CUDA devices"),
        (
            {"gpus": 1, "bf16": False},
            {"dtype": "bfloat16"},
            "cuda:0 has no bfloat16: the GPU is too old. Choose float16 or float32.",
        ),
        (
            {},
            {"device": "mps"},
            "mps is not on this machine: it needs a Mac with Apple silicon. Choose auto or cpu.",
        ),
        (
            {"mps": True},
            {"device": "mps", "dtype": "float64"},
            "mps has no float64. Choose float32, or cpu for float64.",
        ),
        (
            {"mps": True},
            {"device": "mps", "dtype": "bfloat16"},
            "mps has no bfloat16 before macOS 14. Choose float16 or float32.",
        ),
    ],
)
def test_a_device_that_cannot_serve_is_refused(
    has: dict[str, bool], fields: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **has)
    with pytest.raises(ModelError) as caught:
        choose_device(ModelSpec("m", **fields))  # type: ignore[arg-type]
    assert caught.value.kind == "device"
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (12, "12 B"),
        (3_400, "3 kB"),
        (999_600, "1 MB"),
        (820e6, "820 MB"),
        (999.6e6, "1.0 GB"),
        (9.13e9, "9.1 GB"),
    ],
)
def test_bytes_for_a_person(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12"), (5_700, "5.7 k"), (124e6, "124 M"), (2_542_464, "2.5 M"), (6.9e9, "6.9 B")],
)
def test_parameters_for_a_person(count: float, text: str) -> None:
    assert format_count(count) == text
