"""Where each site of a loaded model is: modules, and how their tensors map to the shapes of the sites.

A `Point` says which module to hook, on which side, and how to view the tensor found there as `[token, *site
axes]`; "token" is the flattened row and position axis, whatever the batch looks like. The engine edits and
captures only through these views.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from mi_core.errors import ModelError, SiteMissing
from mi_core.model.families import FAMILIES, STRUCTURAL_FALLBACK, Family
from mi_core.model.views import Point, Side, View
from mi_core.sites import SITES, site


@dataclass(frozen=True, slots=True)
class Dims:
    """Sizes of a decoder (counts, no units)."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int


def child(root: nn.Module, path: str | None) -> nn.Module | None:
    """The module at a dotted path; None where it ends nowhere."""
    if path is None:
        return None
    for name in path.split("."):
        root = getattr(root, name, None)  # type: ignore[assignment]  # None ends the walk below
        if root is None:
            return None
    return root if isinstance(root, nn.Module) else None


def family_of(config: object) -> Family:
    """The family data for a configuration; the structural fallback for an unknown model type."""
    return FAMILIES.get(getattr(config, "model_type", ""), STRUCTURAL_FALLBACK)


def text_config(config: object) -> object:
    """The decoder's own configuration (multimodal checkpoints nest it)."""
    return getattr(config, "text_config", None) or config


def _inputs_of(module: nn.Module, transposed: bool) -> int:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise ModelError(
            "The model's MLP cannot be measured", kind="unsupported", why="its down projection has no weight"
        )
    return int(weight.shape[0] if transposed else weight.shape[1])


def read_dims(hf: nn.Module, family: Family, blocks: nn.ModuleList) -> Dims:
    """Read sizes from the configuration, and from the modules where configurations disagree on names."""
    config = text_config(getattr(hf, "config", None))
    n_heads = int(getattr(config, "num_attention_heads"))  # noqa: B009  # config classes type nothing
    d_model = int(getattr(config, "hidden_size"))  # noqa: B009
    attention = child(blocks[0], family.attention)
    d_head = (
        getattr(attention, "head_dim", None) or getattr(attention, "head_size", None) or d_model // n_heads
    )
    down = child(blocks[0], family.mlp_down)
    return Dims(
        n_layers=len(blocks),
        n_heads=n_heads,
        n_kv_heads=n_heads if family.qkv == "by_head" else _kv_heads(config, n_heads),
        d_model=d_model,
        d_head=int(d_head),
        d_mlp=_inputs_of(down, family.transposed) if down is not None else 0,
        d_vocab=int(getattr(config, "vocab_size")),  # noqa: B009
    )


def _kv_heads(config: object, n_heads: int) -> int:
    return int(getattr(config, "num_key_value_heads", None) or n_heads)


@dataclass(slots=True)
class Structure:
    """The resolved model: blocks, points of all sites, and what is not available, with the reason.

    Attributes:
        family: the data it was resolved from.
        known: whether the model type has its own entry (else the structural fallback was used).
        dims: sizes.
        blocks: the blocks in order.
        parallel: attention and MLP read the same stream.
        points: (site, layer) -> Point for module sites; layer is None for model sites.
        missing: site -> reason, for sites that this model does not have or that the probe switched off.
        blocks_return_tuples: whether blocks wrap their output in a tuple; None until one was seen.
        layer_of: layer by `id` of its attention module.
    """

    family: Family
    known: bool
    dims: Dims
    blocks: nn.ModuleList
    attention: tuple[nn.Module, ...]
    parallel: bool
    points: dict[tuple[str, int | None], Point]
    missing: dict[str, str] = field(default_factory=dict)
    blocks_return_tuples: bool | None = None
    layer_of: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.layer_of = {id(module): layer for layer, module in enumerate(self.attention)}

    def available(self) -> list[str]:
        """Names of the sites that can be read and changed, in forward order."""
        return [name for name in SITES if name not in self.missing]

    def require(self, name: str, layer: int | None) -> None:
        """Check that a site exists here.

        Raises:
            SiteMissing: unknown site, not on this model (the message names what it has), or no such layer.
        """
        found = site(name)
        if name in self.missing:
            raise SiteMissing(
                f"Site {name!r} is not available on this {self.family.name} model",
                why=self.missing[name],
                fix=f"It has: {', '.join(self.available())}",
            )
        if found.per_layer and (layer is None or not 0 <= layer < self.dims.n_layers):
            raise SiteMissing(
                f"Site {name!r} needs a layer from 0 to {self.dims.n_layers - 1}",
                why=f"layer {layer} was asked for",
            )

    def shape(self, name: str, n_pos: int) -> tuple[int, ...]:
        """Shape of a site for a prompt of `n_pos` tokens, without the row axis."""
        dims = self.dims
        sizes = {
            "pos": n_pos,
            "query": n_pos,
            "key": n_pos,
            "head": dims.n_heads,
            "kv_head": dims.n_kv_heads,
            "d_model": dims.d_model,
            "d_head": dims.d_head,
            "d_mlp": dims.d_mlp,
            "d_vocab": dims.d_vocab,
        }
        return tuple(sizes[axis] for axis in site(name).axes)

    def layers_of(self, name: str) -> list[int | None]:
        """The layers at which a site exists: [None] for a model site."""
        return list(range(self.dims.n_layers)) if site(name).per_layer else [None]


