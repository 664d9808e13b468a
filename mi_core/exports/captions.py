"""Captions that say what a reader must know: what was done, how often, in which unit, from where to where."""

from collections.abc import Sequence

from mi_core.analyses.causal_trace_inputs import METRICS, Kind, WindowConvention
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.charts.causal_trace import (
    answer_text,
    clipped_cells,
    head_panels,
    quantity,
    trace_panels,
    trace_scale,
)
from mi_core.charts.text import legible, number, token_label
from mi_core.provenance import Provenance

MAX_PROMPT = 300  # characters of a prompt in a caption
_RESTORED = {
    "state": "residual state",
    "attn": "attention output",
    "mlp": "MLP output",
    "state_attn_severed": "residual state (attention of that token held at its corrupted values)",
    "state_mlp_severed": "residual state (MLPs of that token held at their corrupted values)",
    "head": "output of a single attention head",
}


def trace_caption(result: CausalTraceResult, metric: str, kinds: Sequence[Kind]) -> str:
    """Caption of the heatmap of a causal trace."""
    heads = tuple(kinds) == ("head",)
    panels = head_panels(result, metric) if heads else trace_panels(result, metric, kinds)
    scale = trace_scale(result, metric, panels, to_clean=not heads)
    parts = [
        _what(result, kinds),
        _corruption(result),
        f"Colour: {_quantity(result, metric)}{_average(result)}; {_ends(result, metric)}",
    ]
    clipped, total = clipped_cells(panels, scale)
    if clipped:
        parts.append(
            f"{clipped} of {total} cells ({100 * clipped / total:.2g} %) lie beyond the scale by more than a "
            "colour step and are drawn in the colour of its end."
        )
    unrun = sum(int((~result.grids[kind].done).sum()) for kind in kinds)
    if unrun:
        parts.append(f"{unrun} hatched cells were not run.")
    return " ".join([*parts, model_sentence(result.provenance)])


def curve_caption(result: CausalTraceResult, metric: str, kinds: Sequence[Kind], position: int) -> str:
    """Caption of the curve over layers at one token."""
    token = token_label(position, result.tokens[position].visible, marked=result.is_subject(position))
    band = (
        f" Bands: 95 % confidence for the draw of the noise (paired differences from the unpatched run, "
        f"n = {result.n_samples})."
        if result.n_samples > 1
        else ""
    )
    return " ".join([
        f"{_what(result, kinds)} Shown: {_quantity(result, metric)} at token {token}"
        f"{_average(result)}; rings mark the best layer.{band}",
        _corruption(result), _ends(result, metric, colour=False), model_sentence(result.provenance),
    ])  # fmt: skip


def severed_caption(result: CausalTraceResult, metric: str, position: int) -> str:
    """Caption of the bars with severed modules."""
    token = token_label(position, result.tokens[position].visible, marked=result.is_subject(position))
    return " ".join([
        f"Effect on {_quantity(result, metric)} of putting the clean residual state of token {token} back at "
        f"one layer: as it is, and with that token's attention or MLP outputs held at their corrupted values "
        f"in all layers (severed). Effect = value minus that of the run with nothing put back, "
        f"{number(result.baseline(metric))}{_average(result)}.",
        _corruption(result), model_sentence(result.provenance),
    ])  # fmt: skip


def cell_caption(result: CausalTraceResult, cell: str) -> str:
    """Caption of the most probable tokens at one cell."""
    return " ".join([
        f"Most probable next tokens in the clean run, the corrupted run and the run with the patch at {cell}"
        f"{_average(result)}.", _corruption(result), model_sentence(result.provenance),
    ])  # fmt: skip


def samples_caption(result: CausalTraceResult, metric: str, cell: str) -> str:
    """Caption of the strip of noise samples at one cell."""
    return " ".join([
        f"{_quantity(result, metric)} in the clean run, the corrupted run and the run with the patch at "
        f"{cell}: one point per noise sample (n = {result.n_samples}), a bar at the mean.",
        _corruption(result), model_sentence(result.provenance),
    ])  # fmt: skip


def _what(result: CausalTraceResult, kinds: Sequence[Kind]) -> str:
    """Which values are put where."""
    inputs = result.inputs
    names = [_RESTORED[kind] for kind in kinds]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    source, base = ("clean", "corrupted") if inputs.direction == "denoising" else ("corrupted", "clean")
    place = _head_place(result) if tuple(kinds) == ("head",) else "of one token (row) at one layer (column)"
    return (
        f"Causal trace of {quoted(inputs.prompt)} \u2192 {answer_text(result.answer)}. Each cell: the "
        f"{source} {listed} {place} is put into the {base} run"
        f"{window_clause(inputs.window, inputs.window_convention, kinds)}."
    )


