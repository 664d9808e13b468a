"""Prompt sets that come with Lantern."""

from functools import cache
from pathlib import Path

from mi_core.analyses.cases import PromptSet
from mi_core.errors import InputError
from mi_core.importers.prompt_files import read_prompt_file

FACTS = Path(__file__).resolve().parents[2] / "assets" / "atlas" / "facts.json"


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