def resolve(hf: nn.Module) -> Structure:
    """Resolve a Hugging Face causal language model.

    Raises:
        ModelError: kind "unsupported", when no list of blocks with attention is where the family says.
    """
    config = text_config(getattr(hf, "config", None))
    model_type = str(getattr(config, "model_type", "unknown"))
    family = family_of(getattr(hf, "config", None))
    if family is STRUCTURAL_FALLBACK:
        family = family_of(config)
    blocks = child(hf, family.blocks)
    first = blocks[0] if isinstance(blocks, nn.ModuleList) and len(blocks) else None
    if not isinstance(blocks, nn.ModuleList) or first is None or child(first, family.attention) is None:
        raise ModelError(
            f"Models of type {model_type!r} are not supported",
            kind="unsupported",
            why=f"no decoder blocks with attention were found at {family.blocks!r}",
            fix=f"Supported types: {', '.join(FAMILIES)}, and models built like Llama",
        )
    flag = family.parallel
    parallel = bool(getattr(config, flag, False)) if isinstance(flag, str) else flag
    attention = tuple(module for block in blocks if (module := child(block, family.attention)) is not None)
    structure = Structure(
        family, model_type in FAMILIES, read_dims(hf, family, blocks), blocks, attention, parallel, {}
    )
    structure.points.update(_points(hf, structure))
    _note_missing(structure)
    return structure


def _qkv_views(family: Family, dims: Dims) -> dict[str, View]:
    width, kv_width = dims.n_heads * dims.d_head, dims.n_kv_heads * dims.d_head
    if family.qkv == "columns":
        return {
            "q": View(dims.n_heads, part=(0, width)),
            "k": View(dims.n_kv_heads, part=(width, width + kv_width)),
            "v": View(dims.n_kv_heads, part=(width + kv_width, width + 2 * kv_width)),
        }
    if family.qkv == "by_head":
        return {name: View(dims.n_heads, third=index) for index, name in enumerate("qkv")}
    return {"q": View(dims.n_heads), "k": View(dims.n_kv_heads), "v": View(dims.n_kv_heads)}


def _block_points(
    block: nn.Module, family: Family, dims: Dims
) -> Iterator[tuple[str, nn.Module | None, Side, View]]:
    """Yield (site, module, side, view) for one block."""
    plain, views = View(), _qkv_views(family, dims)
    query_norm, key_norm = child(block, family.query_norm), child(block, family.key_norm)
    if query_norm is not None:
        views["q"] = View(dims.n_heads, head_first=family.norm_head_first)
    if key_norm is not None:
        views["k"] = View(dims.n_kv_heads, head_first=family.norm_head_first)
    gate = View(part=(0, dims.d_mlp)) if family.fused_gate else plain
    projection = child(block, family.output_projection)
    yield "resid_pre", block, "input", plain
    yield "q", query_norm or child(block, family.query), "output", views["q"]
    yield "k", key_norm or child(block, family.key), "output", views["k"]
    yield "v", child(block, family.value), "output", views["v"]
    yield "z", projection, "input", View(dims.n_heads)
    yield "result", projection, "output", plain
    yield "attn_out", child(block, family.attention_write), "output", plain
    yield "resid_mid", child(block, family.attention_write), "output", plain
    yield "mlp_in", child(block, family.mlp), "input", plain
    yield "mlp_pre", child(block, family.mlp_gate), "output", gate
    yield "mlp_post", child(block, family.mlp_down), "input", plain
    yield "mlp_out", child(block, family.mlp_write), "output", plain
    yield "resid_post", block, "output", plain


def _points(hf: nn.Module, structure: Structure) -> Iterator[tuple[tuple[str, int | None], Point]]:
    family, plain = structure.family, View()
    for layer, block in enumerate(structure.blocks):
        for name, module, side, view in _block_points(block, family, structure.dims):
            if module is not None:
                yield (name, layer), Point(module, side, view)
    yield ("embed", None), Point(structure.blocks[0], "input", plain)
    norm = child(hf, family.final_norm)
    if norm is not None:
        yield ("final_norm", None), Point(norm, "output", plain)


def _note_missing(structure: Structure) -> None:
    """Write down what this architecture has not, so that asking for it names the reason."""
    if structure.parallel:
        structure.missing["resid_mid"] = "attention and MLP of a parallel block read the same stream"
    if not structure.family.rotary:
        for name in ("rot_q", "rot_k"):
            structure.missing[name] = "positions are added to the embedding; nothing is rotated"
    for name, found in SITES.items():
        if found.where == "attention" or name == "logits" or name in structure.missing:
            continue
        for layer in structure.layers_of(name):
            if (name, layer) not in structure.points:
                structure.missing[name] = "its module is not where the family keeps it"
