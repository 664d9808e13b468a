"""Tasks: single tokens, roles where they are said to be, unseen pairs, counterfactuals, uploads."""

import sys
from pathlib import Path
from typing import Any

import pytest

from mi_core import load_model
from mi_core.analyses import PairText
from mi_core.analyses.tasks import (
    GENERATORS,
    Task,
    TaskPair,
    greater_than_task,
    induction_task,
    ioi_task,
    subject_verb_task,
)
from mi_core.analyses.tasks_ioi import NAMES, is_unseen
from mi_core.analyses.tasks_uploaded import uploaded_task
from mi_core.errors import InputError
from mi_core.importers.pair_files import read_pair_file
from tests.task_models import gpt2_like
from tests.words import word_tokenizer

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def tokenizers() -> dict[str, Any]:
    return {"gpt2-like": gpt2_like(), "atlas": load_model("atlas").tokenizer}


def test_the_same_rule_as_in_training_tells_unseen_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from atlas_lines import pair_is_held_out  # pyright: ignore[reportMissingImports]

    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]
    assert [is_unseen(*pair) for pair in pairs] == [pair_is_held_out(*pair) for pair in pairs]
    assert sum(is_unseen(*pair) for pair in pairs) > 400
    sys.modules.pop("atlas_lines", None)


@pytest.mark.parametrize("which", ["gpt2-like", "atlas"])
@pytest.mark.parametrize("order", ["both", "ABBA", "BABA"])
def test_indirect_objects_have_their_names_where_they_say(which: str, order: str) -> None:
    tokenizer = tokenizers()[which]
    task = ioi_task(tokenizer, 24, 3, templates=order)  # type: ignore[arg-type]
    assert len(task) == 24
    assert task.role_names == ("IO", "S1", "S2") or order == "BABA"
    assert {pair.template.split()[1] for pair in task.pairs} == (
        {"ABBA", "BABA"} if order == "both" else {order}
    )
    for pair in task.pairs:
        said = {role: tokenizer.decode([pair.ids[place]]) for role, place in pair.roles}
        assert said["IO"] == pair.answer
        assert said["S1"] == said["S2"] == pair.wrong
        assert (pair.position("IO") < pair.position("S1")) == pair.template.endswith("ABBA")
        assert pair.position("S1") < pair.position("S2") < pair.position("end") == len(pair.ids) - 1
        assert tokenizer.decode([pair.answer_id]) == pair.answer
        others = {tokenizer.decode([pair.counterfactual_ids[pair.position(r)]]) for r in ("IO", "S1", "S2")}
        assert len(others | {pair.answer, pair.wrong}) == 5  # ABC: three others
        changed = {
            i for i, (a, b) in enumerate(zip(pair.ids, pair.counterfactual_ids, strict=True)) if a != b
        }
        assert changed == {pair.position(role) for role in ("IO", "S1", "S2")}


def test_atlas_gets_only_pairs_that_its_training_left_out() -> None:
    task = ioi_task(load_model("atlas").tokenizer, 100, 1)
    assert all(is_unseen(pair.answer.strip(), pair.wrong.strip()) for pair in task.pairs)
    assert "unseen" in task.note
    assert "101 names" in task.note


def test_the_same_seed_is_the_same_task_and_another_is_not() -> None:
    for name, draw in GENERATORS.items():
        assert draw(gpt2_like(), 6, 5) == draw(gpt2_like(), 6, 5), name
        assert draw(gpt2_like(), 6, 5) != draw(gpt2_like(), 6, 6), name


def test_years_are_later_and_earlier_and_equally_far() -> None:
    for pair in greater_than_task(gpt2_like(), 40, 0).pairs:
        start = int(gpt2_like().decode([pair.ids[pair.position("year")]]))
        assert int(pair.answer) > start > int(pair.wrong)
        assert int(pair.answer) - start == start - int(pair.wrong)
        assert gpt2_like().decode([pair.counterfactual_ids[pair.position("year")]]) == "01"
        assert gpt2_like().decode([pair.ids[pair.position("century")]]) == gpt2_like().decode([pair.ids[-1]])


def test_years_of_another_split_are_refused() -> None:
    with pytest.raises(InputError, match="two tokens of two digits"):
        greater_than_task(gpt2_like(years=False), 4, 0)


