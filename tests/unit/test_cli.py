import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mi_core
from mi_core.analyses import (
    CausalTraceAverageResult,
    CausalTraceInputs,
    CausalTraceResult,
    causal_trace,
    causal_trace_average,
)
from mi_core.cli import Progress, main
from mi_core.cli_options import options_of
from mi_core.cli_table import ANALYSES
from mi_core.cli_texts import subject_span
from mi_core.engine import run
from mi_core.engine.holder import load_model
from mi_core.errors import Cancelled, InputError
from mi_core.tokens import find_span, tokenize
from tests.disk import save_model

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "The Space Needle is in downtown"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("cli") / "m")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def trace(folder: Path, *more: str) -> list[str]:
    return ["causal-trace", "--model", str(folder), "--prompt", PROMPT, *more]


def test_a_trace_from_the_command_line_is_the_trace_of_the_library(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    assert (
        main(
            trace(
                folder, "--subject", "Space Needle", "--samples", "2", "--seed", "7", "--output", str(output)
            )
        )
        == 0
    )
    written = CausalTraceResult.from_json(output.read_text(encoding="utf-8"))
    model = load_model(str(folder))
    subject = find_span(tokenize(model.tokenizer, PROMPT), "Space Needle")
    inputs = CausalTraceInputs(PROMPT, subject=subject, samples=2, seed=7)
    expected = causal_trace(model, inputs)
    assert written.inputs == inputs
    for kind in inputs.kinds:
        assert (written.grid(kind, "probability") == expected.grid(kind, "probability")).all()
    assert written.provenance is not None
    assert written.provenance.fingerprint == model.fingerprint
    assert list(tmp_path.iterdir()) == [output]


def test_an_average_from_a_prompt_file_equals_the_librarys(folder: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "prompts.csv", tmp_path / "average.json"
    model = load_model(str(folder))
    prompt = tokenize(model.tokenizer, PROMPT)
    answer = model.tokenizer.decode([int(run(model, torch.tensor([prompt.ids])).logits[0, -1].argmax())])
    file.write_text(f"prompt,subject,answer\n{PROMPT},Space Needle,{answer}\n", encoding="utf-8")
    arguments = ["--model", str(folder), "--cases", str(file), "--samples", "2", "--output", str(output)]
    assert main(["causal-trace-average", *arguments]) == 0
    written = CausalTraceAverageResult.from_json(output.read_text(encoding="utf-8"))
    expected = causal_trace_average(model, written.inputs)
    assert [case.prompt for case in written.inputs.cases] == [PROMPT]
    for kind in written.inputs.kinds:
        assert np.array_equal(written.sums[kind], expected.sums[kind])


def test_a_prompt_file_that_is_not_there_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(
        capsys, "causal-trace-average", "--model", str(folder), "--cases", "/nowhere/prompts.csv"
    )
    assert code == 2
    assert err.splitlines()[-1].endswith("'/nowhere/prompts.csv' cannot be read: No such file or directory.")


def test_the_result_goes_to_standard_output_and_the_rest_does_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *trace(folder, "--subject", "1:3", "--samples", "1", "--kinds", "state"))
    assert code == 0
    assert json.loads(out)["schema"] == "lantern/causal_trace"
    assert json.loads(out)["inputs"]["subject"] == [1, 3]
    assert err.startswith("find ")
    assert "\nrun " in err
    assert "\nwarning: " in err  # random weights: the corruption hardly matters


def test_every_field_of_the_inputs_is_an_option() -> None:
    names = {field.name for field in dataclasses.fields(options_of(ANALYSES["causal-trace"]))}
    assert {field.name for field in dataclasses.fields(CausalTraceInputs)} | {"output", "occurrence"} == names


def test_all_options_arrive(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    arguments = trace(
        folder,
        "--corrupted-prompt",
        "the Space Needle is in downtown",
        "--direction",
        "noising",
        "--kinds",
        "state",
        "head",
        "--window",
        "2",
        "--window-convention",
        "paper",
        "--head-position",
        "2",
        "--answer",
        "Paris",
        "--distractor",
        "the",
        "--bos",
        "always",
        "--positions",
        "1",
        "2",
        "--noise",
        "uniform",
        "--noise-level",
        "1.5",
        "--noise-unit",
        "absolute",
        "--sigma-subjects",
        "Paris",
        "the cat",
        "--dtype",
        "float64",
        "--device",
        "cpu",
        "--attention",
        "eager",
        "--output",
        str(output),
    )
    assert main(arguments) == 0
    inputs = CausalTraceResult.from_json(output.read_text(encoding="utf-8")).inputs
    assert inputs == CausalTraceInputs(
        PROMPT,
        "the Space Needle is in downtown",
        direction="noising",
        kinds=("state", "head"),
        window=2,
        window_convention="paper",
        head_position=2,
        answer="Paris",
        distractor="the",
        bos="always",
        positions=(1, 2),
        noise="uniform",
        noise_level=1.5,
        noise_unit="absolute",
        sigma_subjects=("Paris", "the cat"),
    )
    provenance = json.loads(output.read_text(encoding="utf-8"))["provenance"]
    assert (provenance["dtype"], provenance["attention"]) == ("float64", "eager")


@pytest.mark.parametrize(
    ("text", "occurrence", "span_of"),
    [("the", 0, "the"), ("the", 2, "the"), ("2:3", 0, None), ("0:1", 0, None)],
)
def test_a_subject_is_words_or_a_span(folder: Path, text: str, occurrence: int, span_of: str | None) -> None:
    model = load_model(str(folder))
    options = {"prompt": "the the the", "bos": "auto", "occurrence": occurrence}
    prompt = tokenize(model.tokenizer, "the the the")
    expected = (
        find_span(prompt, span_of, occurrence) if span_of else tuple(int(part) for part in text.split(":"))
    )
    assert subject_span(model, options, text) == expected
    with pytest.raises(InputError) as caught:
        subject_span(model, options, "2:99")
    assert (
        str(caught.value)
        == f"The subject '2:99' is no span of the prompt: it has tokens 0 to {len(prompt) - 1}."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nonsense"],
            f"There is no command 'nonsense'. Choose one of info, {', '.join(ANALYSES)}.",
        ),
        (["info"], "Missing: MODEL. See python -m mi_core info --help."),
        (["info", "a", "b"], "Unrecognized options: b. See python -m mi_core info --help."),
        (["info", "nope/nope"], "'nope/nope' is not on this machine. "),
        (["info", "./nope"], "The folder './nope' does not exist. Check the path."),
        (["info", "x", "--dtype", "int8"], "The number format 'int8' does not exist."),
        (["info", "x", "--device", "tpu"], "The device 'tpu' does not exist."),
        (["causal-trace"], "Missing: --model, --prompt. See python -m mi_core causal-trace --help."),
        (["causal-trace", "--promt", "x"], "Missing: --model, --prompt; unknown: --promt x. See"),
        (
            ["causal-trace", "--model", "m", "--prompt", "x", "--kinds", "all"],
            "invalid choice 'all' for argument '--kinds'.",
        ),
        (
            ["causal-trace", "--model", "m", "--prompt", "x", "--samples", "many"],
            "Error parsing --samples: invalid literal",
        ),
        (
            ["causal-trace", "--model", "m", "--prompt", "x", "--output", "/nowhere/x.json"],
            "'/nowhere/x.json' cannot be written: it is a folder, or its folder does not exist.",
        ),
        (["causal-trace", "--model", "m", "--prompt", "x", "--output", "/"], "'/' cannot be written"),
        (
            ["causal-trace", "--model", "m", "--prompt", "x", "--subject", "x", "--window", "0"],
            "'m' is not on this machine",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_an_error_is_one_line_and_exit_code_2(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *arguments)
    assert code == 2
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--subject", "Paris"], "'Paris' is not in the prompt. Copy it from the prompt, or choose tokens."),
        (
            ["--subject", "space needle"],
            "'space needle' is not in the prompt: it has 'Space Needle', in another case.",
        ),
        (
            ["--subject", "Space", "--occurrence", "3"],
            "'Space' occurs once in the prompt: occurrence 3 was asked for",
        ),
        (["--subject", "9:99"], "The subject '9:99' is no span of the prompt"),
        (["--subject", "Space", "--window", "0"], "The window is 0 layers. Give 1 or more."),
        (["--corrupted-prompt", "The Space"], "The prompts differ in length"),
    ],
)
def test_what_only_the_model_can_refuse_is_one_line_too(
    folder: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *trace(folder, *more))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")


def test_a_file_that_cannot_be_written_in_the_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: Any, _target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    arguments = trace(folder, "--subject", "1:2", "--samples", "1", "--output", str(tmp_path / "x.json"))
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert (
        err.splitlines()[-1] == f"error: '{tmp_path / 'x.json'}' cannot be written: No space left on device."
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled])
def test_stopping_is_no_error(
    folder: Path,
    stop: type[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: Any) -> None:
        raise stop

    monkeypatch.setattr(Progress, "phase", interrupt)
    code, out, err = said(capsys, "info", str(folder))
    assert (code, out, err) == (130, "", "stopped\n")


def test_info_tells_what_the_model_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "info", str(folder))
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{folder} · float32 · auto"
    for line in (
        "  family       llama",
        "  d_model      32",
        "  resid_pre    [pos, d_model 32] in 3 layers",
        "  pattern      [head 4, query, key] in 3 layers",
        "  k            [pos, kv_head 2, d_head 8] in 3 layers",
        "  logits       [pos, d_vocab 320]",
        "  ok     rows of attention sum to 1: ",
        "  sweeps replay single layers",
        "  float64      ~",
        f"files in {folder}",
    ):
        assert any(text.startswith(line) for text in lines), line
    assert any(text.endswith("  model.safetensors") for text in lines)
    assert all(text.split()[0] in ("find", "read", "place", "check") for text in err.splitlines())


