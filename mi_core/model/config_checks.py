"""What a config.json already rules out: models that predict no next token, or cannot be compared or run."""

from collections.abc import Mapping
from typing import Any

from mi_core.errors import ModelError

# Their "language model" classes look both ways unless the config says is_decoder.
_ENCODERS = frozenset({
    "bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "electra", "camembert", "big_bird", "rembert",
    "roformer", "megatron-bert", "data2vec-text", "ernie", "roberta-prelayernorm", "xmod", "roc_bert",
})  # fmt: skip
_NO_ATTENTION = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"})
_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
# Decoders of text that come with an eye; the part that reads text is a causal language model.
_CAUSAL_WITH_VISION = frozenset({"gemma3"})


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Refuse what its config.json already rules out.

    Raises:
        ModelError: kind "not_causal_lm" or "unsupported".
    """
    kind, architectures = text_of(config, "model_type"), architectures_of(config)
    if not kind:
        raise ModelError(
            f"{name!r} does not say what it is", kind="unsupported", why="its config.json has no model_type"
        )
    causal = [name for name in architectures if name.endswith(_CAUSAL_ENDINGS)] or kind in _CAUSAL_WITH_VISION
    looks_both_ways = kind in _ENCODERS and not config.get("is_decoder")
    if config.get("is_encoder_decoder") or (architectures and not causal) or looks_both_ways:
        raise ModelError(
            f"{name!r} is not a causal language model",
            kind="not_causal_lm",
            why=f"{[*architectures, kind][0]} does not predict the next token from those before it",
            fix="Choose a decoder such as GPT-2, Llama, Qwen or Gemma",
        )
    if config.get("quantization_config"):
        raise ModelError(
            f"The weights of {name!r} are quantised", kind="unsupported",
            why="its numbers could not be compared with those of the published model",
            fix="Choose the unquantised model",
        )  # fmt: skip
    if kind in _NO_ATTENTION:
        raise ModelError(f"{name!r} has no attention", kind="unsupported", why=f"{kind} is a recurrent model")


def architectures_of(config: Mapping[str, Any]) -> list[str]:
    """The classes that the weights were saved from; empty when not stated."""
    value = config.get("architectures")
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def text_of(config: Mapping[str, Any], key: str) -> str:
    """A text field; "" when it is not there or no text."""
    value = config.get(key)
    return value if isinstance(value, str) else ""
