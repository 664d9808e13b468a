"""The one table of sites: places in a decoder where an activation can be read and changed.

Names and shapes are those of TransformerLens (https://github.com/TransformerLensOrg/TransformerLens, hook
names), so a number taken here can be compared with a number taken there. Shapes omit the batch ("row") axis.
Everything that names a site (engine, pages, documentation, exports) reads this table.
"""

from dataclasses import dataclass
from typing import Literal

from mi_core.errors import SiteMissing

Where = Literal["model", "block", "attention"]


@dataclass(frozen=True, slots=True)
class Site:
    """One place in the model.

    Attributes:
        name: short name, used in edits, links and tables.
        axes: axis names without the batch axis.
        meaning: one sentence.
        where: "model" (once), "block" (per layer, by a module hook) or "attention" (per layer, inside the
            attention function).
        full_name: the TransformerLens hook of the same meaning, `{l}` standing for the layer. (Its
            `hook_embed` is the token embedding alone, its `hook_mlp_in` the stream before the norm.)
        availability: which families have it.
    """

    name: str
    axes: tuple[str, ...]
    meaning: str
    where: Where
    full_name: str
    availability: str = "all"

    @property
    def per_layer(self) -> bool:
        """Whether the site exists once per layer."""
        return self.where != "model"

    @property
    def by_head(self) -> bool:
        """Whether the site has a head axis."""
        return "head" in self.axes or "kv_head" in self.axes


_STREAM = ("pos", "d_model")
_HEADS = ("pos", "head", "d_head")
_KV = ("pos", "kv_head", "d_head")
_SQUARE = ("head", "query", "key")

_TABLE = (
    Site(
        "embed",
        _STREAM,
        "what enters block 0: token embedding (scale included) plus position embedding",
        "model",
        "blocks.0.hook_resid_pre",
    ),
    Site("resid_pre", _STREAM, "residual stream before a block", "block", "blocks.{l}.hook_resid_pre"),
    Site(
        "q",
        _HEADS,
        "queries before rotary (after the family's query norm)",
        "block",
        "blocks.{l}.attn.hook_q",
    ),
    Site("k", _KV, "keys before rotary (after the family's key norm)", "block", "blocks.{l}.attn.hook_k"),
    Site("v", _KV, "values", "block", "blocks.{l}.attn.hook_v"),
    Site(
        "rot_q", _HEADS, "queries after rotary", "attention", "blocks.{l}.attn.hook_rot_q", "rotary families"
    ),
    Site("rot_k", _KV, "keys after rotary", "attention", "blocks.{l}.attn.hook_rot_k", "rotary families"),
    Site(
        "attn_scores",
        _SQUARE,
        "attention scores after softcap and mask, before the softmax",
        "attention",
        "blocks.{l}.attn.hook_attn_scores",
    ),
    Site(
        "pattern",
        _SQUARE,
        "attention after the softmax; rows over keys sum to 1",
        "attention",
        "blocks.{l}.attn.hook_pattern",
    ),
    Site("z", _HEADS, "per-head output before W_O", "block", "blocks.{l}.attn.hook_z"),
    Site(
        "result",
        ("pos", "head", "d_model"),
        "per-head output after W_O; b_O belongs to no head",
        "block",
        "blocks.{l}.attn.hook_result",
    ),
    Site(
        "attn_out",
        _STREAM,
        "what attention adds to the stream (after any post-norm)",
        "block",
        "blocks.{l}.hook_attn_out",
    ),
    Site(
        "resid_mid",
        _STREAM,
        "residual stream between attention and MLP",
        "block",
        "blocks.{l}.hook_resid_mid",
        "families without parallel blocks",
    ),
    Site("mlp_in", _STREAM, "input of the MLP (after its norm)", "block", "blocks.{l}.mlp.hook_in"),
    Site(
        "mlp_pre",
        ("pos", "d_mlp"),
        "MLP before the non-linearity (gated: the gate branch)",
        "block",
        "blocks.{l}.mlp.hook_pre",
    ),
    Site(
        "mlp_post",
        ("pos", "d_mlp"),
        "MLP after the non-linearity (gated: the product that enters the down projection)",
        "block",
        "blocks.{l}.mlp.hook_post",
    ),
    Site(
        "mlp_out",
        _STREAM,
        "what the MLP adds to the stream (after any post-norm)",
        "block",
        "blocks.{l}.hook_mlp_out",
    ),
    Site("resid_post", _STREAM, "residual stream after a block", "block", "blocks.{l}.hook_resid_post"),
    Site("final_norm", _STREAM, "output of the final norm", "model", "ln_final.hook_out"),
    Site("logits", ("pos", "d_vocab"), "logits, every softcap and scale included", "model", "logits"),
)

SITES: dict[str, Site] = {site.name: site for site in _TABLE}
"""All sites by short name, in the order in which a forward pass meets them."""


def site(name: str) -> Site:
    """Look a site up.

    Raises:
        SiteMissing: there is no such site; the message lists all.
    """
    if name not in SITES:
        raise SiteMissing(f"There is no site called {name!r}", fix=f"Sites are: {', '.join(SITES)}")
    return SITES[name]


def full_name(name: str, layer: int | None = None) -> str:
    """TransformerLens hook name of a site, for exports, e.g. `blocks.3.attn.hook_pattern`."""
    return site(name).full_name.format(l=layer)


CANDLE_MI: dict[str, str | None] = {
    "Embed": "embed",
    "ResidPre": "resid_pre",
    "AttnQ": "q",
    "AttnK": "k",
    "AttnV": "v",
    "AttnScores": None,
    "AttnPattern": "pattern",
    "AttnOut": "attn_out",
    "ResidMid": "resid_mid",
    "MlpPre": "mlp_in",
    "MlpPost": None,
    "MlpOut": "mlp_out",
    "ResidPost": "resid_post",
    "FinalNorm": "final_norm",
}
"""candle-mi's hook points and the site of the same meaning.

Three would be wrong if only spelled differently: its AttnScores are taken before softcap and mask (ours
after both, so there is no
equal), its MlpPre is what enters the MLP, its MlpPost is the MLP's raw output before Gemma 2's post-norm (no
equal there; `mlp_out` in families without that norm).
"""
