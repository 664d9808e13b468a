"""What a pass over all encoders and decoders of a transcoder takes, from its shapes alone."""

from dataclasses import dataclass

from mi_core.transcoders.transcoder import Transcoder

FLOAT32 = 4
BYTES_PER_SECOND = 400e6
"""A careful guess at reading from disk, converting and multiplying, on two cores."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """What has to be read.

    Attributes:
        encoder_bytes: all encoders as float32.
        decoder_bytes: all decoders as float32; 0 where there are none here.
        seconds: a rough estimate.
    """

    encoder_bytes: int
    decoder_bytes: int

    @property
    def seconds(self) -> float:
        """A rough estimate."""
        return (self.encoder_bytes + self.decoder_bytes) / BYTES_PER_SECOND


def encoder_bytes(transcoder: Transcoder) -> int:
    """All encoders as float32."""
    return FLOAT32 * transcoder.d_model * sum(transcoder.n_features.values())


def decoder_bytes(transcoder: Transcoder) -> int:
    """All decoders as float32; 0 where there are none here."""
    rows = sum(count * len(transcoder.targets(layer)) for layer, count in transcoder.n_features.items())
    return FLOAT32 * transcoder.d_model * rows if transcoder.has_decoder else 0


def neighbours_cost(transcoder: Transcoder) -> PassCost:
    """What `feature_neighbours` reads."""
    return PassCost(encoder_bytes(transcoder), decoder_bytes(transcoder))
