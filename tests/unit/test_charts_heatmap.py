"""The heatmap: its cells are the numbers it was given, placed by position, on a scale that does not lie."""

import numpy as np
import pytest

from mi_core.charts.colours import ColourScale, bar_ticks, symmetric_bound
from mi_core.charts.heatmap import CANVAS_FROM, Axis, Panel, describe, heatmap, row_step
from mi_core.charts.panels import Strip, thinning

COLUMNS = Axis("layer", "Layer", ("0", "1", "2"))
ROWS = Axis("row", "Token", ("4 ·the*", "7 ·the", "9 ·the"), ids=(4, 7, 9), marked=(0,))
PROBABILITY = ColourScale("P(x)", "probability", (0.1, 0.9), marks=((0.1, "corrupted"), (0.9, "clean")))
VALUES = np.array([[0.1, 0.2, 0.3], [0.4, np.nan, 0.6], [0.7, 0.8, np.inf]])


def drawn(**more):
    panels = [Panel("a", "first", VALUES), Panel("b", "second", VALUES + 1)]
    return heatmap(panels, ROWS, COLUMNS, PROBABILITY, **more)


def grid_of(records, key: str) -> dict[tuple[int, int], float]:
    return {(r["row"], r["layer"]): r["value"] for r in records if r["kind"] == key}


def test_cells_are_the_values_and_nothing_else() -> None:
    data = drawn()["datasets"]
    wanted = {(ROWS.ids[r], c): VALUES[r, c] for r in range(3) for c in range(3) if np.isfinite(VALUES[r, c])}
    assert grid_of(data["cells"], "a") == wanted
    assert grid_of(data["cells"], "b") == {place: value + 1 for place, value in wanted.items()}


def test_cells_without_a_number_are_drawn_apart_and_say_why() -> None:
    missing = [(r["kind"], r["row"], r["layer"], r["status"]) for r in drawn()["datasets"]["missing"]]
    assert missing == [
        ("a", 7, 1, "not run"), ("a", 9, 2, "not finite"), ("b", 7, 1, "not run"), ("b", 9, 2, "not finite"),
    ]  # fmt: skip


def test_no_two_cells_share_a_place_and_equal_labels_have_rows_of_their_own() -> None:
    data = drawn()["datasets"]
    places = [(r["xc"], r["yc"]) for r in data["cells"] + data["missing"]]
    assert len(set(places)) == len(places) == 18
    assert {r["yc"] for r in data["cells"]} == {0, 1, 2}


def test_axes_are_keyed_by_position_with_one_label_each() -> None:
    axis = drawn()["layer"][0]["encoding"]["y"]["axis"]
    assert axis["values"] == [0, 1, 2]
    assert axis["labelExpr"].startswith('["4 \\u00b7the*", "7 \\u00b7the", "9 \\u00b7the"]')


def test_a_click_selects_panel_row_and_layer() -> None:
    params = drawn()["layer"][0]["layer"][0]["params"]
    assert [p["name"] for p in params] == ["cell"]
    assert params[0]["select"]["fields"] == ["kind", "row", "layer"]


def test_the_chosen_cell_is_outlined_where_it_is_and_one_of_another_figure_nowhere() -> None:
    assert drawn(chosen=("b", 9, 1))["datasets"]["chosen"] == [{"xc": Strip(2, 3).at(1, 1), "yc": 2}]
    assert drawn(chosen=("b", 5, 1))["datasets"]["chosen"] == []
    assert drawn(chosen=("c", 9, 1))["datasets"]["chosen"] == []


def test_the_structure_does_not_depend_on_how_much_is_done() -> None:
    """A page that fills in while it runs then only gets new data, and the picture does not flicker."""
    empty = heatmap([Panel("a", "first", np.full((3, 3), np.nan))], ROWS, COLUMNS, PROBABILITY)
    full = heatmap([Panel("a", "first", np.zeros((3, 3)))], ROWS, COLUMNS, PROBABILITY, chosen=("a", 4, 0))
    assert empty["layer"] == full["layer"]


