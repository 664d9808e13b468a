"""What a pass over all encoders and decoders of a transcoder takes, and which parts are not here for it.

A pass never goes over the network: reading all decoders of a large transcoder that way would download it.
"""

from dataclasses import dataclass

from mi_core.errors import TranscoderError
from mi_core.model.progress import format_bytes
from mi_core.transcoders.transcoder import Transcoder

FLOAT32 = 4
ABSENT = ("no_decoder", "offline", "missing")
"""Kinds of `TranscoderError` after which a pass goes on with the next layer."""
BYTES_PER_SECOND = 400e6
"""A careful guess at reading from disk, converting and multiplying, on two cores."""
OPERATIONS_PER_SECOND = 30e9


@dataclass(frozen=True, slots=True)
class PassCost:
    """What has to be read.

    Attributes:
        encoder_bytes: encoders as float32.
        decoder_bytes: decoders as float32; 0 where there are none here.
        operations: floating-point operations beyond one product per number read.
    """

    encoder_bytes: int
    decoder_bytes: int
    operations: float = 0.0

    @property
    def seconds(self) -> float:
        """A rough estimate."""
        read = (self.encoder_bytes + self.decoder_bytes) / BYTES_PER_SECOND
        return read + self.operations / OPERATIONS_PER_SECOND


def decoders_problem(transcoder: Transcoder) -> TranscoderError | None:
    """Why no pass over the decoders can be made; None when one can."""
    if not transcoder.has_decoder:
        return TranscoderError(
            "Only the encoders of this transcoder are here",
            kind="no_decoder",
            why="what features write is in the decoders",
            fix="Download the decoders first",
        )
    if not transcoder.local:
        size = transcoder.decoder_bytes or decoder_bytes(transcoder)
        return TranscoderError(
            "The decoders of this transcoder are not on this machine",
            kind="offline",
            why=f"a pass reads all {format_bytes(size)} of them, and never over the network",
            fix="Download them first",
        )
    return None


def absent_warning(absent: dict[int, str], what: str) -> str:
    """A sentence about layers that a pass had to leave out.

    Args:
        absent: layer -> why.
        what: "encoder" or "decoder".
    """
    listed = ", ".join(f"L{layer}" for layer in sorted(absent))
    return f"Not searched, because their {what}s are not here: {listed}. {next(iter(absent.values()))}"


def encoder_bytes(transcoder: Transcoder) -> int:
    """All encoders as float32."""
    return FLOAT32 * transcoder.d_model * sum(transcoder.n_features.values())


def decoder_bytes(transcoder: Transcoder) -> int:
    """All decoders as float32; 0 where there are none here."""
    rows = sum(count * len(transcoder.targets(layer)) for layer, count in transcoder.n_features.items())
    return FLOAT32 * transcoder.d_model * rows if transcoder.has_decoder else 0


def neighbours_cost(transcoder: Transcoder) -> PassCost:
    """What `feature_neighbours` reads."""
    decoders = 0 if decoders_problem(transcoder) else decoder_bytes(transcoder)
    return PassCost(encoder_bytes(transcoder), decoders)


def search_cost(transcoder: Transcoder, side: str, rank_by: str, d_vocab: int) -> PassCost:
    """What `word_search` reads; deviations take a [d_model, d_model] product per row and per word."""
    encoders = encoder_bytes(transcoder) if side == "reads" else 0
    decoders = decoder_bytes(transcoder) if side == "writes" else 0
    numbers = (encoders + decoders) / FLOAT32
    words = d_vocab * transcoder.d_model
    products = 2 * (numbers + words) * transcoder.d_model if rank_by == "deviations" else 0
    return PassCost(encoders, decoders, products)
