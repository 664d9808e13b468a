"""A pass of a transcoder over a corpus: how often, how strongly and where every feature is active.

    density = tokens at which the feature is active / all tokens that count
    histogram of its activations in eighths of octaves, its largest activation
    examples: its strongest rows, and rows from equal parts of its active tokens drawn at random
    co-active: P(other active | it is active) - P(other active), on the drawn tokens

and writes them as features files (`feature_files`). First reading: statistics, in memory that does not grow
with the text (`corpus_state`). Second reading, only of rows that hold an example or a drawn token: the
activations around them (`corpus_gather`). Leading special tokens (BOS) never count.
Cost: one tokenization to know the length, then one forward pass per token and 2 features x d_model operations
per token and layer for each reading; a stopped pass goes on from its checkpoint.
Method: as the corpus dashboards of Bricken et al. 2023 and Neuronpedia; layout of circuit-tracer.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.model.progress import format_bytes
from mi_core.provenance import Provenance
from mi_core.transcoders.corpus_checkpoint import (
    checkpoint_file,
    drop_checkpoint,
    key_of,
    read_checkpoint,
    write_checkpoint,
)
from mi_core.transcoders.corpus_checks import counts_check, examples_check, finite_check, prompt_check
from mi_core.transcoders.corpus_density import save_folder
from mi_core.transcoders.corpus_encode import layer_activations, tokens_at_once
from mi_core.transcoders.corpus_gather import Gather, gather_bytes
from mi_core.transcoders.corpus_inputs import CorpusPassInputs
from mi_core.transcoders.corpus_result import CorpusPassResult
from mi_core.transcoders.corpus_state import LayerState, prefix_numbers, state_bytes
from mi_core.transcoders.corpus_text import DIVERSE, Row, batches, rows, text_digest
from mi_core.transcoders.corpus_writing import Counted, Written, write_files
from mi_core.transcoders.feature_files_write import FeatureWriter
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnPassStep = Callable[[Step[CorpusPassResult]], None]

MAX_STATE_BYTES = 6_000_000_000
SECONDS_BETWEEN_CHECKPOINTS = 60.0
WRITING = 0.1  # of the whole work, for the progress


def corpus_pass(
    model: LoadedModel, inputs: CorpusPassInputs, *, on_step: OnPassStep | None = None
) -> CorpusPassResult:
    """Read a text through model and transcoder, and write features files.

    Args:
        model: a loaded model.
        inputs: text, transcoder, and what is kept.
        on_step: told of progress after every batch; may raise `Cancelled` to stop.

    Returns:
        How often and how strongly every feature is active. After `Cancelled`, over the rows read until then
        (`result.cancelled`): no files are written, and the same pass asked for again goes on from there.

    Raises:
        TranscoderError: there is no such transcoder.
        InputError: the text cannot be read, no token counts, or the statistics would not fit.
    """
    transcoder = load_transcoder(model, inputs.transcoder)
    run = _Pass(model, transcoder, inputs, on_step)
    run.plan()
    try:
        run.read()
        gather = run.look_again()
        run.write(gather)
    except Cancelled:
        run.save()
        return run.stopped()
    drop_checkpoint(checkpoint_file(run.folder))
    return run.done(gather)


@dataclass(slots=True)
class _Pass:
    """A pass under way."""

    model: LoadedModel
    transcoder: Transcoder
    inputs: CorpusPassInputs
    on_step: OnPassStep | None
    started: float = field(default_factory=time.perf_counter)
    digest: str = ""
    n_rows: int = 0
    n_tokens: int = 0
    n_documents: int = 0
    states: dict[int, LayerState] = field(default_factory=dict)
    batches_done: int = 0
    tokens_done: int = 0
    rows_done: int = 0
    resumed: int = 0
    saved: float = field(default_factory=time.perf_counter)
    longest: Row | None = None
    written: Written = field(default_factory=lambda: Written(0, ()))

    @property
    def folder(self) -> Path:
        """Where the files go."""
        chosen = self.inputs.save_to
        return Path(os.path.abspath(Path(chosen).expanduser())) if chosen else save_folder(self.transcoder)

    def plan(self) -> None:
        """Count the text, refuse what would not fit, take up a checkpoint."""
        inputs, transcoder = self.inputs, self.transcoder
        features = sum(transcoder.n_features.values())
        need = state_bytes(features, inputs.top, inputs.sampled) + gather_bytes(features, inputs)
        if need > MAX_STATE_BYTES:
            raise InputError(
                f"The pass would hold {format_bytes(need)} of statistics",
                why=f"{features:,} features; the limit is {format_bytes(MAX_STATE_BYTES)}",
                fix="Keep fewer or shorter examples",
            )
        self.digest, _ = text_digest(inputs.text)
        documents = set()
        for row in self._rows():
            self.n_rows, self.n_tokens = self.n_rows + 1, self.n_tokens + row.counted
            documents.add(row.document)
            if self.longest is None or len(row.ids) > len(self.longest.ids):
                self.longest = row
        self.n_documents = len(documents)
        if not self.n_tokens:
            raise InputError("No token of this text counts", fix="Give a text with words")
        self.states = {
            layer: LayerState.empty(layer, count, inputs.top, inputs.sampled, inputs.seed)
            for layer, count in sorted(transcoder.n_features.items())
        }
        FeatureWriter(self.folder).begin()  # told before minutes are spent, not after
        FeatureWriter(self.folder).give_up()
        self._resume()

    def _resume(self) -> None:
        found = read_checkpoint(checkpoint_file(self.folder), self._key(), self.states)
        if found is not None:
            self.batches_done, self.tokens_done = found["batches"], found["tokens"]
            self.rows_done, self.resumed = found["rows"], found["tokens"]

    def _key(self) -> str:
        return key_of(
            {
                "inputs": self.inputs.to_dict(),
                "text": self.digest,
                "transcoder": self.transcoder.fingerprint,
                "model": self.model.fingerprint,
                "dtype": str(self.model.dtype),
            }
        )

    def save(self) -> None:
        """Write the checkpoint; nothing where nothing was done yet."""
        if self.batches_done:
            counters = {
                "batches": self.batches_done, "tokens": self.tokens_done, "rows": self.rows_done
            }  # fmt: skip
            write_checkpoint(checkpoint_file(self.folder), self._key(), counters, self.states)
        self.saved = time.perf_counter()

    def _rows(self) -> Iterator[Row]:
        return rows(self.model, self.inputs.text, self.inputs.row, self.inputs.max_tokens)

    def _report(self, share: float, text: str) -> None:
        """Tell the caller; may raise Cancelled."""
        if self.on_step is None:
            return
        spent, begun = time.perf_counter() - self.started, self.resumed / self.n_tokens * (1 - WRITING) / 2
        left = spent / (share - begun) * (1 - share) if share > begun + 0.01 else None
        self.on_step(Step(round(1000 * share), 1000, left, None, text))

    def read(self) -> None:
        """First reading: statistics."""
        at_once = tokens_at_once(self.transcoder)
        for number, batch in enumerate(batches(self._rows(), at_once)):
            if number < self.batches_done:
                continue
            done = self.tokens_done / self.n_tokens
            self._report(
                done * (1 - WRITING) / 2, f"reading, {self.tokens_done:,} of {self.n_tokens:,} tokens"
            )
            self._count(batch)
            if time.perf_counter() - self.saved > SECONDS_BETWEEN_CHECKPOINTS:
                self.save()

    def _count(self, batch: list[Row]) -> None:
        counted, first = batch[0].counted, batch[0].first
        numbers = np.array([row.number for row in batch], np.int32)
        prefixes = prefix_numbers(np.array([row.ids for row in batch]))[:, first:].ravel()
        for layer, dense in layer_activations(self.model, self.transcoder, batch):
            at, feature = (part.cpu().numpy() for part in dense.nonzero(as_tuple=True))
            values = dense[dense != 0].cpu().numpy()
            rows_of, positions = numbers[at // counted], (at % counted + first).astype(np.int32)
            self.states[layer].add(feature, values, rows_of, positions, prefixes[at])
        self.batches_done += 1
        self.tokens_done += len(batch) * counted
        self.rows_done += len(batch)

    def look_again(self) -> Gather:
        """Second reading: what stands around the chosen tokens."""
        gather = Gather.of(self.states, self.inputs, self.n_tokens)
        wanted = set(gather.needed().tolist())
        kept = (row for row in self._rows() if row.number in wanted)
        done = 0
        for batch in batches(kept, tokens_at_once(self.transcoder)):
            share = (1 - WRITING) / 2 * (1 + done / max(1, len(wanted)))
            self._report(share, f"examples, row {done:,} of {len(wanted):,}")
            dense = {
                layer: values.cpu().numpy()
                for layer, values in layer_activations(self.model, self.transcoder, batch)
            }
            gather.add(batch, dense)
            done += len(batch)
        return gather

    def write(self, gather: Gather) -> None:
        """Make the records and write the files."""
        name = DIVERSE if self.inputs.text == DIVERSE else Path(self.inputs.text).name
        counted = Counted(self.n_tokens, self.n_rows, self.n_documents, name, self.digest)
        layers = len(self.states)

        def on_layer(number: int) -> None:
            self._report(1 - WRITING * (1 - number / layers), f"writing layer {number + 1} of {layers}")

        self.written = write_files(
            self.model, self.transcoder, self.inputs, self.states, gather, counted, self.folder, on_layer
        )

    def stopped(self) -> CorpusPassResult:
        """What is known when the user stops.

        Raises:
            Cancelled: nothing was read yet.
        """
        if not self.batches_done:
            raise Cancelled
        said = (
            f"Stopped after {self.tokens_done:,} of {self.n_tokens:,} tokens; no files were written. "
            "The same pass goes on from here."
        )
        return self._result((), (said,), cancelled=True)

    def done(self, gather: Gather) -> CorpusPassResult:
        """The whole pass, with its checks."""
        checks = [examples_check(self.model, gather)]
        if self.longest is not None:
            checks.append(prompt_check(self.model, self.transcoder, self.longest))
        return self._result(tuple(checks), (), cancelled=False)

    def _result(
        self, checks: tuple[Check, ...], said: tuple[str, ...], *, cancelled: bool
    ) -> CorpusPassResult:
        states = self.states
        sizes = [len(state.counts) for state in states.values()]
        return CorpusPassResult(
            inputs=self.inputs,
            provenance=Provenance.of(self.model, seed=self.inputs.seed),
            transcoder=self.transcoder.name,
            transcoder_fingerprint=self.transcoder.fingerprint,
            text_digest=self.digest,
            n_tokens=self.tokens_done,
            n_rows=self.rows_done,
            n_documents=self.n_documents,
            layers=np.repeat(np.array(list(states), np.int64), sizes),
            indices=np.concatenate([np.arange(size) for size in sizes]).astype(np.int64),
            counts=np.concatenate([state.counts for state in states.values()]),
            largest=np.concatenate([state.largest for state in states.values()]),
            folder="" if cancelled else str(self.folder),
            file_bytes=self.written.file_bytes,
            warnings=(*self.transcoder.warnings, *self.written.warnings, *said),
            checks=(finite_check(states), counts_check(states), *checks),
            seconds=time.perf_counter() - self.started,
            cancelled=cancelled,
        )