def test_panels_share_one_scale_even_with_hues_of_their_own() -> None:
    panels = [Panel("a", "A", VALUES, hues=("#fff", "#f00")), Panel("b", "B", VALUES, hues=("#fff", "#0f0"))]
    coloured = heatmap(panels, ROWS, COLUMNS, PROBABILITY)["layer"][0]["layer"][0]["layer"]
    domains = [layer["encoding"]["color"]["scale"]["domain"] for layer in coloured]
    assert domains == [[0.1, 0.9], [0.1, 0.9]]
    assert [layer["encoding"]["color"]["scale"]["range"][1] for layer in coloured] == ["#f00", "#0f0"]


def test_many_cells_are_drawn_on_a_canvas() -> None:
    side = int(CANVAS_FROM**0.5) + 1
    axis = Axis("row", "Row", tuple("x" * side))
    large = heatmap([Panel("a", "A", np.zeros((side, side)))], axis, axis, PROBABILITY)
    assert large["usermeta"]["embedOptions"]["renderer"] == "canvas"
    assert "usermeta" not in drawn()


def test_a_panel_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        heatmap([Panel("a", "A", np.zeros((2, 3)))], ROWS, COLUMNS, PROBABILITY)


@pytest.mark.parametrize("domain", [(0.5, 0.5), (0.0, float("nan")), (0.0, float("inf"))])
def test_a_scale_without_extent_is_refused(domain) -> None:
    with pytest.raises(ValueError, match="extent"):
        ColourScale("x", "", domain)


def test_a_diverging_scale_must_have_white_at_zero() -> None:
    with pytest.raises(ValueError, match="symmetric"):
        ColourScale("x", "", (-1.0, 2.0), diverging=True)
    scale = drawn_scale(ColourScale("x", "", (-2.0, 2.0), diverging=True))
    assert scale["range"][scale["domain"].index(0.0)] == "#ffffff"


def drawn_scale(colours: ColourScale):
    spec = heatmap([Panel("a", "A", np.zeros((3, 3)))], ROWS, COLUMNS, colours)
    return spec["layer"][0]["layer"][0]["encoding"]["color"]["scale"]


def test_the_bar_names_its_marks_and_both_ends_without_crowding() -> None:
    ticks = bar_ticks(PROBABILITY)
    assert ticks[0] == 0.1
    assert ticks[-1] == 0.9
    assert np.diff(ticks).min() >= 0.2 * 0.8 - 1e-12
    near_end = ColourScale("x", "", (0.0, 1.0), marks=((0.95, "clean"),))
    assert bar_ticks(near_end) == [0.0, 0.2, 0.4, 0.6, 0.95]  # the mark is worth more than the end


@pytest.mark.parametrize(
    ("largest", "bound"),
    [(0.812, 0.82), (1.0, 1.0), (0.0, 1.0), (3.485, 3.5), (12345.0, 13000.0), (0.0101, 0.011)],
)
def test_symmetric_bounds_are_short_and_hold_the_largest_value(largest: float, bound: float) -> None:
    assert symmetric_bound(largest) == pytest.approx(bound, rel=1e-12)


@pytest.mark.parametrize(
    ("count", "step"), [(1, 1), (4, 1), (6, 1), (8, 1), (10, 1), (12, 2), (24, 5), (48, 10), (96, 20)]
)
def test_layers_are_thinned_to_round_numbers_and_short_axes_keep_all(count: int, step: int) -> None:
    assert thinning(count, len(str(count - 1))) == step


def test_rows_keep_their_labels_as_long_as_they_fit() -> None:
    assert [row_step(rows) for rows in (1, 44, 45, 200)] == [1, 1, 2, 5]


def test_the_text_alternative_tells_the_highest_cells_and_what_is_missing() -> None:
    said = describe([Panel("a", "first", VALUES)], ROWS, COLUMNS, PROBABILITY)
    assert "3 rows (token) by 3 columns (layer)" in said
    assert "first: highest 0.8 at 9 ·the, layer 1." in said
    assert "1 cells were not run." in said