def _head_place(result: CausalTraceResult) -> str:
    position = result.inputs.head_position
    if position is None:
        return "(row) of one layer (column), at all tokens"
    return f"(row) of one layer (column), at token {token_label(position, result.tokens[position].visible)}"


def window_clause(window: int, convention: WindowConvention, kinds: Sequence[Kind]) -> str:
    """Which layers are patched together; empty for single layers."""
    names = [name for kind, name in (("attn", "attention"), ("mlp", "MLP")) if kind in kinds]
    if window == 1 or not names:
        return ""
    before, after = window_reach(window, convention)
    said = f", the {convention}'s convention" if window % 2 == 0 else ""
    reach = f"layers l \u2212 {before} to l + {after}"
    return f"; {' and '.join(names)}: in {reach} together (window of {window}{said})"


def window_reach(window: int, convention: WindowConvention) -> tuple[int, int]:
    """Layers before and after the centre of a window, before it is cut at the model's ends."""
    before = window // 2 - (1 if convention == "paper" and window % 2 == 0 else 0)
    return before, window - 1 - before


def _corruption(result: CausalTraceResult) -> str:
    inputs = result.inputs
    if inputs.corrupted_prompt is not None:
        return f"Corrupted run: the prompt {quoted(inputs.corrupted_prompt)}."
    start, end = result.subject
    unit = "standard deviations of the embeddings" if inputs.noise_unit == "sigma" else "embedding units"
    size = (
        ""
        if result.noise_scale is None or inputs.noise_unit == "absolute"
        else f" ({number(result.noise_scale)})"
    )
    tokens = f"token {start}" if end - start == 1 else f"tokens {start} to {end - 1}"
    plural = "s" if result.n_samples > 1 else ""
    return (
        f"Corrupted run: {inputs.noise.capitalize()} noise of {inputs.noise_level:g} {unit}{size} on the "
        f"embeddings of the subject ({tokens}, marked *), {result.n_samples} sample{plural}, "
        f"seed {inputs.seed}."
    )


def _average(result: CausalTraceResult) -> str:
    return f", mean of {result.n_samples} noise samples" if result.n_samples > 1 else ""


def _ends(result: CausalTraceResult, metric: str, *, colour: bool = True) -> str:
    """Where the scale starts and what its marks are."""
    corrupted, clean = (number(result.value(run, metric)) for run in (result.corrupted, result.clean))
    if metric == "top1_flip":
        return "0 = the same top token as without the patch in every sample."
    if metric.startswith("recovered") or metric == "kl_recovery":
        return "0 = corrupted run, 1 = clean run, not clipped."
    if metric == "logit_difference":
        return f"0 = both tokens equally likely; corrupted run {corrupted}, clean run {clean}."
    start = "the scale starts at the corrupted run" if colour else "corrupted run"
    return (
        f"{start} ({corrupted}); clean run {clean}."
        if colour
        else f"Corrupted run {corrupted}, clean run {clean}."
    )


def model_sentence(origin: Provenance | None) -> str:
    """Which model, number format and weights the numbers come from; empty where there is no model."""
    if origin is None:
        return ""
    name, weights = legible(origin.model), origin.fingerprint[:12]
    return f"Model {name} ({origin.dtype}, weights {weights}), Lantern {origin.lantern_version}."


def _quantity(result: CausalTraceResult, metric: str) -> str:
    return f"{legible(quantity(result, metric))} [{METRICS[metric].unit}]"


def quoted(text: str) -> str:
    """A prompt in quotation marks, cut in the middle if it would fill a page."""
    shown = legible(text)
    if len(shown) > MAX_PROMPT:
        shown = f"{shown[: MAX_PROMPT // 2]} \u2026 {shown[-MAX_PROMPT // 2 :]}"
    return f"\u201c{shown}\u201d"


def drawn_clause(n_tokens: int, shown: range) -> str:
    """Which tokens of a long prompt a figure draws; empty when it draws all."""
    if len(shown) == n_tokens:
        return ""
    return f"Drawn: tokens {shown.start} to {shown.stop - 1} of {n_tokens:,}; the table has all."
