"""The version of this program, written into every result; `pyproject.toml` says the same."""

__version__ = "0.1.0"
