"""What all formats come down to: for each layer, in which file and under which key its tensors lie.

A format only fills in this table and says what shapes must be found; reading, orientation and counting are
the same for all (`FileSource`). Shapes are checked when a folder is opened, from the headers alone.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.errors import InputError, TranscoderError
from mi_core.transcoders.folder import Folder, open_tensors
from mi_core.transcoders.sources_tensors import TensorFile
from mi_core.transcoders.transcoder import Encoder, Hook, Kind


@dataclass(frozen=True, slots=True)
class Where:
    """A tensor in a folder.

    Attributes:
        file: path in the folder.
        key: name in the file.
        transposed: whether its two axes are exchanged against what is wanted.
        folder: the folder, where it is not the transcoder's own.
    """

    file: str
    key: str
    transposed: bool = False
    folder: Folder | None = None


@dataclass(frozen=True, slots=True)
class LayerParts:
    """The tensors of one source layer.

    Attributes:
        encoder: [feature, d_model].
        b_enc: [feature].
        b_dec: [d_model], of the target layer of the same number.
        decoder: [feature, d_model] or [feature, target, d_model]; None = only the encoder is here.
        first_target: where in the decoder's target axis the layer itself stands.
        threshold: [feature] of a JumpReLU.
        skip: [d_model, d_model] M of x @ M.
        k: features of a token that survive, of a top-k.
        centre: [d_model] that is taken off the input.
        centred: whether it was made on a stream without its mean over d_model, as TransformerLens makes of
            models with LayerNorm (`center_writing_weights`).
        positive: whether negative thresholds act as 0 (the JumpReLU of SAEs clamps first).
    """

    encoder: Where
    b_enc: Where
    b_dec: Where
    decoder: Where | None = None
    first_target: int = 0
    threshold: Where | None = None
    skip: Where | None = None
    k: int | None = None
    centre: Where | None = None
    centred: bool = False
    positive: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """A folder, understood.

    Attributes:
        format: for people: "CLT folder", "PLT folder", ...
        kind: "clt", "plt" or "sae".
        layers: source layer -> where its tensors lie.
        n_features: source layer -> number of features.
        n_layers: layers of the model, as far as the files tell; 0 = they do not.
        d_model: width of the model.
        reads: where the encoders read.
        writes: where the decoders write.
        model_name: as the config names it; "" = it does not.
        before_post_norm: whether it writes the MLP's own output, in front of a post-norm if there is one.
        warnings: what to know, plain sentences.
    """

    format: str
    kind: Kind
    layers: Mapping[int, LayerParts]
    n_features: Mapping[int, int]
    n_layers: int
    d_model: int
    reads: Hook
    writes: Hook
    model_name: str = ""
    before_post_norm: bool = False
    warnings: tuple[str, ...] = ()


class Tensors:
    """The tensor files of a folder (and of folders that it refers to), opened once each."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._files: dict[tuple[int, str], tuple[Folder, TensorFile]] = {}
        self._lock = threading.Lock()

    def file(self, file: str, folder: Folder | None = None) -> TensorFile:
        """A file's tensors."""
        folder = folder or self.folder
        with self._lock:
            key = (id(folder), file)
            if key not in self._files:
                # The folder is kept, so that its id cannot pass to another one.
                self._files[key] = (folder, open_tensors(folder, file))
            return self._files[key][1]

    def of(self, where: Where) -> TensorFile:
        """The file in which a tensor lies."""
        return self.file(where.file, where.folder)

    @property
    def read_bytes(self) -> int:
        """Bytes read from all of them, headers included."""
        with self._lock:
            return sum(file.file.read_bytes for _, file in self._files.values())

    def shape(self, where: Where) -> tuple[int, ...]:
        """A tensor's shape as it is wanted (transposed ones turned round)."""
        shape = self.of(where).stored(where.key).shape
        return shape[::-1] if where.transposed else shape

    def expect(self, where: Where, *shape: int | None, why: str = "") -> tuple[int, ...]:
        """Check a tensor's shape.

        Args:
            where: the tensor.
            shape: what it must be; None = any size.
            why: what the expectation rests on, a clause.

        Raises:
            TranscoderError: kind "missing" or "shape"; it names file, key, expected and found shape.
        """
        found = self.of(where).stored(where.key).shape
        wanted = shape[::-1] if where.transposed else shape
        fits = all(b is None or a == b for a, b in zip(found, wanted, strict=False))
        if len(found) != len(wanted) or not fits:
            raise wrong_shape(where, wanted, found, why)
        return self.shape(where)


def wrong_shape(
    where: Where, wanted: tuple[int | None, ...], found: tuple[int, ...], why: str = ""
) -> TranscoderError:
    """The error for a tensor of another shape; `wanted` as it must stand in the file."""
    sizes = "[" + ", ".join("any" if size is None else str(size) for size in wanted) + "]"
    because = f" ({why})" if why else ""
    return TranscoderError(
        f"{where.key} in {where.file} has shape {list(found)}", kind="shape",
        why=f"{sizes} was expected{because}", fix="Check that these files belong together",
    )  # fmt: skip


