"""The features files that come with Atlas' transcoder: of these weights, small, readable, and true."""

import numpy as np
import pytest

from mi_core import load_model
from mi_core.transcoders import active_features, load_transcoder
from mi_core.transcoders.corpus_density import ASSETS, densities, summary_of
from mi_core.transcoders.feature_files import LocalPlace, open_feature_files
from mi_core.transcoders.names import FeatureAt
from tests.corpus_oracle import Viewer, pair

FOLDER = ASSETS / "atlas" / "transcoders" / "atlas-clt" / "features"
LIMIT = 15_000_000


@pytest.fixture(autouse=True)
def _own_data(tmp_path, monkeypatch):
    """No files of the user's own come first."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def model():
    return load_model("atlas")


def test_they_are_of_these_weights_and_small(model):
    transcoder, size = load_transcoder(model), sum(file.stat().st_size for file in FOLDER.iterdir())
    summary = summary_of(transcoder)
    assert summary is not None
    assert summary.fingerprint == transcoder.fingerprint
    assert summary.n_tokens > 250_000
    assert size < LIMIT
    known = densities(model)
    assert known is not None
    assert {layer: len(values) for layer, values in known.items()} == dict(transcoder.n_features)


def test_the_viewer_and_the_reader_agree():
    viewer, files = Viewer(FOLDER), open_feature_files(LocalPlace(FOLDER))
    assert files is not None
    for layer, where in files.layers.items():
        for index in (0, 511, where.n_features - 1):
            card, record = viewer.load(pair(layer, index)), files.record(layer, index)
            assert record is not None
            assert card["activation_frequency"] == record.density
            assert card["act_max"] == pytest.approx(record.largest)
            assert len(card["examples_quantiles"]) == len(record.groups)


def test_examples_are_what_the_model_does(model):
    """Whole documents that are stored as the strongest example, read again as prompts."""
    transcoder, files = load_transcoder(model), open_feature_files(LocalPlace(FOLDER))
    assert files is not None
    compared = 0
    for layer in transcoder.layers:
        for index in range(100, 120):
            record = files.record(layer, index)
            assert record is not None
            if record.dead:
                continue
            example = record.groups[0].examples[0]
            text = "".join(example.tokens)
            ids = model.tokenizer(text)["input_ids"]
            if "\\x" in text or len(ids) != len(example.tokens) + 1 or not text.endswith("."):
                continue  # not a whole document of plain characters
            found = active_features(model, transcoder, ids)
            values = [found.value(FeatureAt(layer, index, at + 1)) for at in range(len(example.tokens))]
            np.testing.assert_allclose(values, example.activations, rtol=2e-3, atol=1e-4)
            compared += 1
    assert compared > 40
