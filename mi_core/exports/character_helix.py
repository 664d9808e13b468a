"""The figures of the character-count helix: drawing, table, caption, checks and recipe together."""

from typing import TYPE_CHECKING

from mi_core.analyses.character_helix_record import cosine_frame
from mi_core.analyses.character_helix_result import CharacterHelixResult
from mi_core.charts import character_helix as charts
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("counts", "n", "explained_variance", "total_variance", "control_total_variance")
REFERENCES = ("gurnee2025manifolds",)

VARIANCE = (
    "Texts are wrapped at several widths. For every number of characters since the line's start, the "
    "residual stream is averaged over all tokens at that place; the means are points, one per number. "
    "The lines show how much of their variance the leading principal components hold, layer by layer. "
    "One component alone would be a straight line or two groups; a curve that winds needs several. The "
    "shuffled control has the same tokens and the same n per count, but no counting in it: what it "
    "shows is noise of means, and noise too has leading components. Read a layer only where its total "
    "variance is well above the control's. A structure need not be counting: tokens just after a line "
    "break are of other kinds than those further on, and large counts come from wide lines only (Gurnee"
    " et al., 2025)."
)
PATH = (
    "Every point is the mean residual stream at one number of characters since the line's start, placed"
    " by its coordinates on two principal components of the centred means; neighbours in count are "
    "joined. The components' signs are free. A smooth curve that winds is what Gurnee et al. (2025) "
    "found in Claude 3.5 Haiku; a tangle is what noise gives; a line that only stretches says that one "
    "direction grows with the count. Means over few tokens scatter more: n is in the tooltip. Two "
    "components of many can show loops that are shadows of the rest; look at the shares."
)
COSINE = (
    "Cosine of the means at two numbers of characters, after their common centre is taken off. Blue: "
    "same direction from the centre, orange: opposite, white: at right angles. Bands beside the "
    "diagonal that come back (ringing) belong to a curve that winds. Without centring nearly all pairs "
    "would be near 1, because every mean shares the large part of the stream that has nothing to do "
    "with the count."
)
RING = (
    "Mean cosine of all pairs of counts that are as many characters apart, up to half the range. On a "
    "straight line it only falls; on a circle or helix it rises again. The largest rise after any lower "
    "point is the ringing. Centring alone makes some cosines negative; only the return counts."
)


def variance_figure(result: CharacterHelixResult, *, chosen: int | None = None) -> Figure:
    """Shares over layers; arguments as in `charts.character_helix.variance_lines`."""
    above = result.above_control
    caption = (
        f"Share of the variance of the means that leading components hold, by layer, with counts shuffled as "
        f"control (seed {result.inputs.seed}); 0 = none, 1 = all. Total variance over the control's: "
        f"{number(float(above.min()))} to {number(float(above.max()))}. {_said(result)}"
    )
    return analysis_figure(
        result,
        analysis="character_helix",
        title="Variance of the means by character count",
        spec=charts.variance_lines(result, chosen=chosen),
        view={"figure": "variance", "chosen": chosen},
        caption=caption,
        how_to_read=VARIANCE,
        description="Shares of variance over layers, of the counts and of the shuffled control.",
        frame=result.to_frame,
        references=REFERENCES,
        function="character_helix",
        arrays=ARRAYS,
    )


def path_figure(result: CharacterHelixResult, layer: int, pair: tuple[int, int] = (1, 2)) -> Figure:
    """Path of one layer; arguments as in `charts.character_helix.path`."""
    shares = result.explained_variance[layer]
    caption = (
        f"Means of {result.inputs.site} in layer {layer} by characters since the line's start, on "
        f"principal components {pair[0]} and {pair[1]} ({_percent(shares[pair[0] - 1])} and "
        f"{_percent(shares[pair[1] - 1])} of the variance), centred: 0 = the mean of all means. "
        f"{_layer_said(result, layer)} {_said(result)}"
    )
    return analysis_figure(
        result,
        analysis="character_helix",
        title=f"The path of the count in layer {layer}, PC{pair[0]} and PC{pair[1]}",
        spec=charts.path(result, layer, pair),
        view={"figure": "path", "layer": layer, "pair": list(pair)},
        caption=caption,
        how_to_read=PATH,
        description=charts.describe_path(result, layer, pair),
        frame=lambda: _layer_frame(result, layer, pair),
        references=REFERENCES,
        function="character_helix",
        arrays=ARRAYS,
    )


def cosine_figure(result: CharacterHelixResult, layer: int) -> Figure:
    """Cosines of one layer."""
    caption = (
        f"Cosine of the centred means in layer {layer}, for all pairs of counts; 0 = at right angles. "
        f"Without centring the mean cosine of two counts is {number(float(result.uncentred_cosine[layer]))}. "
        f"{_said(result)}"
    )
    return analysis_figure(
        result,
        analysis="character_helix",
        title=f"How alike two counts are in layer {layer}",
        spec=charts.cosine_heatmap(result, layer),
        view={"figure": "cosine", "layer": layer},
        caption=caption,
        how_to_read=COSINE,
        description=charts.describe_cosine(result, layer),
        frame=lambda: cosine_frame(result, layer),
        references=REFERENCES,
        function="character_helix",
        arrays=ARRAYS,
    )


def ring_figure(result: CharacterHelixResult, layer: int) -> Figure:
    """Ringing of one layer."""
    caption = (
        f"Mean centred cosine of two counts over their distance, layer {layer}; 0 = at right angles. "
        f"Its largest rise after a lower point is {number(float(result.ringing[layer]))}; with shuffled "
        f"counts {number(float(result.control_ringing[layer]))}. {_said(result)}"
    )
    return analysis_figure(
        result,
        analysis="character_helix",
        title=f"Does the cosine ring in layer {layer}?",
        spec=charts.ring_lines(result, layer),
        view={"figure": "ring", "layer": layer},
        caption=caption,
        how_to_read=RING,
        description=f"Mean cosine over the distance of two counts in layer {layer}.",
        frame=lambda: cosine_frame(result, layer),
        references=REFERENCES,
        function="character_helix",
        arrays=ARRAYS,
    )


def _said(result: CharacterHelixResult) -> str:
    """Set, n, what does not count, and the model."""
    widths, n = result.inputs.widths, result.n
    return (
        f"{legible(result.inputs.set_name)}, wrapped at {len(widths)} widths from {min(widths)} to "
        f"{max(widths)} characters (Unicode code points); n = {result.n_tokens:,} tokens, {int(n.min()):,} "
        f"to {int(n.max()):,} per count, counts {result.counts[0]} to {result.counts[-1]}. Tokens that reach "
        f"over a line break and first tokens are left out. {model_sentence(result.provenance)}"
    ).strip()


def _layer_said(result: CharacterHelixResult, layer: int) -> str:
    return (
        f"The first 3 components hold {_percent(result.share(3)[layer])} (shuffled: "
        f"{_percent(result.share(3, control=True)[layer])}); total variance is "
        f"{number(float(result.above_control[layer]))} times the control's."
    )


def _percent(share: float) -> str:
    return f"{number(100 * float(share))} %"


def _layer_frame(result: CharacterHelixResult, layer: int, pair: tuple[int, int]) -> "pd.DataFrame":
    """The rows of one layer and two components."""
    frame = result.to_frame()
    here = (frame["layer"] == layer) & (frame["quantity"] == "projection") & frame["component"].isin(pair)
    return frame.loc[here].reset_index(drop=True)
