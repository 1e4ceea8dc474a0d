"""A node that logs an exception has met a bug; what else it logs is nobody's business."""

from __future__ import annotations

import structlog

from simulations.logs import told_to
from tests.simulations.looking import broken, witness_of

log = structlog.get_logger(__name__)


def test_an_exception_breaks_a_promise_and_its_traceback_is_kept() -> None:
    witness = witness_of()
    with told_to(witness):
        log.info("all is well")
        log.error("disk-full", error="no room")
        assert not broken(witness)
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            log.exception("request-died")
            log.warning("again", exc_info=error)
            log.critical("and again", exc_info=(type(error), error, error.__traceback__))
    assert broken(witness) == ["no_bug_is_met"] * 2
    assert "request-died" in witness.violations[0].words
    assert "ZeroDivisionError" in witness.violations[0].words


def test_afterwards_logs_go_where_they_went() -> None:
    before = structlog.get_config()
    with told_to(witness_of()):
        assert structlog.get_config() != before
    assert structlog.get_config() == before
