"""How long do features take: encoding, a feature page, an attribution graph, a corpus pass; how much memory?

python -m benchmarks.transcoders             # about three minutes, most of it writing the large transcoder
python -m benchmarks.transcoders --publish   # also writes docs/benchmarks.md and its JSON

Every part runs in a fresh process, so that its peak memory is its own. The large transcoder has the shape of
one for Llama-3.2-1B (32,768 features, width 2,048, 16 layers), random numbers, and files of two layers only,
3.5 GB on disk, deleted afterwards. Its model has Llama's width and depth, random numbers and small MLPs.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro
from safetensors.torch import save_file

from benchmarks import report
from mi_core import load_model
from mi_core import transcoders as lantern
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from mi_core.transcoders.transcoder import Transcoder

PAIR = "When Mary and John went to the store, John gave a drink to"
WORDS = f"{PAIR} Mary. The Louvre Museum is located in the city of "
GRAPH_PROMPTS = {16: PAIR, 32: f"{WORDS}Paris. The Eiffel Tower is in"}
N_LAYERS, N_FEATURES, WIDTH, ON_DISK = 16, 32_768, 2_048, (0, 8)
MIB = 2**20
ENOUGH_BYTES = MIB  # one feature's rows must not read more


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        publish: write the figures into docs/.
        part: run this part alone and print JSON; "" = all, each in a process of its own.
        repeats: timed runs of each.
        threads: for torch.
        corpus_tokens: tokens of the corpus pass.
    """

    publish: bool = False
    part: str = ""
    repeats: int = 5
    threads: int = 2
    corpus_tokens: int = 20_000


def cut(model: LoadedModel, text: str, n_tokens: int) -> str:
    """A prompt of exactly so many tokens: the text, repeated and cut between tokens."""
    ids = model.tokenizer(text * 8)["input_ids"][:n_tokens]
    prompt = model.tokenizer.decode(ids, skip_special_tokens=True)
    assert len(model.tokenizer(prompt)["input_ids"]) == n_tokens
    return prompt


def median_seconds(call: Callable[[], Any], fresh: Callable[[], None], repeats: int) -> float:
    """Median time of a call after one that is not timed, nothing remembered from the one before."""
    seconds = []
    for _ in range(repeats + 1):
        fresh()
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def forgetting(model: LoadedModel, transcoder: Transcoder) -> Callable[[], None]:
    """Forgets what was observed and encoded, but keeps weights."""

    def forget() -> None:
        model.observations.clear()
        transcoder.memo.clear()

    return forget


def encode_part(options: Options) -> dict[str, Any]:
    """All layers of a 64-token prompt, with the forward pass, and what the fit costs besides."""
    model = load_model("atlas")
    transcoder = lantern.load_transcoder(model)
    ids = model.tokenizer(cut(model, WORDS, 64))["input_ids"]
    forget = forgetting(model, transcoder)
    return {
        "encode all layers, 64 tokens": median_seconds(
            lambda: lantern.active_features(model, transcoder, ids), forget, options.repeats
        ),
        "encode and reconstruct (fit), 64 tokens": median_seconds(
            lambda: lantern.fit(model, transcoder, ids), forget, options.repeats
        ),
    }


def feature_part(options: Options) -> dict[str, Any]:
    """What the tab "One feature" shows."""
    model = load_model("atlas")
    transcoder = lantern.load_transcoder(model)
    forget, name = forgetting(model, transcoder), "L2F100"
    calls = {
        "feature page, weights": lambda: lantern.feature_weights(model, lantern.FeatureWeightsInputs(name)),
        "feature page, neighbours and virtual weights": lambda: lantern.feature_neighbours(
            model, lantern.FeatureNeighboursInputs(name)
        ),
        "feature page, corpus": lambda: lantern.feature_corpus(model, lantern.FeatureCorpusInputs(name)),
        "word search, one pass over the decoders": lambda: lantern.word_search(
            model, lantern.WordSearchInputs("Paris")
        ),
    }
    return {label: median_seconds(call, forget, options.repeats) for label, call in calls.items()}


def graph_part(options: Options, n_tokens: int) -> dict[str, Any]:
    """A graph of a prompt with so many tokens, warm, nothing remembered."""
    model = load_model("atlas")
    transcoder = lantern.load_transcoder(model)
    inputs = lantern.GraphInputs(cut(model, GRAPH_PROMPTS[n_tokens], n_tokens))
    seconds = median_seconds(
        lambda: lantern.attribution_graph(model, inputs), forgetting(model, transcoder), options.repeats
    )
    result = lantern.attribution_graph(model, inputs)
    return {
        f"attribution graph, {n_tokens} tokens": seconds,
        "note": f"{result.n_nodes:,} nodes, {result.n_rows:,} rows, {result.unexpanded:,} not expanded, "
        f"largest sum-rule residual {float(abs(result.residual).max()):.1e}",
    }


