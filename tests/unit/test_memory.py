import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.errors import ModelError
from mi_core.model import memory
from mi_core.model.memory import activation_numbers, check_fits, free_bytes, memory_need, sizes_of
from mi_core.model.spec import ModelSpec

LLAMA_1B = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "opt": {"hidden_size": 768, "ffn_dim": 3072, "word_embed_proj_dim": 768},
    "gpt_neox": {
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "vocab_size": 50304,
    },
    "llama": {key: value for key, value in LLAMA_1B.items() if key != "model_type"},
    "mistral": {"num_hidden_layers": 4},
    "qwen2": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "gemma2": {"num_hidden_layers": 6},
    "phi": {"num_hidden_layers": 6},
    "phi3": {"num_hidden_layers": 4},
    "starcoder2": {"num_hidden_layers": 6},
    "olmo2": {"num_hidden_layers": 6},
    "mixtral": {"num_hidden_layers": 2, "num_local_experts": 4},
}


@pytest.mark.parametrize("family", SHAPES)
def test_parameters_from_the_config_are_those_of_the_model(family: str) -> None:
    """Oracle: transformers' own count of the same config, built without memory."""
    config = AutoConfig.for_model(family, **SHAPES[family])
    with torch.device("meta"):
        exact = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assert sizes_of(config.to_dict()).parameters == pytest.approx(exact, rel=0.01)


def test_a_published_count() -> None:
    assert sizes_of(LLAMA_1B).parameters == pytest.approx(1_235_814_400, rel=1e-4)


def test_need_by_hand() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 100,
    }
    sizes = sizes_of(config)
    # per token: 6*8 residual, 3*16 MLP, 3*(2+2*1)*4 heads, 2*2*1*4 keys and values, 100 logits; 2*2*10 scores
    assert activation_numbers(sizes, 10, 3) == 3 * 10 * (48 + 48 + 48 + 16 + 100 + 40)
    need = memory_need(1000, config, "bfloat16", positions=10, rows=3)
    assert need.weights == 2100
    assert need.activations == 2 * 9000
    assert need.total == 20100
    assert memory_need(1000, config, "float64").weights == 8400


def test_a_multimodal_config_counts_its_text_part() -> None:
    nested = {"model_type": "gemma3", "text_config": {**LLAMA_1B, "model_type": "gemma3_text"}}
    assert sizes_of(nested).parameters == sizes_of({**LLAMA_1B, "model_type": "gemma3_text"}).parameters


def test_a_config_without_sizes_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        sizes_of({"model_type": "odd"})
    assert str(caught.value) == "The model's size is unknown: its config.json has no hidden_size."
    assert caught.value.kind == "unsupported"


ELSEWHERE = 64_000_000_000  # free on every device that is not the one asked for


def fits(
    dtype: Any = "float32", *, free: int = 5_800_000_000, parameters: int = 2_000_000_000, **more: Any
) -> int:
    spec = ModelSpec("big", dtype=dtype, device_map=more.pop("device_map", None))
    device = more.pop("device", "cpu")
    free_on = {device: free}
    return check_fits(
        "big", parameters, LLAMA_1B, spec, device, free_on=lambda name: free_on.get(name, ELSEWHERE), **more
    ).total


def test_what_fits_is_let_through_with_its_need() -> None:
    assert fits(parameters=1_000_000_000) == memory_need(1_000_000_000, LLAMA_1B).total
    assert fits(reclaimable=5_000_000_000) > 5_800_000_000


@pytest.mark.parametrize(
    ("arguments", "why", "fix"),
    [
        ({}, "in float32 it needs ~8.5 GB, 5.8 GB free", "Load it in bfloat16 (~4.3 GB)"),
        (
            {"dtype": "float64", "free": 9_000_000_000},
            "in float64 it needs ~17.0 GB, 9.0 GB free",
            "Load it in float32",
        ),
        (
            {"dtype": "bfloat16", "free": 1_000},
            "in bfloat16 it needs ~4.3 GB, 1 kB free",
            'with device_map="auto" (slow)',
        ),
        (
            {"dtype": "bfloat16", "free": 1_000, "device": "cuda:0"},
            "1 kB free",
            "Load it on cpu, in bfloat16 if need be",
        ),
        ({"parameters": 10**15}, "it needs ~4200000.1 GB", "Choose a smaller model."),
        (
            {"parameters": 10**15, "device_map": "auto"},
            "does not fit on all devices",
            "Choose a smaller model.",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_it_is_read(arguments: dict[str, Any], why: str, fix: str) -> None:
    with pytest.raises(ModelError) as caught:
        fits(**arguments)
    assert caught.value.kind == "too_big"
    place = (
        "on all devices and the disk" if "device_map" in arguments else f"on {arguments.get('device', 'cpu')}"
    )
    assert str(caught.value).startswith(f"'big' does not fit {place}: ")
    assert why in str(caught.value)
    assert fix in str(caught.value)


def test_free_memory_of_this_machine_is_asked_when_it_is_not_given() -> None:
    with pytest.raises(ModelError, match="does not fit on cpu"):
        check_fits("big", 10**15, LLAMA_1B, ModelSpec("big"), "cpu")
    assert 0 < free_bytes("cpu") < 1 << 62


def group(root: Path, version: int, limit: str) -> None:
    files = {
        2: {"memory.max": limit, "memory.current": "700", "memory.stat": "anon 1\ninactive_file 300\n"},
        1: {
            "memory/memory.limit_in_bytes": limit,
            "memory/memory.usage_in_bytes": "700",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
        },
    }[version]
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("version", "limit", "free"), [(2, "1000", 600), (1, "1000", 600), (2, "max", 1 << 62), (2, "100", 0)]
)
def test_the_limit_of_a_container_counts(tmp_path: Path, version: int, limit: str, free: int) -> None:
    group(tmp_path, version, limit)
    assert memory._available_in_container(tmp_path) == free


def test_without_a_container_or_psutil_the_system_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory._available_in_container(tmp_path) == 1 << 62
    monkeypatch.setitem(sys.modules, "psutil", None)
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 5 kB\n")
    assert memory._available_in_system(tmp_path / "meminfo") == 5 * 1024
    assert memory._available_in_system(tmp_path / "none") == 1 << 62
