"""Under an axis of texts the label of the chosen position is drawn, however narrow the screen is."""

import re

import pytest
import vl_convert

from mi_core.charts.lines import Line, lines
from mi_core.charts.theme import styled


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
