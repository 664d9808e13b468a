"""Names of features: saved, overruled, exported, imported; Neuronpedia's only from a server that is asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mi_core.errors import InputError, TranscoderError
from mi_core.transcoders import labels as book
from mi_core.transcoders.labels_neuronpedia import (
    Explanation,
    address,
    fetch_explanations,
    guess_source,
)


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_label_is_kept_replaced_and_taken_away():
    assert book.label_of("fp", 5, 102) == ""
    book.save_label("fp", 5, 102, "  capital\ncities ", transcoder="atlas-clt")
    book.save_label("fp", 0, 1, "the word the")
    assert book.label_of("fp", 5, 102) == "capital cities"
    assert book.labels_of("fp")["L5F102"].source == "you"
    assert book.labels_of("other weights") == {}
    book.save_label("fp", 5, 102, "capitals")
    assert book.label_of("fp", 5, 102) == "capitals"
    book.save_label("fp", 5, 102, "")
    assert set(book.labels_of("fp")) == {"L0F1"}


def test_the_transcoders_own_labels_are_overruled(tmp_path):
    theirs = book.export_labels("fp")
    values = json.loads(theirs) | {"labels": {"L1F2": "theirs", "L1F3": {"text": "lent", "source": "x"}}}
    (tmp_path / "labels.json").write_text(json.dumps(values), encoding="utf-8")
    book.save_label("fp", 1, 2, "mine")
    found = book.labels_of("fp", tmp_path)
    assert (found["L1F2"].text, found["L1F2"].source) == ("mine", "you")
    assert (found["L1F3"].text, found["L1F3"].source) == ("lent", "the transcoder")


def test_export_and_import_bring_the_same_labels():
    for layer, index, text in ((10, 2, "b"), (9, 30, "<script>"), (9, 4, "$x_1$ **bold**")):
        book.save_label("fp", layer, index, text)
    text = book.export_labels("fp", "atlas-clt")
    assert list(json.loads(text)["labels"]) == ["L9F4", "L9F30", "L10F2"], "in the order of layers"
    done = book.import_labels(text, "elsewhere")
    assert (done.taken, done.kept) == (3, 0)
    assert "other weights" in done.warnings[0]
    assert {k: v.text for k, v in book.labels_of("elsewhere").items()} == {
        k: v.text for k, v in book.labels_of("fp").items()
    }
    assert book.import_labels(text, "fp").warnings == ()


def test_an_import_does_not_replace_what_you_wrote_unless_asked():
    book.save_label("fp", 1, 2, "mine")
    values = json.loads(book.export_labels("fp"))
    values["labels"] = {"L1F2": "theirs", "L1F3": "new"}
    done = book.import_labels(json.dumps(values), "fp")
    assert (done.taken, done.kept, book.label_of("fp", 1, 2)) == (1, 1, "mine")
    done = book.import_labels(json.dumps(values), "fp", replace=True)
    assert (done.taken, done.kept, book.label_of("fp", 1, 2)) == (1, 0, "theirs")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no json", "not a JSON file"),
        (b'{"schema": "other", "version": 1}', "not a lantern/labels record"),
        (b'{"schema": "lantern/labels", "version": 1}', "damaged"),
        (b'{"schema": "lantern/labels", "version": 1, "labels": []}', "damaged"),
        (b'{"schema": "lantern/labels", "version": 1, "labels": {"nothing": "x"}}', "names no feature"),
        (b'{"schema": "lantern/labels", "version": 1, "labels": {"L1F2": 3}}', "damaged"),
    ],
)
def test_files_that_are_no_labels(data, said):
    with pytest.raises(InputError, match=said):
        book.import_labels(data, "fp")
    assert book.labels_of("fp") == {}


def test_a_long_label_is_refused_and_a_damaged_file_is_told():
    with pytest.raises(InputError, match="at most"):
        book.save_label("fp", 1, 2, "x" * 1000)
    book.save_label("fp", 1, 2, "mine")
    book.labels_file("fp").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="JSON"):
        book.labels_of("fp")


# --- Neuronpedia, on this machine ---


class Server(BaseHTTPRequestHandler):
    """Answers like Neuronpedia; remembers what was asked."""

    asked: list[str] = []  # noqa: RUF012  # one server per test

    def do_GET(self) -> None:
        """Explanations for every feature but 404."""
        Server.asked.append(self.path)
        self.send_response(404 if self.path.endswith("/404") else 500 if self.path.endswith("/500") else 200)
        self.end_headers()
        found = [
            {"description": " capital \n cities ", "explanationModelName": "a model"},
            {"description": ""},
            {"description": "places", "typeName": "a method"},
        ]
        answer = b"[1]" if self.path.endswith("/13") else json.dumps({"explanations": found}).encode()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_explanations_are_read(endpoint):
    url = address("gemma-2-2b", "{layer}-clt-hp", 5, 102, endpoint=endpoint)
    assert url == f"{endpoint}/api/feature/gemma-2-2b/5-clt-hp/102"
    assert fetch_explanations(url) == (
        Explanation("capital cities", "a model"),
        Explanation("places", "a method"),
    )
    assert Server.asked[-1] == "/api/feature/gemma-2-2b/5-clt-hp/102"


@pytest.mark.parametrize(("number", "kind"), [(404, "missing"), (500, "offline")])
def test_answers_that_are_none(endpoint, number, kind):
    with pytest.raises(TranscoderError) as told:
        fetch_explanations(address("m", "s", 0, number, endpoint=endpoint))
    assert told.value.kind == kind


def test_an_answer_of_another_kind_and_nobody_there(endpoint):
    with pytest.raises(InputError, match="damaged"):
        fetch_explanations(address("m", "s", 0, 13, endpoint=endpoint))
    with pytest.raises(TranscoderError, match="cannot be reached"):
        fetch_explanations(address("m", "s", 0, 1, endpoint="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("model", "source"), [("a/../b", "s"), ("m", "s?x=1"), ("", "s"), ("m", "{layer}/x")]
)
def test_names_that_would_change_the_address(model, source):
    with pytest.raises(InputError, match="of Neuronpedia"):
        address(model, source, 1, 2)


def test_known_transcoders_have_known_sources():
    assert guess_source("mntss/clt-gemma-2-2b-426k") == ("gemma-2-2b", "{layer}-clt-hp")
    assert guess_source("atlas-clt") == ("", "")


@pytest.mark.parametrize(
    "content",
    [
        "{nonsense", "[]", "null", '"x"', "\xff", '{"schema": "lantern/labels", "version": 1}',
        *(
            json.dumps({"schema": "lantern/labels", "version": 1, "labels": labels})
            for labels in (5, [], {"L0F1": 5}, {"L0F1": None}, {"L0F1": {}}, {"L0F1": []}, {"x": "y"},
                           {"L-1F2": "y"})
        ),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_nothing_of_it_is_taken(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"The labels in .*labels\.json. cannot be read") as found:
        book.labels_of("fp", tmp_path)
    assert "Mend the file" in str(found.value)
    with pytest.raises(InputError):
        book.import_labels(content.encode("latin-1"), "fp")
    assert book.labels_of("fp") == {}


def test_a_hostile_file_of_labels_is_cut_and_kept_as_text() -> None:
    labels = {"L0F1": "x" * 10_000, "L0F2": "<script>alert(1)</script>\x00\n\n", "L999F99999999": "far"}
    record = json.dumps({"schema": "lantern/labels", "version": 1, "labels": labels, "transcoder": "y" * 999})
    done = book.import_labels(record, "fp")
    assert done.taken == 3
    assert len(book.label_of("fp", 0, 1)) == book.MAX_LABEL
    assert done.warnings[0] == "1 label was longer than 500 characters, and cut there."
    assert len(done.warnings[1]) < 250
    assert "\n" not in book.label_of("fp", 0, 2)


@pytest.mark.parametrize("label", [5, None, [], {}, {"text": 5}, {"text": None}])
def test_a_label_that_is_no_text_is_named(label: object) -> None:
    record = json.dumps({"schema": "lantern/labels", "version": 1, "labels": {"L3F52": label}})
    with pytest.raises(InputError, match="the label of L3F52 is no text"):
        book.import_labels(record, "fp")
