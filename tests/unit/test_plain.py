from dataclasses import dataclass
from typing import Any, Literal

import pytest

from mi_core.analyses.plain import (
    check_choice,
    check_text,
    check_whole,
    damage_told,
    fits,
    inputs_from_dict,
    inputs_to_dict,
)
from mi_core.errors import InputError


@dataclass(frozen=True)
class Inner:
    name: str
    size: int = 1


@dataclass(frozen=True)
class Outer:
    prompt: str
    mode: Literal["a", "b"] = "a"
    level: float = 3.0
    count: int = 2
    on: bool = False
    words: tuple[str, ...] = ()
    span: tuple[int, int] | None = None
    parts: tuple[Inner, ...] = ()
    place: int | None = None


EVERYTHING = Outer("p", "b", 2.5, 7, True, ("x", "y"), (1, 4), (Inner("i", 3), Inner("j")), 5)


@pytest.mark.parametrize("inputs", [Outer("p"), EVERYTHING])
def test_inputs_come_back_as_they_were(inputs: Outer) -> None:
    import json

    plain = inputs_to_dict(inputs)
    back = inputs_from_dict(Outer, json.loads(json.dumps(plain)), "test")
    assert back == inputs
    assert hash(back) == hash(inputs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", 3),
        ("mode", "c"),
        ("level", "high"),
        ("level", float("nan")),
        ("level", True),
        ("count", 1.5),
        ("count", True),
        ("on", 1),
        ("words", "xy"),
        ("words", [1]),
        ("span", [1]),
        ("span", [1, 2, 3]),
        ("span", [1, "2"]),
        ("parts", [3]),
        ("place", "here"),
        ("place", [1]),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"The test's {field} cannot be"):
        inputs_from_dict(Outer, {"prompt": "p", field: value}, "test")


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(InputError, match=r"unknown fields \['colour'\]"):
        inputs_from_dict(Outer, {"prompt": "p", "colour": 1}, "test")
    with pytest.raises(InputError, match="has no prompt"):
        inputs_from_dict(Outer, {}, "test")
    with pytest.raises(InputError, match="inner's description has no name"):
        inputs_from_dict(Outer, {"prompt": "p", "parts": [{"size": 1}]}, "test")


def test_whole_numbers_are_floats_and_truth_values_are_no_numbers() -> None:
    assert fits(3, float)
    assert not fits(True, float)
    assert not fits(True, int)
    assert not fits(1, bool)
    assert not fits(1, Literal[True])
    assert fits(None, int | None)


def test_what_is_refused_is_told_with_its_choices() -> None:
    check_choice("mode", "a", ("a", "b"))
    with pytest.raises(InputError, match=r"mode is 'c'. Choose one of a, b"):
        check_choice("mode", "c", ("a", "b"))
    check_whole("layer", 3, 0, 3)
    for value in (4, -1, True, 2.0, "2"):
        with pytest.raises(InputError, match="Give a whole number from 0 to 3"):
            check_whole("layer", value, 0, 3)
    with pytest.raises(InputError, match=r"The prompt is empty. Type one."):
        check_text("prompt", "", 5, "Type one")
    with pytest.raises(InputError, match="more than 5 characters"):
        check_text("prompt", "abcdef", 5)
    with pytest.raises(InputError, match="no valid text"):
        check_text("prompt", "Paris \udcff", 50)


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), IndexError("x"), TypeError("x")])
def test_damage_is_one_error(error: Exception) -> None:
    with pytest.raises(InputError, match="The test record is damaged"), damage_told("test"):
        raise error
    with pytest.raises(ZeroDivisionError), damage_told("test"):
        _ = 1 / 0
