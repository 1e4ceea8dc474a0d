"""Named bugs, each of which some story must find: else stories and checkers are worth little.

`python -m simulations mutants` hunts them, each in a process of its own, for which
`python -m simulations.mutants NAME` is the command: the bug is in the code from the first import.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from simulations.mutation import Change, StaleMutantError, install

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Mutant:
    """`scenario` and the number of seeds in which it must be found."""

    about: str
    changes: tuple[Change, ...]
    scenario: str = "trouble"
    seeds: int = 60


def _mutant(
    about: str, path: str, old: str, new: str, *, scenario: str = "trouble", seeds: int = 60
) -> Mutant:
    return Mutant(about, (Change(path, old, new),), scenario, seeds)


def _removed(promise: str) -> tuple[str, str]:
    """What the product watches itself: without it, only those outside can see the bug."""
    return f"must({promise},", "must(True,"


LEDGER = "node/core/task_ledger.py"
TERMS = "node/core/task_ledger_terms.py"
DESK = "node/core/worker_desk.py"
LEASE = "node/core/coordinator_lease.py"
CONNECTIVITY = "mesh/core/connectivity.py"
BREAKER = "mesh/core/breaker.py"
KEEPER = "node/core/detached_member.py"

MUTANTS: dict[str, Mutant] = {
    "no-fence": Mutant(
        "the submitter takes entries of terms that are not the present one",
        (
            Change(
                LEDGER,
                'if task.state != "running" or entry.term != task.term:',
                'if task.state != "running":',
            ),
            Change(LEDGER, *_removed("entry.term == after.term")),
        ),
        scenario="deposed",
    ),
    "no-order": Mutant(
        "the submitter takes entries in any order",
        (
            Change(
                LEDGER,
                "if entry.index != task.entries or entry.parent != task.last_digest:",
                "if entry.index < task.entries:",
            ),
            Change(LEDGER, *_removed("entry.index == before.entries")),
            Change(LEDGER, *_removed("entry.parent == before.last_digest")),
        ),
        scenario="deposed",
    ),
    "term-not-saved": _mutant(
        "a term is granted that is not on disk",
        TERMS,
        "return put(state, task), (Save(task), GrantTerm(task, standbys, before), Show(task))",
        "return put(state, task), (GrantTerm(task, standbys, before), Show(task))",
    ),
    "term-saved-late": _mutant(
        "a term is saved after it was granted",
        TERMS,
        "return put(state, task), (Save(task), GrantTerm(task, standbys, before), Show(task))",
        "return put(state, task), (GrantTerm(task, standbys, before), Save(task), Show(task))",
    ),
    "term-kept": _mutant(
        "the next coordinator gets the term of the last",
        TERMS,
        "term, before = task.term + 1, task.holders",
        "term, before = max(task.term, 1), task.holders",
    ),
    "no-patience": _mutant(
        "silence of a coordinator is never noticed",
        "node/core/task_ledger_state.py",
        "silence_s: float = 4.0",
        "silence_s: float = 1e9",
        scenario="deposed",
    ),
    "no-fence-at-worker": _mutant(
        "workers and coordinators serve any term",
        "node/core/fences.py",
        "if term < highest:",
        "if term < 0:",
        scenario="deposed",
    ),
    "lease-for-ever": _mutant(
        "a coordinator goes on although its lease is over",
        LEASE,
        "return now < self.until",
        "return True",
    ),
    "no-dedupe": _mutant(
        "a cell that was run is run again when it is asked for again",
        DESK,
        "return desk, AnswerAgain(done) if done and asked.cell in ran else RunOn()",
        "return desk, RunOn()",
        scenario="deposed",
    ),
    "any-session": Mutant(
        "a cell runs in whatever session there is, or a new one, whatever that has run",
        (
            Change(
                DESK,
                "if ran is not None and (_is_of(asked, ran, pasts) or (done and "
                "_is_of(asked, ran[:-1], pasts))):",
                "if ran is not None:",
            ),
            Change(DESK, "if asked.after:", "if False:"),
        ),
        scenario="deposed",
    ),
    "any-longer-session": _mutant(
        "a cell runs in a session that has run more than its asker thinks of, whatever that was",
        DESK,
        "return asked.after == ran and asked.past in {None, (NOTHING, *pasts)[len(ran)]}",
        "return asked.after == ran[: len(asked.after)]",
        scenario="improvised",
    ),
    "forgets-tasks": _mutant(
        "a node that was restarted does not know its tasks",
        "node/services/submitter.py",
        "self._driver.handle(task_ledger.Restored(task))",
        "pass",
    ),
    "never-redials": _mutant(
        "a peer that was lost is not dialled again",
        CONNECTIVITY,
        "act_at=max(now + wait_s, known.shunned_until),",
        "act_at=inf,",
    ),
    "no-refutation": _mutant(
        "who is held for dead does not contradict",
        "mesh/core/membership.py",
        "if table.has_left or not is_worse or not is_reasonable:",
        "if table.has_left or is_worse or not is_reasonable:",
        scenario="deposed",
    ),
    "resurrection": _mutant(
        "old news of a peer stands above that it was given up",
        "mesh/core/membership.py",
        "return is_above and claim.incarnation - known.incarnation <= INCARNATION_LEAP_MAX",
        "return claim.incarnation != known.incarnation or claim.state != known.state",
        scenario="deposed",
    ),
    "strangers-served": _mutant(
        "whoever is connected counts as a member",
        "mesh/membership_certificates.py",
        "Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)",
        "pass",
        scenario="liar",
    ),
    "no-sequence-window": _mutant(
        "old gossip that comes again counts as news",
        "mesh/core/telemetry_view.py",
        "return sequence > known.sequence",
        "return True",
        scenario="replay",
    ),
    "endless-time": _mutant(
        "each hop has more time than the one before it",
        "mesh/core/deadlines.py",
        "return max(0.0, remaining_s - rtt_s - margin_s)",
        "return 2.0 * remaining_s",
        scenario="home",
    ),
    "lost-task": _mutant(
        "the oldest of a node's tasks is not to be found any more",
        "node/services/submitter.py",
        "return tuple(self.latest(LISTED_MAX))",
        "return tuple(self.latest(LISTED_MAX))[:-1]",
        scenario="home",
    ),
    "never-opens": _mutant(
        "a breaker never opens",
        BREAKER,
        "if self._is_bad(has_failed):",
        "if False:",
        scenario="refusing",
        seeds=30,
    ),
    "leaks-probes": _mutant(
        "a breaker that is half open lets everything through to find out",
        BREAKER,
        "return not self.is_probing",
        "return True",
        scenario="refusing",
        seeds=30,
    ),
    "endless-tries": _mutant(
        "a budget of tries is never spent",
        "mesh/core/retry_budget.py",
        "if self.left(now) >= 1.0 else None",
        "if True else None",
        scenario="refusing",
        seeds=30,
    ),
    "closes-for-anybody": _mutant(
        "a session is closed at the word of any member that names its term",
        DESK,
        "return term > led or (led, by) in askers",
        "return True",
        scenario="deposed",
    ),
    "ends-on-a-full-disk": _mutant(
        "a coordinator whose disk is full ends the task for everybody",
        "node/services/coordination.py",
        'self.decline(no.reason, f"inputs: {no.detail}")',
        'self._finish = machine.Finish("failed", "", f"inputs: {no.detail}")',
        scenario="full",
    ),
    "old-time-left": _mutant(
        "a hop stamps the time left before its stream opens",
        "node/services/placed_work.py",
        "stamped = partial(_stamped, to=to, as_of_now=as_of_now, model=model)",
        "stamped = partial("
        "_stamped, to=to, as_of_now=as_of_now, model=model, remaining_s=to.remaining_s)",
        scenario="wifi",
    ),
    "one-vote-is-enough": Mutant(
        "a candidate for a detached task counts its own vote twice",
        (
            Change(KEEPER, "return state, (Note(state), ask)", "return _win(state, now)"),
            Change(KEEPER, *_removed("len(state.votes) >= state.majority")),
        ),
        scenario="detached",
        seeds=30,
    ),
    "no-is-a-vote": _mutant(
        "a candidate for a detached task takes a no for a vote",
        KEEPER,
        "if not heard.is_granted or heard.peer not in state.others:",
        "if heard.peer not in state.others:",
        scenario="detached",
    ),
    "vote-not-saved": _mutant(
        "a vote for who leads a detached task is given and not on disk",
        KEEPER,
        "return state, (Note(state), *retired, Answer(Granted(state.term, is_granted=True)))",
        "return state, (*retired, Answer(Granted(state.term, is_granted=True)))",
        scenario="detached",
        seeds=30,
    ),
    "votes-for-both": _mutant(
        "a keeper of a detached task votes for whoever asks",
        KEEPER,
        "is_free = state.voted_for in {None, wanted.peer}",
        "is_free = True",
        scenario="rivals",
    ),
    "counts-with-one": _mutant(
        "an entry of a detached task counts once its leader has it",
        KEEPER,
        "common = held[state.majority - 1]",
        "common = held[0]",
        scenario="detached",
        seeds=30,
    ),
    "votes-for-who-has-less": Mutant(
        "a keeper of a detached task votes for one that lacks what counts",
        (
            Change(
                KEEPER,
                "(wanted.confirmed, wanted.entries) >= (state.confirmed, state.entries)",
                "True",
            ),
            Change(KEEPER, *_removed("cut_to >= state.committed")),
        ),
        scenario="detached",
    ),
    "hints-displace": Mutant(
        "an announcement on the network displaces where a peer was proven to be",
        (
            Change(CONNECTIVITY, "sure = known.sure_addresses", "sure = known.addresses[:0]"),
            Change(
                "mesh/core/connectivity_state.py",
                "assert set(peer.sure_addresses) <= set(peer.addresses), "
                '"a hint has displaced what was proven"',
                "pass",
            ),
        ),
        scenario="strangers",
    ),
    "endless-hearsay": _mutant(
        "as many peers are kept in mind as anybody cares to announce",
        CONNECTIVITY,
        "if too_many <= 0:",
        "if True:",
        scenario="strangers",
    ),
    "dials-everybody": _mutant(
        "whoever is announced is dialled, all of them at a time",
        "mesh/connections.py",
        "HEARSAY_DIALS_AT_A_TIME = 4",
        "HEARSAY_DIALS_AT_A_TIME = 1000",
        scenario="strangers",
    ),
    "invite-for-ever": _mutant(
        "an invite that was spent lets in whoever shows it next",
        "mesh/invites.py",
        "replace(invite, uses_left=invite.uses_left - 1)",
        "replace(invite, uses_left=invite.uses_left)",
        scenario="strangers",
    ),
    "any-proof": _mutant(
        "whoever can name an invite is let in with it",
        "mesh/admission.py",
        "if not certificates.is_invite_proof(secret, transcript, shown.proof) or invite is None:",
        "if invite is None:",
        scenario="strangers",
    ),
    "strangers-stay": _mutant(
        "who never says who it is may stay",
        "mesh/core/connectivity_params.py",
        "stranger_s: float = 30.0",
        "stranger_s: float = 1e9",
        scenario="strangers",
    ),
    "notices-while-stopped": _mutant(
        "a stopped process hears of a lost connection at once (the simulator's own)",
        "mesh/loopback_transport.py",
        "if self.wires.awake_at(peer) > now:",
        "if False:",
    ),
    "beyond-reason": _mutant(
        "telemetry may say what is no number",
        "protocol/messages/base.py",
        "Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]",
        "Fraction = float",
        scenario="liar",
    ),
}


@dataclass(frozen=True, slots=True)
class Hunt:
    """How it went with one mutant. `found`: the promise it broke first, empty if it survived."""

    name: str
    found: str
    seeds: int
    """Stories that were told, the last one included."""
    wall_s: float


def hunt(name: str) -> Hunt:
    """Tell stories with the bug in the code until one breaks a promise. Once in a process.

    Raises:
        StaleMutantError: the line that it changes is not there any more.
    """
    mutant = MUTANTS[name]
    for change in mutant.changes:
        change.check()
    install(mutant.changes)
    from simulations import scenarios, seeds  # noqa: PLC0415 after the change

    began = time.perf_counter()
    scenario = scenarios.load(mutant.scenario)
    told, found = 0, ""
    for outcome in seeds.run(scenario, range(1, mutant.seeds + 1), jobs=1):
        told += 1
        if not outcome.is_fine:
            crash = outcome.crash.strip().rpartition("\n")[2]
            found = str(outcome.violation) if outcome.violation else f"fell over: {crash}"
            break
    return Hunt(name, found, told, time.perf_counter() - began)


def hunt_all(names: Iterable[str], *, jobs: int) -> Iterator[Hunt]:
    """Hunt each in a process of its own, so many at a time; as they are done.

    Raises:
        StaleMutantError: of the first that is, before any is hunted.
    """
    wanted = list(names)
    for name in wanted:
        for change in MUTANTS[name].changes:
            change.check()
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(_hunt_elsewhere, name) for name in wanted]):
            yield done.result()


def _hunt_elsewhere(name: str) -> Hunt:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.mutants", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StaleMutantError(f"{name}: {done.stderr.strip().rpartition(chr(10))[2]}")
    return Hunt(**json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(asdict(hunt(sys.argv[1]))))
