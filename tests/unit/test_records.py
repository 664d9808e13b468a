"""Arrays and records as JSON."""

import json

import numpy as np
import pytest

from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (0, 3), (2, 0)])
def test_arrays_come_back_exactly(dtype, shape):
    array = (
        (np.random.default_rng(0).standard_normal(shape) * 1e-3).astype(dtype)
        if shape
        else np.array(1).astype(dtype)
    )
    text = json.dumps(encode_array(array), allow_nan=False)
    np.testing.assert_array_equal(decode_array(json.loads(text), dtype, shape, "x"), array)


def test_float32_is_written_short():
    assert json.dumps(encode_array(np.array([0.1], np.float32))) == "[0.1]" or len(
        json.dumps(encode_array(np.array([0.1], np.float32)))
    ) <= len("[0.100000001]")


def test_nan_and_infinity_are_null():
    array = np.array([1.0, np.nan, np.inf])
    assert encode_array(array) == [1.0, None, None]
    np.testing.assert_array_equal(decode_array([1.0, None], "float64", (2,), "x"), [1.0, np.nan])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ([[1], [1, 2]], "float64"),
        (["a"], "float64"),
        ([None], "int64"),
        ({"a": 1}, "float64"),
        ([2**80], "int64"),
    ],
)
def test_what_is_no_array_is_refused(value, dtype):
    with pytest.raises(InputError, match="numbers"):
        decode_array(value, dtype, (2,), "numbers")


def test_another_shape_is_refused_with_both_shapes():
    with pytest.raises(InputError, match=r"\(3,\).*\(2,\)"):
        decode_array([1, 2, 3], "float64", (2,), "numbers")


def test_records_name_their_schema():
    text = dump_record("lantern/x", 2, {"a": 1})
    assert load_record(text, "lantern/x", 2) == {"schema": "lantern/x", "version": 2, "a": 1}
    assert load_record(dump_record("lantern/x", 1, {}), "lantern/x", 2)["version"] == 1


def test_nan_cannot_be_written():
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_record("lantern/x", 1, {"a": float("nan")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ('{"schema": "lantern/x", "version": 1, "a": NaN}', "NaN"),
        ('{"schema": "other/x", "version": 1}', "not a lantern/x record"),
        ("[]", "not a lantern/x record"),
        ('{"schema": "lantern/x", "version": 9}', "newer Lantern"),
        ('{"schema": "lantern/x", "version": "1"}', "version"),
        ("[" * 100_000, "not a JSON file"),
        (b"\xff\xfe\x00", "not a JSON file"),
    ],
)
def test_other_files_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        load_record(text, "lantern/x", 1)


def test_a_file_of_gigabytes_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr("mi_core.analyses.records.MAX_RECORD_BYTES", 10)
    with pytest.raises(InputError, match="larger"):
        load_record('{"schema": "lantern/x"}', "lantern/x", 1)
