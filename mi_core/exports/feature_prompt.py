"""The figures of a prompt's features: drawing, table, caption and recipe together, ready to leave."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_core.charts import feature_prompt as charts
from mi_core.charts.grid import window
from mi_core.charts.text import legible, number, token_label
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import drawn_clause, model_sentence, quoted
from mi_core.exports.figure import Figure
from mi_core.transcoders.prompt_record import ARRAYS
from mi_core.transcoders.prompt_result import FeaturesOnPromptResult
from mi_core.transcoders.prompt_view import Choice, Listing

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("ameisen2025circuit", "dunefsky2024transcoders")
EFFECT_REFERENCES = (*REFERENCES, "nanda2023attribution", "syed2023attribution")

COUNTS_READING = (
    "At every token each layer's encoder reads the model's state, and a few of its features answer. A "
    "feature is active when its number is above 0 (above its own threshold where the transcoder has "
    "thresholds). Few features per token are easier to read; many at one token often mean that the "
    "transcoder has no good word for what is there. Special tokens at the beginning are masked, because "
    "features answer to them that mean nothing elsewhere; a switch above shows them."
)
LIST_READING = (
    "One bar per feature. Activations are in units of the feature's own decoder rows, so the sizes of two "
    "features cannot be compared as what they do; the multiple of the threshold says how far a feature is "
    "above where it begins to count. A feature that is active at a large share of all tokens of a corpus is "
    "called dense; such features seldom mean one thing, and can be hidden where the share is known."
)
EFFECT_READING = (
    "The effect is the activation times what one more unit of the feature would add to the target's "
    "logit, to first order, with all that follows answering: attention, norms and later MLPs. Taking the "
    "feature off would change the logit by about minus this number; large effects are only roughly "
    "linear. The Intervene tab takes it off for real."
)
TOKENS_READING = (
    "Each row is a feature of the list above, each column a token; colour is the activation, on one scale "
    "for all. Cells in the colour of 0 are not active."
)
ERROR_READING = (
    "The transcoder says what each MLP writes as a constant plus its active features. The error is the "
    "length of what is missing, relative to the length of what the MLP has written: 0 is exact, 1 is as "
    "far off as writing nothing. Where it is large, the features are no account of what the model does "
    "there."
)


def counts_figure(
    result: FeaturesOnPromptResult, position: int, *, chosen: tuple[int, int] | None = None
) -> Figure:
    """How many features are active; arguments as in `charts.feature_prompt.count_map`."""
    counting = result.counts[:, list(result.counting)]
    mean = float(counting.mean()) if counting.size else 0.0
    return _figure(
        result,
        "Active features by layer and token",
        charts.count_map(result, position, chosen=chosen),
        {"figure": "counts", "position": position, "chosen": chosen and list(chosen)},
        caption=[
            f"Number of active features at every token and source layer; {number(mean)} on average, "
            f"{result.n_active:,} in all; 0 = none is active.",
            _window(result, position),
        ],
        reading=COUNTS_READING,
        description=charts.describe_counts(result, position),
        frame=lambda: quantity_table(result, "active features"),
    )


def list_figure(
    result: FeaturesOnPromptResult, listed: Listing, choice: Choice, count: int, *, chosen: int | None = None
) -> Figure:
    """The first features of a listing; arguments as in `charts.feature_prompt.feature_bars`."""
    effects = choice.sort == "effect"
    return _figure(
        result,
        "Effects of features on the target" if effects else "Leading features",
        charts.feature_bars(result, listed, choice.sort, count, chosen=chosen),
        {"figure": "list", **_view(choice), "count": count, "chosen": chosen},
        caption=[_shown(listed, count), _bars(result, choice), *_narrowed(result, choice, listed)],
        reading=f"{EFFECT_READING} {LIST_READING}" if effects else LIST_READING,
        description=charts.describe_bars(result, listed, choice.sort, count),
        frame=lambda: listing_table(result, listed),
        references=EFFECT_REFERENCES if effects else REFERENCES,
    )


def tokens_figure(
    result: FeaturesOnPromptResult,
    listed: Listing,
    choice: Choice,
    count: int,
    position: int,
    *,
    chosen: tuple[int, int] | None = None,
) -> Figure:
    """Features by tokens; arguments as in `charts.feature_prompt.token_map`."""
    return _figure(
        result,
        "Leading features, token by token",
        charts.token_map(result, listed, count, position, chosen=chosen),
        {"figure": "tokens", **_view(choice), "count": count, "position": position},
        caption=[
            f"{_shown(listed, count)} Colour: activation; 0 = not active.",
            *_narrowed(result, choice, listed),
            _window(result, position),
        ],
        reading=f"{TOKENS_READING} {LIST_READING}",
        description=charts.describe_tokens(result, listed, count, position),
        frame=lambda: _activations(result, listed, count),
    )


def error_figure(result: FeaturesOnPromptResult, position: int) -> Figure:
    """What is not reconstructed; arguments as in `charts.feature_prompt.error_map`."""
    layers = ", ".join(
        f"L{layer} {value:.3f}"
        for layer, value in zip(result.targets, result.unexplained.tolist(), strict=True)
    )
    return _figure(
        result,
        "Reconstruction error by layer and token",
        charts.error_map(result, position),
        {"figure": "error", "position": position},
        caption=[
            "Length of what the transcoder does not reconstruct, relative to what the MLP of that layer "
            "writes; 0 = exact.",
            f"Share of the variance not explained: {number(result.unexplained_all)} in all ({layers}).",
            _window(result, position),
        ],
        reading=ERROR_READING,
        description=charts.describe_errors(result, position),
        frame=lambda: quantity_table(result, "error", "unexplained"),
    )


# --- tables ---


def listing_table(result: FeaturesOnPromptResult, listed: Listing) -> "pd.DataFrame":
    """One row per feature of a listing, with everything that is known of it."""
    import pandas as pd  # only tables need it

    frame = pd.DataFrame({
        "feature": [listed.named(row).text for row in range(len(listed))],
        "layer": listed.layer,
        "activation": listed.activation,
        "position": listed.position,
        "token": [result.tokens[position].visible for position in listed.position.tolist()],
        "times_threshold": listed.share,
        "sum": listed.total,
        "tokens": listed.tokens,
        "effect_logits": listed.effect,
        "density": listed.density,
    })  # fmt: skip
    return frame.dropna(axis="columns", how="all") if len(frame) else frame


def quantity_table(result: FeaturesOnPromptResult, *quantities: str) -> "pd.DataFrame":
    """The rows of the result's table with these quantities."""
    frame = result.to_frame()
    kept = frame["quantity"].isin(list(quantities))
    return frame.loc[kept].dropna(axis="columns", how="all").reset_index(drop=True)


