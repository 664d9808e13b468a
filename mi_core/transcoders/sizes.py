"""What a transcoder takes in memory; told from its headers, before any of it is taken.

Memory = encoders as stored (those used lately, at most `RESIDENT_BYTES` together; one that is larger alone is
kept alone) + the pieces of one pass over an encoder or decoder (`CHUNK_BYTES`) + one that is being read.
"""

from dataclasses import dataclass
from math import prod

from mi_core.transcoders.folder import Folder
from mi_core.transcoders.formats_parts import FileSource, Parts, Tensors, Where
from mi_core.transcoders.sources_tensors import PIECE_BYTES
from mi_core.transcoders.transcoder import CHUNK_BYTES, RESIDENT_BYTES, Transcoder


@dataclass(frozen=True, slots=True)
class Memory:
    """What a transcoder takes in memory when it is used, in bytes.

    Attributes:
        encoders: all encoders as stored.
        resident: what of them is kept at once.
        largest: the largest single encoder.
        working: float32 pieces and reading.
        row: decoder rows of one feature of the first layer, as stored.
    """

    encoders: int
    resident: int
    largest: int
    working: int
    row: int

    @property
    def promised(self) -> int:
        """The most that it takes on top of the model."""
        return self.resident + self.working


def memory_of(parts: Parts, tensors: Tensors) -> Memory:
    """What a transcoder will take, from its headers."""

    def stored(where: Where | None) -> int:
        return 0 if where is None else tensors.of(where).stored(where.key).bytes

    def vector(where: Where | None) -> int:
        return 0 if where is None else 4 * prod(tensors.shape(where))  # float32, however it is stored

    sizes = [
        (4 * prod(tensors.shape(part.encoder)) if part.centred else stored(part.encoder))
        + sum(map(vector, (part.b_enc, part.threshold, part.centre)))
        for part in parts.layers.values()
    ]
    total, largest = sum(sizes), max(sizes)
    # The new encoder is made before the oldest one leaves.
    resident = total if total <= RESIDENT_BYTES else RESIDENT_BYTES + largest
    # A pass over an encoder or decoder: one piece in use, the next one as stored and being made float32.
    decoders = [part.decoder for part in parts.layers.values() if part.decoder is not None]
    numbers = [
        prod(tensors.shape(where)) for where in (*decoders, *(p.encoder for p in parts.layers.values()))
    ]
    piece = min(CHUNK_BYTES, 4 * max(numbers))
    first = parts.layers[min(parts.layers)].decoder
    row = 0
    if first is not None:
        row = tensors.of(first).stored(first.key).bytes // parts.n_features[min(parts.layers)]
    return Memory(total, resident, largest, 3 * piece + min(PIECE_BYTES, largest), row)


def memory_needed(transcoder: Transcoder) -> Memory | None:
    """The same of an opened transcoder; None for one that has no files."""
    source = transcoder.source
    return memory_of(source.parts, source.tensors) if isinstance(source, FileSource) else None


def folder_of(transcoder: Transcoder) -> Folder | None:
    """The files of a transcoder; None for one that has none."""
    source = transcoder.source
    return source.tensors.folder if isinstance(source, FileSource) else None


def decoder_bytes_of(parts: Parts, tensors: Tensors) -> int:
    """Size of all decoders as stored."""
    decoders = [part.decoder for part in parts.layers.values() if part.decoder is not None]
    return sum(tensors.of(one).stored(one.key).bytes for one in decoders)


def lacking_decoders(transcoder: Transcoder) -> tuple[int, ...]:
    """Source layers of which only the encoder is here, so that no whole reconstruction can be made."""
    source = transcoder.source
    layers = source.parts.layers if isinstance(source, FileSource) else {}
    return tuple(sorted(layer for layer, part in layers.items() if part.decoder is None))


def decoders_are_here(parts: Parts, folder: Folder) -> bool:
    """Whether all decoders can be read without a network."""
    decoders = [part.decoder for part in parts.layers.values() if part.decoder is not None]
    return all((one.folder or folder).here(one.file) for one in decoders)
