"""How long a lens will take, from shapes and the model's measured speed."""

from mi_core.engine.plan import block_weights
from mi_core.model.model import LoadedModel


def lens_seconds(model: LoadedModel, tokens: int, cells: int) -> float | None:
    """Expected duration of a pass and an unembedding of some cells.

    Args:
        model: a loaded model.
        tokens: that go through the model, over all prompts.
        cells: vectors that go through the unembedding (layers times positions, or layers times prompts).

    Returns:
        Seconds; None before the model's speed was measured.
    """
    speed = model.token_layers_per_second
    if not speed:
        return None
    # An unembedding in units of a block's work for one token; both are matrix products.
    per_cell = model.dims.d_model * model.dims.d_vocab / max(1, block_weights(model))
    return (tokens * model.dims.n_layers + cells * per_cell) / speed
