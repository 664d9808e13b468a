"""Errors that a user can cause or meet, each told in one sentence: what happened, why, and what to do.

Everything raised on purpose derives from `LanternError`; a page or the command line shows `str(error)` and
nothing else. `Cancelled` derives from BaseException, like KeyboardInterrupt, so that no `except Exception`
can swallow a user's wish to stop.
"""


class LanternError(Exception):
    """A mistake or a limit, explained.

    Args:
        what: what happened, a short clause without a full stop.
        why: the cause, a clause or sentence.
        fix: what the user can do about it, a sentence.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what.rstrip("."), why.rstrip("."), fix.rstrip(".")
        text = self.what + (f": {self.why}" if self.why else "") + "."
        super().__init__(text + (f" {self.fix}." if self.fix else ""))


class InputError(LanternError):
    """Something that the user typed, uploaded or linked cannot be used."""


class ModelError(LanternError):
    """A model cannot be found, read or used.

    Args:
        what: see `LanternError`.
        kind: machine-readable cause: "missing", "gated", "offline", "not_causal_lm", "corrupt",
            "pickle_only", "unsupported", "too_big", "device".
        why: see `LanternError`.
        fix: see `LanternError`.
    """

    def __init__(self, what: str, *, kind: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.kind = kind


class TranscoderError(LanternError):
    """A transcoder's files cannot be found, read or used.

    Args:
        what: see `LanternError`.
        kind: machine-readable cause: "missing", "shape", "no_decoder", "mismatch" (made for another model),
            "offline", "unsupported", "corrupt".
        why: see `LanternError`.
        fix: see `LanternError`.
    """

    def __init__(self, what: str, *, kind: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.kind = kind


class SiteMissing(LanternError):
    """A site was asked for that this model does not have."""


class EditError(LanternError):
    """An edit is malformed, does not fit its site, or never took effect."""


class OutOfMemory(LanternError):
    """The device has too little memory, even for the smallest chunk."""


class Cancelled(BaseException):
    """The user asked to stop; raised by progress callbacks, never swallowed."""
