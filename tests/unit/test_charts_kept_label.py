"""Under an axis of texts the chosen position, in a graph the output's, has its label on any screen."""

import re

import numpy as np
import pytest
import vl_convert

from mi_core.charts.feature_graph import graph_drawing
from mi_core.charts.feature_graph_layout import importance
from mi_core.charts.lines import Line, lines
from mi_core.charts.theme import styled
from mi_core.tokens import Token
from tests.feature_graphs import hand_graph


def drawn(n: int, chosen: int | None, width: int, word: str) -> list[str]:
    """The texts under the axis of n tokens in a figure of that width, as the browser draws them."""
    names = [f"{place} {word}" for place in range(n)]
    if chosen is not None:
        names[chosen] += " (output)"
    spec = lines(
        [Line("a", range(n), [float(place) for place in range(n)])], x_title="Token", y_title="y",
        x_labels=names, chosen_x=chosen,
    )  # fmt: skip
    picture = vl_convert.vegalite_to_svg({**styled(spec), "width": width})
    return [text for text in re.findall(r">([^<>]+)</text>", picture) if word in text]


@pytest.mark.parametrize("word", ["at", "Louvre"])
@pytest.mark.parametrize("n", [4, 12, 20, 61, 150])
@pytest.mark.parametrize("width", [300, 860])
def test_the_chosen_label_is_never_left_out(word: str, n: int, width: int) -> None:
    for chosen in {n - 1, n // 2, 0}:
        texts = drawn(n, chosen, width, word)
        assert f"{chosen} {word} (output)" in texts
        assert len(texts) == len(set(texts))
        assert len(texts) <= width / 11 + 2  # not all on top of each other
    assert drawn(n, None, width, word)


def test_a_wide_figure_still_names_every_token_and_a_choice_beyond_them_none() -> None:
    assert len(drawn(12, 11, 860, "at")) == 12
    spec = lines([Line("a", range(3), range(3))], x_title="x", y_title="y", x_labels=["a"] * 3, chosen_x=7.0)
    assert spec["layer"][0]["encoding"]["x"]["axis"]["values"] == [0, 1, 2]


def test_columns_are_named_from_the_last_one_and_then_the_farthest() -> None:
    reach = importance([0.0, 1.0, 2.0, 3.0, 8.0])
    assert reach[4] > 1000
    assert reach[0] == 8.0
    assert sorted(reach[1:4], reverse=True) == [3.0, 1.0, 1.0]
    assert importance([5.0])[0] >= 1000
    assert importance([]) == []


@pytest.mark.parametrize("n", [2, 7, 12, 45])
@pytest.mark.parametrize("width", [300, 860])
def test_a_graphs_last_token_is_named_on_any_screen(n: int, width: int) -> None:
    """All tokens where they have room, fewer on a phone, the output's in any case."""
    tokens = tuple(Token(at, at, f"Louvre{at}", 0, 1, False) for at in range(n))
    result = hand_graph(tokens=tokens)
    places = [0] * len(result.node_kind)
    places[-4:] = [n - 1] * 4
    result = hand_graph(tokens=tokens, node_position=np.array(places))
    spec = graph_drawing(result, np.ones(len(places), dtype=bool), result.edges != 0)
    picture = vl_convert.vegalite_to_svg({**styled(spec), "width": width})
    texts = re.findall(r">(\d+ Louvre\d+)</text>", picture)
    assert f"{n - 1} Louvre{n - 1}" in texts
    if width == 860 and n <= 12:
        assert len(texts) == n
    assert len(texts) <= (width - 40) / (11 if n > 8 else 60)
