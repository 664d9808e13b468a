"""One feature's explanations from Neuronpedia, fetched only when the user asks for them.

    GET https://www.neuronpedia.org/api/feature/{model}/{source}/{index}

What is sent is in the address: model, source and number, nothing else. Model and source are Neuronpedia's own
names, such as `gemma-2-2b` and `5-gemmascope-transcoder-16k` (layer first).
"""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from mi_core.analyses.plain import damage_told
from mi_core.errors import InputError, TranscoderError

ENDPOINT = "https://www.neuronpedia.org"
TIMEOUT_SECONDS = 20.0
MAX_ANSWER_BYTES = 20_000_000
MAX_EXPLANATION = 500
SOURCES = {
    "gemma-scope-transcoders": ("gemma-2-2b", "{layer}-gemmascope-transcoder-16k"),
    "clt-gemma-2-2b-426k": ("gemma-2-2b", "{layer}-clt-hp"),
}
"""Part of a transcoder's name or address -> Neuronpedia's model and source."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What somebody, or some model, says a feature is.

    Attributes:
        text: the explanation.
        by: model or method that wrote it; "" where nobody says.
    """

    text: str
    by: str = ""


def guess_source(transcoder: str) -> tuple[str, str]:
    """Neuronpedia's model and source (with `{layer}`) for a transcoder; two empty texts if not known."""
    return next((known for part, known in SOURCES.items() if part in transcoder), ("", ""))


def address(model: str, source: str, layer: int, index: int, *, endpoint: str = ENDPOINT) -> str:
    """The address that is asked.

    Args:
        model: Neuronpedia's name of the model.
        source: its name of the source; `{layer}` stands for the layer.
        layer: of the feature.
        index: its number.
        endpoint: of Neuronpedia.

    Raises:
        InputError: a name that Neuronpedia cannot have.
    """
    named = source.replace("{layer}", str(layer))
    for what, value in (("model", model), ("source", named)):
        if not _NAME.fullmatch(value):
            raise InputError(
                f"{value[:60]!r} is no {what} of Neuronpedia", fix="Use letters, digits, dots, dashes"
            )
    return f"{endpoint}/api/feature/{model}/{named}/{index}"


def fetch_explanations(url: str) -> tuple[Explanation, ...]:
    """Ask Neuronpedia.

    Args:
        url: from `address`.

    Raises:
        TranscoderError: kind "offline" (it cannot be reached) or "missing" (it does not know the feature).
        InputError: the answer cannot be used.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "Lantern", "Accept": "application/json"})
    host = urllib.parse.urlsplit(url).netloc
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            data = answer.read(MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise TranscoderError(
                "Neuronpedia does not know this feature", kind="missing", why=url
            ) from error
        raise TranscoderError(f"{host} answered with status {error.code}", kind="offline") from error
    except OSError as error:
        raise TranscoderError(
            f"{host} cannot be reached", kind="offline", fix="Check the connection"
        ) from error
    if len(data) > MAX_ANSWER_BYTES:
        raise InputError(f"The answer of {host} is larger than {MAX_ANSWER_BYTES // 1_000_000} MB")
    with damage_told("Neuronpedia"):
        values = json.loads(data)
        return tuple(
            Explanation(text, str(one.get("explanationModelName") or one.get("typeName") or "")[:80])
            for one in values.get("explanations") or []
            if (text := " ".join(str(one.get("description") or "").split())[:MAX_EXPLANATION])
        )
