import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import mi_core
from mi_core.errors import InputError
from mi_core.model.spec import ModelSpec
from mi_core.provenance import Provenance, tokenizer_identity
from tests.disk import byte_level, unigram
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]


def example(**changes: object) -> Provenance:
    model = replace(tiny("llama"), tokenizer=byte_level(), spec=ModelSpec("org/m", "v1"), fingerprint="abc")
    return replace(Provenance.of(model, seed=3), **changes)


def test_it_says_what_ran() -> None:
    provenance = example()
    assert (provenance.model, provenance.revision, provenance.fingerprint) == ("org/m", "v1", "abc")
    assert (provenance.dtype, provenance.device, provenance.attention, provenance.seed) == (
        "float64",
        "cpu",
        "fast",
        3,
    )
    assert provenance.torch == torch.__version__
    assert provenance.created.endswith("+00:00")


def test_json_brings_it_back() -> None:
    for provenance in (example(), example(revision=None, seed=None)):
        assert Provenance.from_json(provenance.to_json()) == provenance
        assert Provenance.from_dict(asdict(provenance)) == provenance
        assert provenance.to_dict() == asdict(provenance)


def test_a_model_without_spec_or_tokenizer_still_has_one() -> None:
    provenance = Provenance.of(replace(tiny("gpt2"), spec=None, tokenizer=None))
    assert (provenance.model, provenance.tokenizer) == ("GPT2LMHeadModel", "none")


def test_tokenizers_are_told_apart_and_growth_is_seen() -> None:
    one, other = byte_level(), unigram.__wrapped__()
    assert tokenizer_identity(one) != tokenizer_identity(other)
    assert tokenizer_identity(one) == tokenizer_identity(one)
    before = tokenizer_identity(other)
    other.add_tokens(["<new>"])
    assert tokenizer_identity(other) != before
    assert f"{len(other):,} tokens" in tokenizer_identity(other)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        ("[" * 50_000, "it is not JSON"),
        ("[]", "it is not an object"),
        ('{"model": "x"}', "missing or unknown: ['attention', 'created'"),
        (json.dumps({**example().to_dict(), "more": 1}), "missing or unknown: ['more']"),
        (json.dumps({**example().to_dict(), "model": 5}), "model is 5"),
        (json.dumps({**example().to_dict(), "model": None}), "model is None"),
        (json.dumps({**example().to_dict(), "seed": True}), "seed is True"),
        (json.dumps({**example().to_dict(), "seed": "1"}), "seed is '1'"),
        (" " * 100_001, "it has more than 100,000 characters"),
    ],
    ids=lambda value: value[:30],
)
def test_what_we_did_not_write_is_refused(text: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        Provenance.from_json(text)
    assert str(caught.value).startswith("The provenance is damaged: ")
    assert why in str(caught.value)


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mi_core.__version__ == project["version"] == example().lantern_version
