"""Prompt sets from files: the layouts that exist, and files that nobody should send."""

import json
from pathlib import Path

import pytest

from mi_core.analyses import Case
from mi_core.analyses.cases import PromptSet
from mi_core.batch.prompt_sets import FACTS, bundled_facts
from mi_core.errors import InputError
from mi_core.importers.prompt_files import read_prompt_file

ROME = {
    "known_id": 0,
    "subject": "Vinson Massif",
    "attribute": "Antarctica",
    "template": "{} is located in the continent",
    "prediction": " of Antarctica",
    "prompt": "Vinson Massif is located in the continent of",
    "relation_id": "P30",
}
PAIR = {
    "original_prompt": "IBM 704 is a product of",
    "counterfactual_prompt": "Suzuki Carry is a product of",
    "gt_original_target": "IBM",
    "gt_counterfactual_target": "Suzuki",
}
PLAIN = {"prompt": "The capital of France is", "subject": "France", "answer": "Paris"}


def as_json(*rows: object) -> bytes:
    return json.dumps(list(rows)).encode()


def test_romes_known_facts():
    (case,) = read_prompt_file(as_json(ROME), "known_1000.json").cases
    assert case == Case(ROME["prompt"], "Vinson Massif", "Antarctica", name="0", relation="P30")


def test_counterfact_pairs():
    read = read_prompt_file(as_json(PAIR), "pairs.json")
    assert read.cases[0] == Case(PAIR["original_prompt"], "", "IBM", PAIR["counterfactual_prompt"], "Suzuki")
    assert read.has_pairs
    assert read.note == "CounterFact pairs, 1 rows"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_plain_csv(delimiter, start):
    lines = [delimiter.join(["prompt", "subject", "answer"]), delimiter.join(PLAIN.values()), ""]
    (case,) = read_prompt_file((start + "\r\n".join(lines)).encode(), "x.csv").cases
    assert case == Case("The capital of France is", "France", "Paris")


def test_csv_cells_may_hold_commas_quotes_and_line_breaks():
    text = 'prompt,subject,answer\n"He said, ""France""\nis",France,Paris\n'
    (case,) = read_prompt_file(text.encode()).cases
    assert case.prompt == 'He said, "France"\nis'


def test_csv_with_romes_columns():
    text = "known_id,subject,attribute,prompt,relation_id\n7,Rome,Italy,Rome is in,P17\n"
    assert read_prompt_file(text.encode(), "rome.csv").cases[0] == Case(
        "Rome is in", "Rome", "Italy", name="7", relation="P17"
    )


def test_json_without_a_telling_name_is_seen_by_its_bracket():
    assert len(read_prompt_file(b"\n " + as_json(PLAIN, PLAIN)).cases) == 2


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "x.json", "empty"),
        (b"\xff\xfe[\x00]\x00", "x.json", "not UTF-8"),
        ('[{"prompt": "caf\u00e9"}]'.encode("latin-1"), "x.json", "not UTF-8"),
        (b"[{}\0]", "x.json", "null character"),
        (b"{", "x.json", "not a JSON file"),
        (b"[]", "x.json", "not a list of prompts"),
        (b'{"prompt": "a"}', "x.json", "not a list of prompts"),
        (b"[1]", "x.json", "Row 1 is not an object"),
        (b'[{"prompt": NaN}]', "x.json", "NaN is not JSON"),
        (b"[" * 200_000, "x.json", "nested too deeply"),
        (as_json({"a": 1}), "x.json", "columns are not known.*original_prompt"),
        (
            as_json(PLAIN, {**PLAIN, "subject": "Rome"}),
            "x.json",
            "Row 2, column 'subject': 'Rome' is not in the prompt",
        ),
        (as_json(PLAIN, {"prompt": "a"}), "x.json", "Row 2 has no 'subject'"),
        (as_json({**PLAIN, "answer": ["Paris"]}), "x.json", "Row 1, column 'answer' is not text"),
        (as_json({**PLAIN, "answer": None}), "x.json", "Row 1, column 'answer' is not text"),
        (as_json({**PLAIN, "answer": " "}), "x.json", "Row 1, column 'answer' is empty"),
        (
            as_json({**PLAIN, "prompt": "France" * 5000}),
            "x.json",
            "Row 1, column 'prompt' has more than 10,000",
        ),
        (as_json({**PLAIN, "name": {"a": 1}}), "x.json", "Row 1, column 'name' is not text"),
        (as_json({**ROME, "known_id": True}), "x.json", "Row 1, column 'known_id' is not text"),
        (b"prompt,subject,answer\n", "x.csv", "no rows"),
        (b"prompt,subject,answer\na,a\n", "x.csv", "Row 1 has fewer cells"),
        (b"prompt,subject,answer\na,a,b,c\n", "x.csv", "Row 1 has more cells"),
        (b"prompt,prompt,answer\na,a,b\n", "x.csv", "same name"),
        (b'prompt,subject,answer\na,a,"b\n', "x.csv", "is not CSV"),
        (b"prompt,subject,answer\na,a," + b"b" * 200_000 + b"\n", "x.csv", "is not CSV|more than 10,000"),
        (b"MZ\x90not a csv", "x.csv", "not UTF-8"),
        (b"hello", "x.csv", "no rows"),
    ],
)
def test_files_that_cannot_be_used_are_one_sentence(data, name, message):
    with pytest.raises(InputError, match=message) as caught:
        read_prompt_file(data, name)
    assert len(str(caught.value)) < 700


