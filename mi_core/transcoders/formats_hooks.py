"""Names of places in other tools -> our sites.

    hook_resid_mid, hook_mlp_in        resid_mid (hook_mlp_in is the stream in front of the norm)
    ln2.hook_normalized                resid_mid divided by its norm's scale, without the gain
    mlp.hook_in                        mlp_in: behind the norm, gain included
    hook_mlp_out                       mlp_out: what is added to the stream, after a post-norm
    mlp.hook_out                       the MLP's own output, in front of a post-norm if there is one
    hook_resid_pre, hook_resid_post, hook_attn_out        as they are called

Hugging Face module paths (Gemma Scope 2) mean the same places. The wrong one of two neighbours does not fail,
it gives wrong numbers (a fraction of variance unexplained of 9.8 instead of 0.26 for Gemma 2 with
mlp.hook_out), so a name that is not in the table is refused.
"""

import re
from dataclasses import dataclass

from mi_core.errors import TranscoderError
from mi_core.transcoders.transcoder import Hook

_BLOCK = re.compile(r"^blocks\.(\d+|\{\w*\})\.")
_LAYERS = re.compile(r"^(?:model\.)?(?:language_model\.)?layers\.(\d+|\{\w*\})\.")

_HOOKS = {
    "hook_resid_mid": Hook("resid_mid"),
    "hook_mlp_in": Hook("resid_mid"),
    "ln2.hook_normalized": Hook("resid_mid", normalised=True),
    "mlp.hook_in": Hook("mlp_in"),
    "mlp.hook_out": Hook("mlp_out"),
    "hook_mlp_out": Hook("mlp_out"),
    "hook_resid_pre": Hook("resid_pre"),
    "hook_resid_post": Hook("resid_post"),
    "hook_attn_out": Hook("attn_out"),
    # Hugging Face modules; the Gemmas' names, in which the norm in front of the MLP is pre_feedforward.
    "pre_feedforward_layernorm.input": Hook("resid_mid"),
    "pre_feedforward_layernorm.output": Hook("mlp_in"),
    "post_feedforward_layernorm.output": Hook("mlp_out"),
    "post_attention_layernorm.output": Hook("attn_out"),
    "mlp.input": Hook("mlp_in"),
    "mlp.output": Hook("mlp_out"),
    "output": Hook("resid_post"),
    "input": Hook("resid_pre"),
}
_RAW = ("mlp.hook_out", "mlp.output")


@dataclass(frozen=True, slots=True)
class NamedHook:
    """A hook and what the file called it.

    Attributes:
        hook: our site.
        name: as the file has it.
        layer: the layer in the name, where it has one.
    """

    hook: Hook
    name: str
    layer: int | None = None

    @property
    def before_post_norm(self) -> bool:
        """Whether it means the MLP's own output: the site `mlp_out` only where no post-norm follows."""
        return _short(self.name)[0] in _RAW


def parse_hook(name: object, file: str) -> NamedHook:
    """A hook by its name in another tool.

    Args:
        name: "hook_resid_mid", "blocks.8.hook_resid_pre", "model.layers.3.output", ...
        file: where it stands, for the error.

    Raises:
        TranscoderError: kind "unsupported".
    """
    short, layer = _short(name) if isinstance(name, str) else ("", None)
    if short not in _HOOKS:
        raise TranscoderError(
            f"The place {str(name)[:80]!r} in {file} is not supported", kind="unsupported",
            why=f"known are {', '.join(key for key in _HOOKS if 'hook' in key)}",
        )  # fmt: skip
    return NamedHook(_HOOKS[short], str(name), layer)


def _short(name: str) -> tuple[str, int | None]:
    name = name.strip()
    for pattern in (_BLOCK, _LAYERS):
        found = pattern.match(name)
        if found:
            return name[found.end() :], int(found[1]) if found[1].isdigit() else None
    return name, None
