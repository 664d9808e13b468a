"""Addresses on the hub: `owner/name[/subfolder][@revision]`, and `hf://owner/name/path/to/file@revision`."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mi_core.errors import InputError
from mi_core.model.hub_cache import is_hub_id
from mi_core.model.spec import check_revision

URI = "hf://"
MAX_CHARACTERS = 500
_PATH = re.compile(r"[\w.\-+=@ ]+(?:/[\w.\-+=@ ]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, or a folder or file in it.

    Attributes:
        repo: `owner/name`.
        path: folder or file in it; "" = all of it.
        revision: branch, tag or commit; None = main.
    """

    repo: str
    path: str = ""
    revision: str | None = None

    @property
    def text(self) -> str:
        """`owner/name/sub@revision`."""
        return (
            self.repo
            + (f"/{self.path}" if self.path else "")
            + (f"@{self.revision}" if self.revision else "")
        )


def is_reference(text: str) -> bool:
    """Whether a text could be an address on the hub (and no path in disguise)."""
    try:
        parse_reference(text)
    except InputError:
        return False
    return True


def parse_reference(text: str) -> Reference:
    """A repository or a folder in it from its address; `hf://` in front and `?revision=` behind are read too.

    Raises:
        InputError: it is no such address.
    """
    body = text.strip().removeprefix(URI)
    body, _, query = body.partition("?revision=")
    body, _, revision = (body, "", query) if query else body.partition("@")
    pieces = body.strip("/").split("/", 2)
    repo, path = "/".join(pieces[:2]), pieces[2] if len(pieces) > 2 else ""
    bad = body.startswith("/") or len(text) > MAX_CHARACTERS or len(pieces) < 2 or not is_hub_id(repo)
    if bad or (path and not is_safe(path)):
        raise InputError(
            f"{text[:80]!r} is no address on the Hugging Face hub",
            fix="Write owner/name, or owner/name/folder",
        )
    if revision:
        check_revision(revision)
    return Reference(repo, path, revision or None)


def is_safe(path: str) -> bool:
    """Whether a path stays inside its folder."""
    return bool(_PATH.fullmatch(path)) and not {"..", "."} & set(PurePosixPath(path).parts)


def local_folder(text: str) -> Path | None:
    """The folder on this machine that a text names; None where there is none."""
    try:
        path = Path(text).expanduser()
        return path if text.strip() and path.is_dir() else None
    except (RuntimeError, OSError):  # `~somebody` who does not exist, a name that is too long
        return None
