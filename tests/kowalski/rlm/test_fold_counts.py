from __future__ import annotations

from kowalski.rlm.fold_counts import FoldCounts


def test_folds_add_up_and_nothing_folded_is_a_ratio_of_one() -> None:
    assert FoldCounts().ratio == 1
    counts = FoldCounts().folded(300, 100).folded_by_model(100, 20, facts=9, facts_kept=7)
    assert counts == FoldCounts(2, 1, 400, 120, 9, 7)
    assert counts.ratio == 0.3
    assert counts.unfolded().unfolds == 1
