"""Talking to the hub with bounded waits and without its library's own notices, and the library as it was afterwards."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SECONDS_WITHOUT_A_BYTE = 120.0
"""How long the hub may say nothing; the library's own clients wait for ever."""


@contextmanager
def patient_hub() -> Iterator[None]:
    """Lets the hub's library wait so long and no longer, and say nothing itself, while the block runs."""
    from huggingface_hub import utils
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY  # a program may have set one of its own, for a proxy or its certificates

    def patient_client() -> Any:  # noqa: ANN401  (the library is optional)
        client = before()
        client.timeout = SECONDS_WITHOUT_A_BYTE
        return client

    logger = logging.getLogger("huggingface_hub")
    level, had_bars = logger.level, not utils.are_progress_bars_disabled()
    if had_bars:
        utils.disable_progress_bars()
    _http.set_client_factory(patient_client)
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if had_bars:
            utils.enable_progress_bars()
        _http.set_client_factory(before)
