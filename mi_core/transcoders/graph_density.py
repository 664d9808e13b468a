"""How dense the features of a graph are over a corpus: those that are active nearly everywhere say little.

Density is the share of the tokens of a corpus pass at which a feature is active. Dense features can be left
out of a drawing; pruning, influence and scores keep them, because they carry what they carry.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from mi_core.errors import InputError
from mi_core.transcoders.graph_names import FEATURE
from mi_core.transcoders.prompt_parts import corpus_densities, of_features

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.transcoder import Transcoder


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Features that a drawing leaves out.

    Attributes:
        nodes: [node] whether it is a feature that is active on more than `densest` of a corpus' tokens.
        densest: that share.
    """

    nodes: Bool[np.ndarray, " node"]
    densest: float

    def hidden(self, kept: Bool[np.ndarray, " node"], looked_at: Iterable[int]) -> Bool[np.ndarray, " node"]:
        """[node] what is left out of a drawing.

        Args:
            kept: nodes after pruning.
            looked_at: nodes that are drawn in any case: chosen, pinned.
        """
        found = kept & self.nodes
        found[list(looked_at)] = False
        return found


def node_densities(
    model: "LoadedModel", transcoder: "Transcoder", graph: "GraphResult"
) -> Float[np.ndarray, " node"] | None:
    """[node] share of corpus tokens at which the feature is active; NaN where it is not known.

    Args:
        model: the loaded model.
        transcoder: of that model.
        graph: an attribution graph.

    Returns:
        None where no corpus pass was made over these very weights, or the graph is of other ones.

    Raises:
        InputError: the summary of the pass cannot be read.
    """
    same = transcoder.fingerprint == graph.transcoder_fingerprint
    known = corpus_densities(model, transcoder) if same else {}
    if not known:
        return None
    found, features = np.full(graph.n_nodes, np.nan), graph.nodes_of(FEATURE)
    found[features] = of_features(graph.node_layer[features], graph.node_feature[features], known)
    return found


def dense_nodes(density: Float[np.ndarray, " node"], densest: float) -> Dense:
    """The features that are known to be active on more than a share of the tokens.

    Args:
        density: of `node_densities`; NaN is never dense.
        densest: 0 to 1.

    Raises:
        InputError: a share outside 0 to 1.
    """
    if not 0 <= densest <= 1:
        raise InputError(f"The largest density is {densest!r:.40}", fix="Give a share from 0 to 1")
    return Dense(np.nan_to_num(density, nan=-1.0) > densest, densest)