class FileSource:
    """A `mi_core.transcoders.transcoder.Source` over the tensors of a folder.

    Args:
        tensors: the folder's files.
        parts: where everything lies.
        n_layers: of the model.
    """

    def __init__(self, tensors: Tensors, parts: Parts, n_layers: int) -> None:
        self.tensors, self.parts, self.n_layers = tensors, parts, n_layers
        self._biases: dict[int, Tensor] = {}

    @property
    def read_bytes(self) -> int:
        """Bytes read so far, from disk or network."""
        return self.tensors.read_bytes

    def encoder(self, layer: int) -> Encoder:
        """The encoder of a source layer; its matrix in the number format of the file."""
        part = self.parts.layers[layer]
        threshold = None if part.threshold is None else self._whole(part.threshold, endless=True).float()
        if threshold is not None and part.positive:
            threshold = threshold.clamp(min=0)
        matrix, bias = self._whole(part.encoder), self._vector(part.b_enc)
        centre = None if part.centre is None else self._vector(part.centre)
        if part.centred:
            matrix, bias, centre = _on_raw_stream(matrix.float(), bias, centre)
        return Encoder(matrix, bias, threshold, part.k, centre)

    def rows(self, layer: int, indices: Int[Tensor, " n"]) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of some features: only these are read, except where a file has them as columns."""
        part, where = self._decoder(layer)
        file, wanted = self.tensors.of(where), [int(index) for index in indices]
        if wanted and not 0 <= min(wanted) <= max(wanted) < self.parts.n_features[layer]:
            raise InputError(
                f"Layer {layer} has no feature {max(wanted) if min(wanted) >= 0 else min(wanted)}",
                fix=f"Its features count from 0 to {self.parts.n_features[layer] - 1:,}",
            )
        rows = file.columns(where.key, wanted) if where.transposed else file.rows(where.key, wanted)
        return _sound(self._targets(part, rows), where)

    def chunk(self, layer: int, start: int, stop: int) -> Float[Tensor, "n target d_model"]:
        """Decoder rows of neighbouring features."""
        part, where = self._decoder(layer)
        file = self.tensors.of(where)
        if where.transposed:
            rows = file.columns(where.key, range(start, stop))
        else:
            rows = file.stretch(where.key, start, stop)
        return _sound(self._targets(part, rows), where)

    def bias(self, target: int) -> Float[Tensor, " d_model"]:
        """What is written to a layer when no feature is active; zeros for a layer that is not here."""
        if target not in self._biases:
            part = self.parts.layers.get(target)
            made = torch.zeros(self.parts.d_model) if part is None else self._vector(part.b_dec)
            self._biases[target] = made
        return self._biases[target]

    def skip(self, target: int) -> Float[Tensor, "d_model d_model"] | None:
        """The matrix M of a skip x @ M; None where there is none."""
        part = self.parts.layers.get(target)
        return None if part is None or part.skip is None else self._whole(part.skip)

    def _decoder(self, layer: int) -> tuple[LayerParts, Where]:
        part = self.parts.layers[layer]
        if part.decoder is None:
            raise no_decoder(layer)
        return part, part.decoder

    def _targets(self, part: LayerParts, rows: Tensor) -> Tensor:
        """Rows with a target axis that starts at the layer itself."""
        return _floating(rows[:, None] if rows.ndim == 2 else rows[:, part.first_target :])

    def _whole(self, where: Where, *, endless: bool = False) -> Tensor:
        whole = _floating(self.tensors.of(where).tensor(where.key, transposed=where.transposed))
        return _sound(whole, where, endless=endless)

    def _vector(self, where: Where) -> Tensor:
        return self._whole(where).float()


def _on_raw_stream(
    matrix: Tensor, bias: Tensor, centre: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The encoder that gives on x what this one gives on x - mean(x): W (x - mean(x)) = (W - mean(W)) x."""
    if centre is not None:
        bias = bias - matrix @ centre
    return matrix - matrix.mean(1, keepdim=True), bias, None


def _floating(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() else tensor.float()


def _sound(tensor: Tensor, where: Where, *, endless: bool = False) -> Tensor:
    """The tensor, if all its numbers are finite; one look that allocates nothing.

    A feature with a NaN in its encoder would never be active, and nobody would know why.

    Args:
        tensor: in any floating format.
        where: its file and key.
        endless: whether infinity is allowed: a threshold that is never passed takes its feature out.

    Raises:
        TranscoderError: kind "corrupt", naming file and key.
    """
    ends = [float(end) for end in torch.aminmax(tensor)] if tensor.numel() else []
    if any(math.isnan(end) or (math.isinf(end) and not endless) for end in ends):
        raise TranscoderError(
            f"{where.key} in {where.file} is damaged", kind="corrupt",
            why="it holds numbers that are not finite", fix="Download or copy it again",
        )  # fmt: skip
    return tensor


def no_decoder(layer: int) -> TranscoderError:
    """The error for a layer of which only the encoder is here."""
    return TranscoderError(
        f"The decoder of layer {layer} is not here", kind="no_decoder", why="only its encoder was fetched",
        fix="Fetch the decoder, or allow reading single rows from the hub",
    )  # fmt: skip
