"""What the loop was promised to do, criterion by criterion, and the tests that show each.

The criteria are those of the project's study of recursive language models, A1 to A26. A number that
depends on the machine is held to in `benchmarks/` and told in docs/benchmarks.md, not here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.architecture.source_tree import ROOT


@dataclass(frozen=True, slots=True)
class Criterion:
    """`shown_by`: the names of tests by their file, below tests/."""

    says: str
    shown_by: Mapping[str, tuple[str, ...]]
    measured_by: str = ""


PLAYED = "integration/test_recorded_trajectories.py"
LOSSES = "integration/test_loop_losses.py"
RLM = "kowalski/rlm/"
SERVICES = "node/services/"
REPL = "node/repl/"

EACH_TURN = "test_each_turn_runs_what_it_should_shows_what_came_and_ends_as_it_should"

CRITERIA: Mapping[str, Criterion] = {
    "A1": Criterion(
        "the newest reply alone is run, each block once; blocks of the prompt leave no trace",
        {
            PLAYED: (EACH_TURN,),  # "one block again"
            f"{RLM}test_session_rlm.py": (
                "test_only_the_newest_reply_is_run_and_each_block_once",
                "test_blocks_of_the_prompt_and_of_outputs_are_not_run",
            ),
        },
    ),
    "A2": Criterion(
        "variables survive an exception, functions see later globals, `_x` stays",
        {
            PLAYED: (EACH_TURN,),  # "exceptions"
            f"{REPL}kernels/test_python_kernel.py": (
                "test_variables_assigned_before_an_exception_stay",
                "test_functions_see_globals_of_later_cells",
            ),
        },
    ),
    "A3": Criterion(
        "exits, crashes and memory hogs end no node; the session is made again, the model told",
        {
            PLAYED: (EACH_TURN,),  # "exits", "runaway output"
            f"{REPL}test_cell_run.py": (
                "test_a_dead_process_ends_the_session_and_not_us",
                "test_shared_memory_above_the_limit_kills_the_session",
            ),
            f"{REPL}test_hostile.py": ("test_no_cell_gets_out_stays_or_takes_more_than_its_share",),
        },
    ),
    "A4": Criterion(
        "a cell ends in time whatever it does, with what it had printed, and leaves no process",
        {
            PLAYED: (EACH_TURN,),  # "no end"
            f"{REPL}test_cell_run.py": (
                "test_a_cell_out_of_time_is_interrupted_and_its_state_kept",
                "test_a_cell_that_heeds_nothing_is_killed_with_its_session",
            ),
            f"{REPL}test_hostile.py": ("test_no_cell_gets_out_stays_or_takes_more_than_its_share",),
        },
    ),
    "A5": Criterion(
        "cancelled from any peer: over within a second, no call afterwards, the rest is kept",
        {
            f"{SERVICES}test_grouped_questions.py": (
                "test_a_task_cancelled_in_the_middle_of_a_thousand_asks_no_model_any_more",
            ),
            f"{SERVICES}test_coordination.py": (
                "test_cancel_stops_the_cell_within_a_second_and_keeps_what_there_is",
            ),
            f"{SERVICES}test_mesh_tasks.py": (
                "test_a_task_is_cancelled_from_any_peer_within_a_second",
            ),
        },
    ),
    "A6": Criterion(
        "a batch keeps its order; what fails is tried elsewhere, or is an error in its slot alone",
        {
            f"{SERVICES}test_session_hands.py": (
                "test_a_thousand_sub_calls_come_back_in_their_order",
                "test_a_sub_call_that_fails_is_an_error_in_its_slot_alone",
            ),
            f"{SERVICES}test_grouped_questions.py": (
                "test_of_a_thousand_those_that_a_peer_fails_are_answered_by_another",
                "test_of_a_thousand_those_that_all_peers_fail_are_errors_in_their_places",
            ),
            f"{SERVICES}test_placed_groups.py": (
                "test_what_is_lost_with_a_peer_is_asked_elsewhere_and_nothing_twice",
            ),
            f"{REPL}kernels/test_python_kernel.py": (
                "test_a_batch_keeps_its_order_and_a_failed_slot_is_an_error_value",
            ),
        },
    ),
    "A7": Criterion(
        "unequal peers: within 1.3 of the ideal, twice as fast as taking turns",
        {
            "simulations/test_placement.py": (
                "test_offers_come_near_to_one_who_knows_everything_and_far_from_the_best_score",
            ),
            "mesh/core/test_placement.py": (
                "test_inference_goes_to_the_faster_until_it_has_to_share",
            ),
            f"{SERVICES}test_placed_groups.py": ("test_unequal_peers_are_asked_as_they_are_quick",),
            "node/core/test_batch_tail.py": (
                "test_a_batch_ends_about_as_soon_as_it_could",
                "test_the_slowest_gets_none_of_the_last_ones",
            ),
        },
        measured_by="batches",
    ),
    "A8": Criterion(
        "stragglers: a second peer is asked, few requests are sent twice, none counts twice",
        {
            f"{SERVICES}test_placing.py": (
                "test_a_straggler_is_overtaken_and_stopped",
                "test_what_is_usual_is_not_hedged",
            ),
            f"{SERVICES}test_placed_groups.py": (
                "test_one_that_takes_far_too_long_holds_neither_its_group_nor_its_batch_up",
            ),
            "node/core/test_question_groups.py": ("test_no_more_than_one_in_fifty_is_asked_again",),
            "mesh/core/test_hedging.py": ("test_at_no_time_more_than_one_in_twenty_was_hedged",),
        },
    ),
    "A9": Criterion(
        "a peer that always fails is left out and tried once in a while; programs are no failures",
        {
            f"{SERVICES}test_dispatch.py": (
                "test_a_peer_that_fails_three_times_is_left_out_for_a_while_and_then_tried_once",
                "test_a_program_that_fails_is_not_held_against_its_peer",
            ),
            "mesh/core/test_breaker.py": (
                "test_an_open_one_admits_nobody_until_its_time_is_over_then_exactly_one",
            ),
        },
    ),
    "A10": Criterion(
        "one budget for the whole tree; what is told is what the servers counted",
        {
            f"{SERVICES}test_child_sessions.py": (
                "test_calls_of_the_whole_tree_are_counted_as_the_servers_count_them",
                "test_children_draw_on_the_budget_of_the_task",
            ),
            f"{SERVICES}test_grouped_questions.py": (
                "test_a_budget_of_calls_holds_for_many_at_once",
            ),
        },
        measured_by="rlm",
    ),
    "A11": Criterion(
        "the executor is killed: the same answer, no call of a model more",
        {
            LOSSES: (
                "test_an_executor_killed_after_half_of_twenty_cells_costs_no_call_of_a_model",
            ),
            f"{SERVICES}test_task_cells.py": (
                "test_a_cell_whose_worker_dies_is_run_elsewhere_on_the_same_variables",
            ),
        },
    ),
    "A12": Criterion(
        "the coordinator is killed in a batch: no slot is lost or committed twice; it is fenced",
        {
            LOSSES: ("test_a_coordinator_killed_in_the_middle_of_groups_has_nothing_asked_twice",),
            f"{SERVICES}test_outliving.py": (
                "test_a_batch_of_sub_calls_is_not_asked_again_when_its_coordinator_dies",
            ),
            "integration/test_losses.py": (
                "test_a_coordinator_that_was_stopped_for_a_while_changes_nothing_when_it_goes_on",
            ),
        },
    ),
    "A13": Criterion(
        "of a mesh that is split, the majority alone commits; nothing is there twice afterwards",
        {
            f"{SERVICES}test_outliving.py": (
                "test_a_coordinator_that_is_cut_off_from_all_waits_and_is_not_the_one_who_goes_on",
                "test_it_is_over_for_a_coordinator_when_another_leads_even_if_its_submitter_is_gone",
            ),
            f"{SERVICES}test_detached.py": (
                "test_a_leader_that_is_cut_off_stops_and_the_two_others_finish",
            ),
        },
    ),
    "A14": Criterion(
        "everything stops and starts again: the task goes on where it was",
        {
            f"{SERVICES}test_outliving.py": (
                "test_every_process_is_killed_at_once_and_the_task_goes_on_where_it_was",
            ),
            f"{SERVICES}test_mesh_tasks.py": (
                "test_a_task_that_ran_out_of_time_goes_on_without_asking_its_model_again",
            ),
        },
    ),
    "A15": Criterion(
        "questions over megabytes are answered exactly; the data goes to a peer once",
        {
            "soak/test_reading.py": (
                "test_a_megabyte_is_read_through_cells_and_sub_calls_and_answered_exactly",
            ),
            f"{SERVICES}test_repl.py": ("test_an_input_is_fetched_once_and_seen_by_its_name",),
        },
        measured_by="make reading: 10 and 100 MB",
    ),
    "A16": Criterion(
        "twenty turns over 10 MB leave 12 MB at most; a trace as the reference's viewer reads it",
        {
            PLAYED: ("test_twenty_turns_over_ten_megabytes_leave_twelve_on_the_disk",),
            f"{RLM}test_trajectory.py": (
                "test_each_reply_is_an_iteration_with_what_it_was_shown_and_what_its_code_did",
                "test_what_a_child_session_did_stands_with_the_call_that_began_it",
            ),
        },
    ),
    "A17": Criterion(
        "a window too long is folded under its limit; originals stay, planted facts survive",
        {
            f"{RLM}test_window.py": (
                "test_a_window_that_does_not_fit_is_folded_before_the_next_question",
                "test_nothing_is_lost_by_folding",
                "test_what_a_fold_saved_is_noted",
            ),
            f"{RLM}test_folding.py": ("test_planted_facts_survive",),
            f"{SERVICES}test_sub_calls.py": (
                "test_a_folded_window_is_unfolded_byte_for_byte_and_history_holds_all",
            ),
            "mesh/core/test_placement.py": ("test_folding_goes_to_the_nearest",),
        },
        measured_by="folding",
    ),
    "A18": Criterion(
        "answers are judged: the threshold ends, length never counts, patience ends a plateau",
        {
            f"{RLM}test_readiness.py": (
                "test_a_task_ends_at_the_first_answer_that_is_judged_good_enough",
                "test_length_never_counts_and_a_short_answer_is_judged_like_any_other",
                "test_scores_that_do_not_rise_end_by_patience_with_the_best_answer",
            ),
        },
    ),
    "A19": Criterion(
        "invented output is ignored and the real one shown",
        {
            PLAYED: (EACH_TURN,),  # "invented output"
            f"{RLM}test_session_rlm.py": ("test_what_stands_beside_a_block_is_no_answer",),
        },
    ),
    "A20": Criterion(
        "replies without code, with odd or broken fences: one clear hint, no crash",
        {
            PLAYED: (EACH_TURN,),  # "wrong fences", "odd fences", "says nothing"
            f"{RLM}test_session_rlm.py": (
                "test_a_reply_without_code_gets_one_clear_hint",
                "test_odd_replies_that_hold_code_are_run",
            ),
            f"{RLM}test_parsing.py": (
                "test_a_line_of_a_megabyte_is_code_like_any_other",
                "test_any_text_can_be_read",
            ),
        },
    ),
    "A21": Criterion(
        "python, js and bash keep their state, compiled languages say that they do not",
        {
            f"{REPL}kernels/test_python_kernel.py": ("test_functions_see_globals_of_later_cells",),
            f"{REPL}kernels/test_js_kernel.py": (
                "test_declarations_of_every_kind_stay_across_cells",
            ),
            f"{REPL}kernels/test_bash_kernel.py": (
                "test_variables_functions_and_folder_stay_across_cells",
            ),
            f"{REPL}kernels/test_compiled_kernels.py": (
                "test_a_session_that_ran_something_before_leaves_nothing_for_others",
            ),
            "integration/test_bad_input.py": ("test_a_language_that_no_peer_runs",),
        },
    ),
    "A22": Criterion(
        "an answer of a shape: what does not fit goes back, after so many tries it is an error",
        {
            PLAYED: (EACH_TURN,),  # "shape"
            f"{RLM}test_readiness.py": (
                "test_what_does_not_fit_goes_back_to_the_model",
                "test_after_so_many_tries_the_error_holds_the_raw_value",
            ),
        },
    ),
    "A23": Criterion(
        "the same question twice is one call, unless that is not wanted; it is counted",
        {
            PLAYED: ("test_what_is_asked_twice_in_a_task_is_asked_of_the_model_once",),
            f"{SERVICES}test_child_sessions.py": (
                "test_what_is_asked_twice_is_answered_once_unless_that_is_not_wanted",
            ),
        },
    ),
    "A24": Criterion(
        "fifty tasks at once see nothing of each other, of the device, or of the network",
        {
            f"{SERVICES}test_parallel_tasks.py": (
                "test_fifty_tasks_at_once_see_nothing_of_each_other",
            ),
            f"{REPL}test_bubblewrap.py": ("test_no_attempt_to_get_out_succeeds",),
        },
    ),
    "A25": Criterion(
        "a turn costs the same at two hundred as at ten",
        {f"{RLM}test_session_rlm.py": ("test_a_long_session_builds_each_message_once",)},
        measured_by="rlm",
    ),
    "A26": Criterion(
        "the Python API: builder, tasks, batches, subscriptions, cancelling, its errors",
        {
            "kowalski/test_own_node.py": ("test_a_program_alone_on_a_device_has_all_of_it",),
            "kowalski/test_client.py": (
                "test_progress_of_all_tasks_or_of_one",
                "test_measurements_come_at_once_and_again_and_survive_a_node_that_is_away",
                "test_cancelling_resuming_and_files_of_tasks",
            ),
            "kowalski/test_errors.py": ("test_each_code_has_its_error",),
        },
        measured_by="rlm",
    ),
}


def names_in(path: str) -> dict[str, list[str]]:
    """The tests of a file, each with the names of its marks."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {
        node.name: [ast.unparse(mark).partition("(")[0] for mark in node.decorator_list]
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_criterion_is_there_and_none_besides() -> None:
    assert list(CRITERIA) == [f"A{number}" for number in range(1, 27)]


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_is_shown_by_tests_that_exist_and_run(name: str) -> None:
    shown_by = CRITERIA[name].shown_by
    assert shown_by
    assert all(shown_by.values())
    for path, names in shown_by.items():
        there = names_in(path)
        for one in names:
            assert one in there, f"{path} has no {one}"
            assert not {"pytest.mark.skip", "pytest.mark.xfail"} & set(there[one]), one