def test_induction_repeats_and_its_counterfactual_does_not() -> None:
    for pair in induction_task(gpt2_like(), 10, 0).pairs:
        before, answer = pair.position("before"), pair.position("answer")
        assert pair.ids[before] == pair.ids[-1]
        assert pair.ids[answer] == pair.answer_id
        assert answer == before + 1
        assert pair.wrong_id in pair.ids[: len(pair.ids) // 2 + 4]
        assert pair.counterfactual_ids[-1] == pair.ids[-1]
        assert len(set(pair.counterfactual_ids)) == len(pair.ids)  # nothing twice


def test_a_verb_agrees_with_its_subject_and_not_with_the_attractor() -> None:
    task, tokenizer = subject_verb_task(gpt2_like(), 20, 0), gpt2_like()
    plural = {" are", " were", " have"}
    for pair in task.pairs:
        subject = tokenizer.decode([pair.ids[pair.position("subject")]])
        attractor = tokenizer.decode([pair.ids[pair.position("attractor")]])
        assert subject.endswith("s") == (pair.answer in plural) != (pair.wrong in plural)
        assert attractor.endswith("s") != subject.endswith("s")


def test_groups_have_one_template_one_length_and_every_pair_once() -> None:
    task = ioi_task(gpt2_like(), 24, 3)
    groups = task.groups()
    assert sorted(index for group in groups for index in group) == list(range(24))
    for group in groups:
        assert (
            len({(task.pairs[i].template, len(task.pairs[i].ids), task.pairs[i].roles) for i in group}) == 1
        )


def test_a_tokenizer_without_names_is_told() -> None:
    with pytest.raises(InputError, match="5 names, a place and a thing are needed"):
        ioi_task(word_tokenizer(), 4, 0)  # knows Mary and John only
    with pytest.raises(InputError, match="4 names"):
        ioi_task(gpt2_like(names=4), 4, 0)
    with pytest.raises(InputError, match="nouns are single tokens"):
        subject_verb_task(word_tokenizer(), 4, 0)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_without_a_tokenizer_there_is_no_task(name: str) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        GENERATORS[name](None, 4, 0)


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (2000, 0), (True, 0), (4, -1)])
def test_impossible_numbers_are_refused(n: int, seed: int) -> None:
    with pytest.raises(InputError, match="whole number"):
        ioi_task(gpt2_like(), n, seed)


def test_a_pair_of_unequal_lengths_or_equal_answers_is_refused() -> None:
    with pytest.raises(InputError, match="different numbers of tokens"):
        TaskPair("a", "b c", "x", "y", (("end", 0),), "t", (1,), (2, 3), 4, 5)
    with pytest.raises(InputError, match="same token"):
        TaskPair("a", "b", "x", "x", (("end", 0),), "t", (1,), (2,), 4, 4)
    with pytest.raises(InputError, match="no prompts"):
        Task("ioi", ())


# --- uploaded pairs ---

GOOD = PairText("Mary and John went to the store John gave a drink to", "He and she", " Mary", " John")


def test_uploaded_pairs_are_resolved_and_roles_found() -> None:
    text = PairText(
        "When Mary and John went to the store John gave a drink to",
        "When she and he went to the store it gave a drink to",
        "Mary", "John", (("IO", "Mary"), ("S1", "John"), ("S2", "John#2")),
    )  # fmt: skip
    tokenizer = word_tokenizer(bos=True)
    pair = uploaded_task(tokenizer, [text]).pairs[0]
    assert dict(pair.roles) == {"IO": 2, "S1": 4, "S2": 9, "end": 13}
    assert pair.answer_id == tokenizer.convert_tokens_to_ids("▁Mary")
    assert len(pair.ids) == 14  # the BOS token included


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counterfactual": "When she went to"}, "Pair 1: prompt and counterfactual"),
        ({"answer": "Mary John"}, "Pair 1: 'Mary John' is not one token"),
        ({"answer": "nonsense"}, "Pair 1: 'nonsense' is not one token"),
        ({"wrong": "Mary"}, "Pair 1: the right and the wrong answer are the same"),
        ({"roles": (("IO", "Paris"),)}, "Pair 1: the role 'IO'"),
        ({"roles": (("IO", "Mary#2"),)}, "Pair 1: the role 'IO'"),
    ],
)
def test_an_uploaded_pair_that_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "prompt": "When Mary and John went to", "counterfactual": "When she and he went to",
        "answer": "Mary", "wrong": "John",
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        uploaded_task(word_tokenizer(), [PairText(**{**fields, **change})])  # type: ignore[arg-type]


def test_pair_files_are_read_row_by_row() -> None:
    csv = b'prompt,counterfactual,answer,wrong,roles\nA b,C d,x,y,"IO=A; S1=b"\n'
    assert read_pair_file(csv, "pairs.csv") == (PairText("A b", "C d", "x", "y", (("IO", "A"), ("S1", "b"))),)
    json = b'[{"prompt": "A b", "counterfactual": "C d", "answer": "x", "wrong": "y"}]'
    assert read_pair_file(json) == (PairText("A b", "C d", "x", "y"),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"prompt,answer\na,b\n", "no column 'counterfactual'"),
        (b"prompt,counterfactual,answer,wrong\na,b,,d\n", "Row 1, column 'answer'"),
        (b"prompt,counterfactual,answer,wrong,roles\na,b,c,d,IO\n", "Row 1: the role 'IO' is not written"),
        (b'[{"prompt": 1, "counterfactual": "a", "answer": "b", "wrong": "c"}]', "Row 1, column 'prompt'"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "empty"),
    ],
)
def test_a_pair_file_that_does_not_fit_is_told(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pair_file(data)
