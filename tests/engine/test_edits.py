"""Edits: text form, selection, operations."""

import pytest
import torch

from mi_core.engine import Edit, format_edit, parse_edit, run
from mi_core.errors import EditError, LanternError
from tests.tiny import tiny, tokens

TEXTS = [
    "L5H2:zero",
    "L5H2@3,4:scale=0.5",
    "L4attn:zero",
    "L4mlp@7:zero",
    "L4R@7:zero",
    "L3N102:0",
    "L3N102@1:-2.5",
    "e14-2@L5H2",
    "e14-2@L5",
    "L0mlp:scale=2",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_form_survives_a_round_trip(text: str) -> None:
    assert format_edit(parse_edit(text)) == text


def test_text_form_means_what_the_table_says() -> None:
    edit = parse_edit("e14-2@L5H2")
    assert (edit.site, edit.layer, edit.operation, edit.positions, edit.heads, edit.keys) == (
        "pattern",
        5,
        "mask",
        (14,),
        (2,),
        (2,),
    )
    edit = parse_edit("L3N102:0")
    assert (edit.site, edit.layer, edit.operation, edit.units, edit.value) == (
        "mlp_post",
        3,
        "set",
        (102,),
        0.0,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "L5",
        "L5H2",
        "L5H2:",
        "L5H2:boom",
        "L5H2:zero1",
        "e1-2",
        "<script>",
        "L5H2@:zero",
        "L5H2:zero; rm",
        "L" + "9" * 5000,
    ],
)
def test_other_texts_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(EditError) as caught:
        parse_edit(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"site": "z", "layer": 0, "operation": "mask"}, "Only attention edges"),
        ({"site": "z", "layer": 0, "operation": "set"}, "needs a value"),
        ({"site": "z", "layer": 0, "operation": "zero", "keys": (1,)}, "Keys can only"),
        ({"site": "pattern", "layer": 0, "operation": "zero", "units": (1,)}, "no units"),
        ({"site": "mlp_out", "layer": 0, "operation": "zero", "heads": (1,)}, "has no heads"),
        ({"site": "mlp_out", "operation": "zero"}, "needs layer"),
        ({"site": "logits", "layer": 0, "operation": "zero"}, "takes no layer"),
        ({"site": "mlp_out", "layer": 0, "operation": "clamp", "value": 1.0}, "clamp"),
        ({"site": "nowhere", "operation": "zero"}, "no site called"),
    ],
)
def test_edits_that_make_no_sense_are_refused(kwargs: dict, match: str) -> None:
    with pytest.raises(LanternError, match=match):
        Edit(**kwargs)


def test_operations_do_what_they_say() -> None:
    model, ids = tiny("llama"), tokens(1, 6)
    place = ("mlp_post", 2)
    old = run(model, ids, capture=[place])[place]
    cases = {
        "set": (0.5, torch.full_like(old, 0.5)),
        "add": (0.5, old + 0.5),
        "scale": (-2.0, -2 * old),
        "zero": (None, 0 * old),
        "mean": (0.25, torch.full_like(old, 0.25)),
        "clamp": ((-0.1, 0.2), old.clamp(-0.1, 0.2)),
    }
    for operation, (value, want) in cases.items():
        got = run(
            model,
            ids,
            capture=[place],
            edits=[
                Edit(
                    *place,
                    operation=operation,  # type: ignore[arg-type]  # the table's keys are operations
                    positions=(1, -1),
                    units=(0, 63),
                    value=value,
                )
            ],
        )[place]
        expected = old.clone()
        for position in (1, 5):
            for unit in (0, 63):
                expected[0, position, unit] = want[0, position, unit]
        torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_square_values_follow_rows_heads_queries_keys() -> None:
    model, ids = tiny("llama"), tokens(2, 6)
    value = torch.rand(2, 2, 2, 3, dtype=torch.float64)
    edit = Edit("pattern", 1, "set", (2, 5), (0, 3), keys=(0, 1, 2), value=value)
    got = run(model, ids, capture=[("pattern", 1)], edits=[edit])["pattern", 1]
    for row in range(2):
        for i, head in enumerate((0, 3)):
            for j, query in enumerate((2, 5)):
                torch.testing.assert_close(got[row, head, query, :3], value[row, i, j])


def test_wrong_value_shapes_are_refused() -> None:
    model, ids = tiny("llama"), tokens(1, 6)
    bad = [
        Edit("z", 0, "set", value=torch.zeros(3)),
        Edit("mlp_out", 0, "set", (1, 2), value=torch.zeros(3, 32)),
        Edit("mlp_out", 0, "set", value=torch.zeros(1, 1, 6, 32)),
        Edit("pattern", 0, "set", (1,), value=torch.zeros(2, 6)),
    ]
    for edit in bad:
        with pytest.raises(EditError, match="does not broadcast"):
            run(model, ids, edits=[edit])
    with pytest.raises(EditError, match="selected twice"):
        run(model, ids, edits=[Edit("z", 0, "zero", (1, -5))])
