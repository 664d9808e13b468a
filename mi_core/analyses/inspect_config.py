"""Who reads each key of a model's config.json: Lantern, transformers (which runs the model), or nobody.

A key that nobody reads is the dangerous kind: the weights may expect a computation that this program does not
do (a rope scaling under another name, a softcap that the family's class does not know). It is named, with its
value. transformers reads a key if the configuration class declares it, or if the source of the class or of
the model mentions it by name (some keys are taken out of the keywords when a configuration is built).
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from mi_core.analyses.inspect_parts import ConfigKey, Reader
from mi_core.errors import LanternError
from mi_core.model.discovery import find
from mi_core.model.model import LoadedModel

MAX_VALUE = 200  # characters of a value that are shown

NESTED = "text_config"

_SIZES = frozenset({
    "hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "num_layers", "n_layers",
    "num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "ffn_dim", "n_inner", "vocab_size", "max_position_embeddings", "n_positions",
})  # fmt: skip
_READ_HERE = _SIZES | {
    "model_type", "architectures", "tie_word_embeddings", "use_parallel_residual", "is_decoder",
    "is_encoder_decoder", "quantization_config", "hidden_act", "hidden_activation", "activation_function",
    "final_logit_softcapping", "layer_types", "sliding_window", "dtype", "torch_dtype", NESTED,
}  # fmt: skip
# Older names that transformers moves into `rope_parameters` when it builds the configuration.
_ROTARY = frozenset(
    {
        "rope_theta",
        "rope_scaling",
        "rotary_pct",
        "partial_rotary_factor",
        "rotary_emb_base",
        "rope_local_base_freq",
    }
)
_NOTES = {
    "auto_map": "names code in the repository; it is never run",
    "dtype": "the number format is chosen when the model is loaded",
    "torch_dtype": "the number format is chosen when the model is loaded",
    "transformers_version": "the version that wrote the file",
    "use_cache": "for text generation; every pass here reads the whole prompt",
}
_BOOKKEEPING = frozenset({
    "_name_or_path", "_commit_hash", "auto_map", "transformers_version", "name_or_path", "torch_dtype",
    "dtype", "attn_implementation", "_attn_implementation", "gradient_checkpointing", "task_specific_params",
    "n_ctx", "use_cache", "unsloth_version", "unsloth_fixed",
})  # fmt: skip


def config_keys(model: LoadedModel) -> tuple[ConfigKey, ...]:
    """Every key of the model's config.json with who reads it; unread ones first, then by name."""
    config = model.hf.config
    keys = list(_keys_of(model, stored_config(model), config, ""))
    order: tuple[Reader, ...] = ("nobody", "Lantern", "transformers")
    return tuple(sorted(keys, key=lambda key: (order.index(key.reader), key.default, key.key)))


def stored_config(model: LoadedModel) -> Mapping[str, Any]:
    """What the config.json says; for a model that came without a file, what its configuration holds."""
    if model.spec is not None:
        try:
            return find(model.spec.name, model.spec.revision).config()
        except LanternError:  # moved away since it was loaded
            pass
    return json.loads(json.dumps(model.hf.config.to_dict(), default=str))


def _keys_of(model: LoadedModel, stored: Mapping[str, Any], config: Any, prefix: str) -> Iterator[ConfigKey]:
    """The keys of one level; those of the text model one level down."""
    declared, defaults = _declared(config), _defaults(config)
    for key, value in stored.items():
        inner = getattr(config, NESTED, None)
        if key == NESTED and isinstance(value, Mapping) and inner is not None:
            yield from _keys_of(model, value, inner, f"{NESTED}.")
            continue
        text = json.dumps(value, ensure_ascii=False)
        shown = text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}\u2026"
        same = key in defaults and json.dumps(defaults[key], default=str) == json.dumps(value, default=str)
        yield ConfigKey(prefix + key, shown, _reader(model, key, declared, config), same, _NOTES.get(key, ""))


def _reader(model: LoadedModel, key: str, declared: frozenset[str], config: Any) -> Reader:
    if key in _READ_HERE and (key in declared or key in _BOOKKEEPING or key == "architectures"):
        return "Lantern"
    rotary = key in _ROTARY and "rope_parameters" in declared
    if key in declared or rotary or key in _BOOKKEEPING or key in _generation():
        return "transformers"
    word = re.escape(key)
    mentioned = rf"""config\.{word}\b|["']{word}["']"""
    if re.search(mentioned, _source(type(model.hf).__module__)):
        return "transformers"
    built = re.search(rf"self\.{word}\b|{mentioned}", _source(type(config).__module__))
    return "transformers" if built else "nobody"


@cache
def _source(module: str) -> str:
    """The program text of a module of transformers; empty where it is not at hand."""
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return ""


def _declared(config: Any) -> frozenset[str]:
    """The keys that the configuration class has a field or an alias for; others it only carries along."""
    own = {field.name for field in fields(config)} if is_dataclass(config) else set()
    aliases = getattr(type(config), "attribute_map", {})
    nested = getattr(type(config), "sub_configs", {})
    return frozenset(own | set(aliases) | set(nested) | {"model_type"})


def _defaults(config: Any) -> Mapping[str, Any]:
    """What the configuration class assumes for a key that is not given."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return type(config)().to_dict()
    except (TypeError, ValueError, StrictDataclassError):  # a class without defaults, or with bad ones
        return {}


def _generation() -> frozenset[str]:
    """Keys for text generation that older files keep beside the model's own."""
    from transformers import GenerationConfig

    return frozenset(GenerationConfig().to_dict())
