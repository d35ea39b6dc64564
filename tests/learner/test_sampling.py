"""A draw is exact, is decided by its uniform number alone, and never lands on what cannot be."""

import numpy as np
import pytest
import torch

from opcd_agents.errors import ModelError
from opcd_agents.policies.sampling import draw

BELOW_ONE = float(np.nextafter(1.0, 0.0))


def logits_of(vocabulary: int, skew: float, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * skew


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(count))


def chi_square(ids: torch.Tensor, p: np.ndarray) -> float:
    """Pearson's statistic a degree of freedom; ids expected fewer than 5 times count as one."""
    counts, expected = np.bincount(ids.numpy(), minlength=len(p)), p * len(ids)
    common = expected >= 5
    pairs = [*zip(counts[common], expected[common], strict=True), (counts[~common].sum(), expected[~common].sum())]
    cells = [(n, e) for n, e in pairs if e >= 5]
    return sum((n - e) ** 2 / e for n, e in cells) / max(1, len(cells) - 1)


@pytest.mark.parametrize("vocabulary", [7, 512, 513, 1000])
@pytest.mark.parametrize(("skew", "temperature"), [(0.0, 1.0), (2.0, 0.5), (8.0, 1.7)])
def test_it_is_exact(vocabulary, skew, temperature):
    logits, n = logits_of(vocabulary, skew), 60_000
    p = torch.softmax(logits[0].double() / temperature, -1).numpy()
    ids = torch.cat([draw(logits.repeat(5000, 1), temperature, u)[0] for u in uniform(n).split(5000)])
    degrees = max(1, int((p * n >= 5).sum()))
    assert chi_square(ids, p) < 1 + 4.5 * np.sqrt(2 / degrees) + 4 / degrees


@pytest.mark.parametrize("vocabulary", [7, 1000, 5000])
@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_the_score_is_the_tempered_log_probability(vocabulary, temperature):
    logits = logits_of(vocabulary, 3.0, 50)
    ids, scores = draw(logits.clone(), temperature, uniform(50))
    wanted = torch.log_softmax(logits.double() / (temperature or 1), -1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(scores, wanted, atol=2e-6, rtol=0)


def test_temperature_zero_takes_the_likeliest():
    logits = logits_of(3000, 2.0, 20)
    assert torch.equal(draw(logits.clone(), 0, uniform(20))[0], logits.argmax(-1))


@pytest.mark.parametrize("vocabulary", [7, 512, 1025, 3000])
@pytest.mark.parametrize("u", [0.0, 5e-324, 0.5, BELOW_ONE])
def test_what_cannot_be_is_never_drawn(vocabulary, u):
    """Also at the very ends, where rounding meets ids of probability 0, and in blocks of nothing else."""
    logits = logits_of(vocabulary, 3.0, 64)
    logits[torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = -torch.inf
    logits[:, : vocabulary // 3] = logits[:, -(vocabulary // 3) :] = -torch.inf
    logits[:, vocabulary // 2] = 0.0
    ids, scores = draw(logits.clone(), 1.0, torch.full((64,), u, dtype=torch.double))
    assert logits.gather(1, ids[:, None]).isfinite().all()
    assert scores.isfinite().all()


def test_the_ends_are_the_first_and_the_last_id():
    logits = torch.zeros(2, 1300)
    assert draw(logits, 1.0, torch.tensor([0.0, BELOW_ONE], dtype=torch.double))[0].tolist() == [0, 1299]


@pytest.mark.parametrize("vocabulary", [7, 1000, 32_000])
@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_a_row_does_not_depend_on_its_neighbours(vocabulary, temperature):
    """To the bit."""
    logits, u = logits_of(vocabulary, 2.0, 33), uniform(33)
    ids, scores = draw(logits.clone(), temperature, u)
    for rows in ([0], [5, 32], list(range(32, -1, -1)), list(range(7, 20))):
        some_ids, some_scores = draw(logits[rows].clone(), temperature, u[rows])
        assert torch.equal(some_ids, ids[rows])
        assert torch.equal(some_scores, scores[rows])


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_what_is_no_distribution_is_refused(odd):
    logits = torch.zeros(3, 600)
    logits[1, 599] = odd
    with pytest.raises(ModelError, match="finite logits"):
        draw(logits, 1.0, uniform(3))
    with pytest.raises(ModelError, match="finite logits"):
        draw(torch.full((1, 9), -torch.inf), 0, uniform(1))
