"""Who was appointed, kept for those who ask."""

from __future__ import annotations

from kowalski.node.core.appointments import TASKS_KEPT, TERMS_KEPT, Appointment, AppointmentBook
from kowalski.protocol.ids import PeerId, TaskId

PEER = PeerId("12D3KooWBox")
TASK = TaskId("t")


def made(term: int, at: float = 0.0) -> Appointment:
    return Appointment(at, term, PEER, "", {PEER: 1.0})


def test_the_terms_of_a_task_are_kept_in_order() -> None:
    book = AppointmentBook().appoint(TASK, made(1)).appoint(TASK, made(3))
    assert [one.term for one in book.of(TASK)] == [1, 3]
    assert book.of(TaskId("other")) == ()


def test_a_term_granted_again_is_the_appointment_that_it_was() -> None:
    book = AppointmentBook().appoint(TASK, made(1, at=5.0))
    assert book.appoint(TASK, made(1, at=9.0)) == book


def test_the_oldest_terms_and_tasks_are_forgotten() -> None:
    book = AppointmentBook()
    for term in range(1, TERMS_KEPT + 3):
        book = book.appoint(TASK, made(term))
    assert [one.term for one in book.of(TASK)] == list(range(3, TERMS_KEPT + 3))
    for number in range(TASKS_KEPT):
        book = book.appoint(TaskId(f"t{number}"), made(1))
    assert len(book.tasks) == TASKS_KEPT
    assert book.of(TASK) == (), "it was appointed to longest ago"