def corpus_part(options: Options) -> dict[str, Any]:
    """A corpus pass over Lantern's own texts, again and again."""
    model = load_model("atlas")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(
            "\n\n".join([WORDS, GRAPH_PROMPTS[16]] * (options.corpus_tokens // 40)), encoding="utf-8"
        )
        inputs = lantern.CorpusPassInputs(
            str(text), save_to=str(Path(folder) / "features"), max_tokens=options.corpus_tokens
        )
        started = time.perf_counter()
        lantern.corpus_pass(model, inputs)
        seconds = time.perf_counter() - started
    return {"corpus pass": seconds, "note": f"{options.corpus_tokens / seconds:,.0f} tokens/s, files written"}


# --- the large transcoder
# --------------------------------------------------------------------------------------------------------


def write_large(folder: Path) -> None:
    """Two of sixteen layers in the CLT folder format; the same random block again and again is enough."""
    block = torch.randn(1024, N_LAYERS, WIDTH, dtype=torch.bfloat16) * 0.02
    for layer in ON_DISK:
        decoder = block[:, layer:].repeat(N_FEATURES // 1024, 1, 1)
        save_file({f"W_dec_{layer}": decoder}, folder / f"W_dec_{layer}.safetensors")
        encoder = {
            f"W_enc_{layer}": torch.randn(N_FEATURES, WIDTH, dtype=torch.bfloat16) / WIDTH**0.5,
            f"b_enc_{layer}": torch.full((N_FEATURES,), -2.0, dtype=torch.bfloat16),
            f"b_dec_{layer}": torch.zeros(WIDTH, dtype=torch.bfloat16),
        }
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
    config = (
        "model_kind: cross_layer_transcoder\nmodel_name: llama-3.2-1b-shape\n"
        "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    (folder / "config.yaml").write_text(config, encoding="utf-8")


def wide_model() -> LoadedModel:
    """A random model of Llama-3.2-1B's width and depth, with small MLPs and few tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000, hidden_size=WIDTH, intermediate_size=256, num_hidden_layers=N_LAYERS,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    return build_model(LlamaForCausalLM(config))


def large_part(options: Options) -> dict[str, Any]:
    """Encode two layers of 64 tokens, and read one feature's rows, from disk."""
    model, ids = wide_model(), list(range(10, 74))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        write_large(Path(folder))
        before = psutil.Process().memory_info().rss
        transcoder = lantern.load_transcoder(model, folder)
        forget = forgetting(model, transcoder)
        encode = median_seconds(
            lambda: lantern.active_features(model, transcoder, ids), forget, options.repeats
        )
        encoders = psutil.Process().memory_info().rss - before
        read = transcoder.read_bytes
        started = time.perf_counter()
        transcoder.rows(0, torch.tensor([32_049]))
        seconds, read = time.perf_counter() - started, transcoder.read_bytes - read
    assert read <= ENOUGH_BYTES, f"one feature's rows read {read:,} bytes"
    return {
        "large: encode 2 layers, 64 tokens": encode,
        "large: one feature's decoder rows": seconds,
        "note": f"one feature's rows read {read / 1024:,.0f} KiB of {_decoder_gib():.1f} GiB; "
        f"encoders in memory {encoders / MIB:,.0f} MiB",
    }


def _decoder_gib() -> float:
    return sum(N_FEATURES * (N_LAYERS - layer) * WIDTH * 2 for layer in ON_DISK) / 2**30


PARTS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "encode": encode_part,
    "feature": feature_part,
    "graph16": lambda options: graph_part(options, 16),
    "graph32": lambda options: graph_part(options, 32),
    "corpus": corpus_part,
    "large": large_part,
}


def run_part(name: str, options: Options) -> dict[str, Any]:
    """A part in a fresh process; its peak memory comes with it."""
    arguments = ["--part", name, "--repeats", str(options.repeats), "--threads", str(options.threads)]
    arguments += ["--corpus-tokens", str(options.corpus_tokens)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.transcoders", *arguments],
        cwd=report.ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(options: Options) -> None:
    """Measure, print, and publish when asked to."""
    torch.set_num_threads(options.threads)
    if options.part:
        found = PARTS[options.part](options)
        found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(json.dumps(found) + "\n")
        return
    where, records = report.machine("cpu"), {name: run_part(name, options) for name in PARTS}
    lines = ["| what | median | peak memory of the process | |", "|---|---:|---:|---|"]
    for record in records.values():
        for label, value in record.items():
            if label not in ("note", "peak_mib"):
                peak, note = f"{record['peak_mib']:,.0f} MiB", record.get("note", "")
                lines.append(f"| {label} | {1000 * value:,.1f} ms | {peak} | {note} |")
    lines += ["", "The peak of the large part is that of making its files and its random model."]
    text = report.heading("Transcoders", where) + "\n\n" + "\n".join(lines)
    sys.stdout.write(f"\n{text}\n")
    if options.publish:
        report.publish("transcoders", text, {"machine": where, "parts": records})


if __name__ == "__main__":
    main(tyro.cli(Options))