def _activations(result: FeaturesOnPromptResult, listed: Listing, count: int) -> "pd.DataFrame":
    """Activations of the features that are drawn."""
    frame = quantity_table(result, "activation")
    names = [listed.named(row).text for row in range(min(count, len(listed)))]
    return frame.loc[frame["name"].isin(names)].reset_index(drop=True)


# --- captions ---


def _view(choice: Choice) -> dict[str, Any]:
    return {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(choice).items()}


def _shown(listed: Listing, count: int) -> str:
    return f"The first {min(count, len(listed)):,} of {len(listed):,} features that are active."


def _bars(result: FeaturesOnPromptResult, choice: Choice) -> str:
    if choice.sort == "effect":
        return (
            f"Bars: linear effect on {legible(charts.target_name(result))} at the last token [logits], "
            "summed over the tokens, the feature present minus absent, largest sizes first; 0 = no effect."
        )
    if choice.sort == "sum":
        return "Bars: sum of the activations over the tokens; 0 = not active."
    return "Bars: largest activation over the tokens, and the token where it is; 0 = not active."


def _narrowed(result: FeaturesOnPromptResult, choice: Choice, listed: Listing) -> list[str]:
    said = []
    if choice.positions:
        names = [token_label(at, result.tokens[at].visible) for at in choice.positions[:12]]
        more = f" and {len(choice.positions) - 12} more" if len(choice.positions) > 12 else ""
        said.append(f"Listed: features that are active at {', '.join(names)}{more}.")
    if choice.layers:
        said.append(f"Listed: layers {', '.join(map(str, choice.layers))}.")
    if choice.densest is not None:
        said.append(
            f"{listed.dense:,} features that are active on more than {100 * choice.densest:g} % of the "
            "corpus' tokens are hidden."
        )
    return said


def _window(result: FeaturesOnPromptResult, position: int) -> str:
    count = len(result.tokens)
    return drawn_clause(count, window(count, position, charts.WINDOW))


def _figure(
    result: FeaturesOnPromptResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: Sequence[str],
    reading: str,
    description: str,
    frame: Callable[[], "pd.DataFrame"],
    references: Sequence[str] = REFERENCES,
) -> Figure:
    what = (
        f"Features of {quoted(result.inputs.prompt)}, n = 1 prompt of {len(result.counting):,} "
        f"tokens{_masked(result)}."
    )
    said = [what, *caption, result.transcoder.sentence, model_sentence(result.provenance)]
    return analysis_figure(
        result,
        analysis="features_on_prompt",
        title=title,
        spec=spec,
        view=view,
        caption=" ".join(one for one in said if one),
        how_to_read=reading,
        description=description,
        frame=frame,
        references=tuple(references),
        function="features_on_prompt",
        arrays=ARRAYS,
    )


def _masked(result: FeaturesOnPromptResult) -> str:
    count = len(result.masked)
    return f" ({count} leading special token{'s' if count > 1 else ''} masked)" if count else ""
