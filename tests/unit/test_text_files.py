"""Uploaded texts: three formats, and everything that can be wrong with a file."""

import json
from typing import Any

import pytest

from mi_core.analyses.texts import MAX_TEXTS, Text, TextSet, digest_of
from mi_core.batch.texts import bundled_texts
from mi_core.errors import InputError
from mi_core.importers.text_files import MAX_FILE_BYTES, read_text_file


def test_paragraphs_of_plain_text():
    found = read_text_file("One.\nStill one.\r\n\r\n \n\nTwo 🎉\n\n\n".encode(), "notes.txt")
    assert found.texts == (Text("text", "One.\nStill one."), Text("text", "Two 🎉"))
    assert (found.name, found.categories) == ("notes.txt", ("text",))


def test_csv_with_and_without_kinds():
    found = read_text_file(b'category,text\ncode,"a, b"\nverse,c\n', "set.csv")
    assert found.texts == (Text("code", "a, b"), Text("verse", "c"))
    plain = read_text_file("\ufefftext;n\nMary gave;1\n".encode(), "set.csv")
    assert plain.texts == (Text("text", "Mary gave"),)


def test_json_of_strings_and_objects():
    rows = ["plain", {"text": "def f():", "category": "code"}, {"text": "no kind"}]
    found = read_text_file(json.dumps(rows).encode(), "set.json")
    assert found.texts == (Text("text", "plain"), Text("code", "def f():"), Text("text", "no kind"))


@pytest.mark.parametrize(
    ("data", "name", "told"),
    [
        (b"", "a.txt", "The file is empty"),
        (b" \n\n ", "a.txt", "The file is empty"),
        (b"\xff\xfe\x00", "a.txt", "not UTF-8"),
        (b"abc\x00def", "a.txt", "null character"),
        (b"x" * (MAX_FILE_BYTES + 1), "a.txt", "bytes"),
        (b"a" * 30_000, "a.txt", "Row 1: The text has more than 20,000 characters"),
        (b"{not json", "a.json", "not a JSON file"),
        (b'{"text": "a"}', "a.json", "not a list of texts"),
        (b"[]", "a.json", "not a list of texts"),
        (b"[NaN]", "a.json", "not a JSON file"),
        (b"[1]", "a.json", "Row 1: The text is not text"),
        (b'["", "b"]', "a.json", "Row 1: The text is empty"),
        (b'[{"category": "a"}]', "a.json", "Row 1 has no 'text'"),
        (b'[{"text": "a", "category": 5}]', "a.json", "Row 1: The category is not text"),
        (b'[{"text": "a", "category": ""}]', "a.json", "Row 1: The category is empty"),
        (b"[" * 100_000, "a.json", "nested|JSON"),
        (b"title\nabc\n", "a.csv", "Row 1 has no 'text'"),
        (b"text,category\nabc\n", "a.csv", "Row 1 has another number of cells"),
        (b'text\n"abc\n', "a.csv", "not CSV"),
        (b"text\n", "a.csv", "no rows"),
        (b"\n\n".join([b"a"] * (MAX_TEXTS + 1)), "a.txt", "more than 5,000 texts"),
        (json.dumps([{"text": "a", "category": f"k{i}"} for i in range(13)]).encode(), "a.json", "13 cat"),
    ],
)
def test_what_is_wrong_is_told(data, name, told):
    with pytest.raises(InputError, match=told):
        read_text_file(data, name)


def test_a_name_cannot_do_harm():
    found = read_text_file(b"abc", "../../etc/\u202epass\nwd<script>.txt")
    assert "/" not in found.name
    assert found.name.isprintable()


def test_sets_have_fingerprints():
    one, other = (Text("a", "x"),), (Text("b", "x"),)
    assert digest_of(one) == TextSet("n", one).digest != digest_of(other)


def test_the_command_line_reads_the_same_files(tmp_path):
    from mi_core.cli_table import ANALYSES
    from mi_core.cli_texts import text_set

    file = tmp_path / "mine.txt"
    file.write_text("One.\n\nTwo.", encoding="utf-8")
    model: Any = None  # not asked for
    assert text_set(model, {"limit": 5}, str(file)) == (Text("text", "One."), Text("text", "Two."))
    assert text_set(model, {"limit": 1}, str(file)) == (Text("text", "One."),)
    assert text_set(model, {"limit": 7}, "diverse") == bundled_texts().texts[:7]
    with pytest.raises(InputError, match="cannot be read"):
        text_set(model, {"limit": 5}, str(tmp_path / "missing.txt"))
    for command in ("neurons", "neuron"):
        assert ANALYSES[command].text_fields["texts"][0] is text_set
