import pytest

from kowalski.mesh.core.scorer import code_score, folding_score, inference_score

# Each row recomputed by hand from the published formulas, which count milliseconds.


@pytest.mark.parametrize(
    ("load", "rtt_ms", "score"),
    [
        (0.0, 0.0, 1.0),  # 0.6 + 0.4
        (0.0, 100.0, 0.8),  # 0.6 + 0.4 / 2
        (0.5, 100.0, 0.5),  # 0.3 + 0.2
        (1.0, 300.0, 0.1),  # 0 + 0.4 / 4
        (2.0, 0.0, -0.2),  # -0.6 + 0.4: a queue as long as the machine is wide
        (0.25, 25.0, 0.77),  # 0.45 + 0.4 / 1.25
    ],
)
def test_code_weighs_load_six_to_four_against_the_round_trip(
    load: float, rtt_ms: float, score: float
) -> None:
    assert code_score(load=load, rtt_s=rtt_ms / 1000) == pytest.approx(score)


@pytest.mark.parametrize(
    ("memory_used", "tokens_per_s", "score"),
    [
        (0.0, 100.0, 1.0),
        (0.0, 400.0, 1.0),  # no more than 100 tokens/s count
        (1.0, 0.0, 0.0),
        (0.5, 50.0, 0.5),  # 0.2 + 0.3
        (0.25, 10.0, 0.36),  # 0.3 + 0.06
    ],
)
def test_inference_weighs_memory_four_to_six_against_speed(
    memory_used: float, tokens_per_s: float, score: float
) -> None:
    assert inference_score(memory_used=memory_used, tokens_per_s=tokens_per_s) == pytest.approx(
        score
    )


@pytest.mark.parametrize(("rtt_ms", "score"), [(0.0, 1.0), (10.0, 0.5), (30.0, 0.25), (90.0, 0.1)])
def test_folding_wants_the_nearest(rtt_ms: float, score: float) -> None:
    assert folding_score(rtt_s=rtt_ms / 1000) == pytest.approx(score)
