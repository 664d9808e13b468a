"""Calls into transformers that keep its voice to themselves.

transformers logs and draws progress bars for the whole process. During a call of ours both are caught, for
our thread only, and afterwards everything is as it was.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# transformers sets torch's default number format for the whole process while it builds a model.
_ALONE = threading.RLock()


class _Listener(logging.Handler):
    """Keeps what one thread logs."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self.thread, self.messages = thread, []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())


@contextmanager
def quiet_transformers() -> Iterator[list[str]]:
    """Run a call into transformers without output, one at a time.

    Yields:
        What it logs, in order.
    """
    from transformers.utils import logging as hf_logging

    thread = threading.get_ident()
    listener = _Listener(thread)

    def others_only(record: logging.LogRecord) -> bool:
        return record.thread != thread

    def no_bar(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        silent = threading.get_ident() == thread
        return factory(*args, **({**options, "disable": True} if silent else options))

    root = hf_logging.get_logger("transformers")
    with _ALONE:
        handlers = list(root.handlers)
        hook = hf_logging.set_tqdm_hook(no_bar)
        for handler in handlers:
            handler.addFilter(others_only)
        root.addHandler(listener)
        try:
            yield listener.messages
        finally:
            root.removeHandler(listener)
            for handler in handlers:
                handler.removeFilter(others_only)
            hf_logging.set_tqdm_hook(hook)
