"""Prompt sets that come with Lantern."""

from functools import cache
from pathlib import Path

from mi_core.analyses.cases import Case, PromptSet
from mi_core.errors import InputError
from mi_core.importers.prompt_files import read_prompt_file

FACTS = Path(__file__).resolve().parents[2] / "assets" / "atlas" / "facts.json"

FIVE_QUESTIONS = PromptSet(
    "Five questions",
    (
        Case("The capital of France is", "France", " Paris", name="capital", relation="geography"),
        Case("Barack Obama was born in", "Barack Obama", " Honolulu", name="birthplace", relation="people"),
        Case(
            "The largest planet in the solar system is",
            "planet",
            " Jupiter",
            name="planet",
            relation="science",
        ),
        Case("Water freezes at zero degrees", "Water", " Celsius", name="water", relation="science"),
        Case(
            "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n -",
            "fibonacci",
            " 2",
            name="fibonacci",
            relation="code",
        ),
    ),
    "short questions of five kinds, for any model",
)
"""Questions that most language models can answer; the bundled model knows only what it was trained on."""


@cache
def bundled_facts() -> PromptSet:
    """The facts that the bundled model Atlas was trained on, in the format of ROME's known_1000.

    Raises:
        InputError: the file is not there, as in an installation without the assets folder.
    """
    try:
        data = FACTS.read_bytes()
    except OSError as error:
        raise InputError(
            "The bundled facts are missing",
            why=str(error),
            fix="Run Lantern from its repository, or upload a prompt set",
        ) from error
    facts = read_prompt_file(data, FACTS.name)
    return PromptSet("Atlas facts", facts.cases, f"{len(facts.cases)} facts of the bundled model")