def test_info_tells_what_a_family_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_model(tmp_path / "neox", "gpt_neox", num_key_value_heads=4)
    _, out, _ = said(capsys, "info", str(folder))
    assert "  resid_mid    not available: attention and MLP of a parallel block read the same stream\n" in out


def test_help_is_quick_and_lists_every_command() -> None:
    code = (
        "import sys, mi_core.cli as c; c.main(['--help']); print({'torch', 'tyro', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert all(f"  {name}" in done.stdout for name in ("info", *ANALYSES))


def test_the_help_of_a_command_needs_no_torch() -> None:
    code = """
import sys, mi_core.cli
try:
    mi_core.cli.main(['causal-trace', '--help'])
finally:
    print('torch' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.rstrip().endswith("False")
    for option in (
        "--model",
        "--prompt",
        "--corrupted-prompt",
        "--subject",
        "--output",
        "words of the prompt",
    ):
        assert option in done.stdout


def test_the_module_runs_and_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mi_core", "nonsense"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said(capsys, "--version") == (0, f"{mi_core.__version__}\n", "")
    assert said(capsys)[1].startswith("usage: python -m mi_core COMMAND")


def test_progress_on_a_terminal_is_one_changing_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress()
    progress.phase("read", 0.5, "1 MB of 2 MB")
    progress.phase("read", 1.0, "x" * 200)
    progress.done()
    assert capsys.readouterr().err == f"\r\x1b[Kread  50% 1 MB of 2 MB\r\x1b[Kread 100% {'x' * 90}\n"


def test_public_names_are_fetched_when_they_are_used() -> None:
    code = """
import sys, mi_core
print('torch' in sys.modules, mi_core.ModelSpec('m').name, sorted(mi_core.__all__) == dir(mi_core))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "m", "True"]
    assert all(getattr(mi_core, name) is not None for name in mi_core.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mi_core.nonsense  # noqa: B018  # asking is the test