def test_size_and_rows_are_limited(monkeypatch):
    with pytest.raises(InputError, match="at most 10,000,000"):
        read_prompt_file(b"[" + b" " * 10_000_001)
    monkeypatch.setattr("mi_core.importers.prompt_files.MAX_ROWS", 2)
    for data in (as_json(PLAIN, PLAIN, PLAIN), b"prompt,subject,answer\na,a,b\na,a,b\na,a,b\n"):
        with pytest.raises(InputError, match="more than 2 rows"):
            read_prompt_file(data)


def test_a_hostile_file_name_is_only_a_name():
    assert read_prompt_file(as_json(PLAIN), "../../etc/\x1b[31mpass\nwd.json").name == "[31mpasswd.json"
    assert len(read_prompt_file(as_json(PLAIN), "x" * 1000 + ".json").name) == 80


def test_a_sample_is_even_over_relations_seeded_and_in_order():
    cases = tuple(
        Case("a b", "a", "c", name=str(i), relation="big" if i < 90 else "small") for i in range(100)
    )
    drawn = PromptSet("x", cases).sample(12, seed=1)
    assert [case.relation for case in drawn.cases].count("small") == 6
    assert [int(case.name) for case in drawn.cases] == sorted(int(case.name) for case in drawn.cases)
    assert drawn == PromptSet("x", cases).sample(12, seed=1)
    assert drawn != PromptSet("x", cases).sample(12, seed=2)
    assert PromptSet("x", cases).sample(1000).cases == cases
    assert len(PromptSet("x", cases).only(("small",)).cases) == 10
    assert PromptSet("x", cases).relations == ("big", "small")
    with pytest.raises(InputError, match="empty"):
        PromptSet("x", cases).only(("none",))


@pytest.mark.parametrize(
    "change", [{"prompt": ""}, {"answer": "  "}, {"prompt": 3}, {"relation": None}, {"subject": "x" * 20_000}]
)
def test_a_case_is_text(change):
    with pytest.raises(InputError):
        Case(**{**PLAIN, **change})


@pytest.mark.skipif(not FACTS.is_file(), reason="assets/atlas/facts.json is made by tools/train_atlas.py")
def test_the_bundled_facts_can_be_read():
    facts = bundled_facts()
    assert len(facts.cases) >= 800
    assert all(case.subject in case.prompt and case.relation for case in facts.cases)
    assert len(facts.relations) > 5


def test_missing_bundled_facts_are_told(monkeypatch):
    monkeypatch.setattr("mi_core.batch.prompt_sets.FACTS", Path("/nowhere/facts.json"))
    bundled_facts.cache_clear()
    with pytest.raises(InputError, match="bundled facts are missing"):
        bundled_facts()


SHARED = Path("/work/shared/data/candle_mi/counterfact/counterfact_transluce_test_both_correct.json")


@pytest.mark.conformance
@pytest.mark.skipif(not SHARED.is_file(), reason="candle-mi's published files are not on this machine")
def test_candle_mis_counterfact_file():
    read = read_prompt_file(SHARED.read_bytes(), SHARED.name)
    assert (len(read.cases), read.has_pairs) == (89, True)
    assert (read.cases[1].answer, read.cases[1].corrupted_answer) == ("Chennai", "Milan")
