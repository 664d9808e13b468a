"""Lists of interventions that others have published."""


def candle_mi_edge(n_layers: int, n_tokens: int) -> str:
    """candle-mi's attention_knockout: last token -> first token, middle layer, all heads.

    Args:
        n_layers: of the model.
        n_tokens: of the prompt.
    """
    return f"e{n_tokens - 1}-0@L{n_layers // 2}"
