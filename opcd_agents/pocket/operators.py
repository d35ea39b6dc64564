"""A made-up binary operator on digits: its rule in words, a worked answer, and a split that is held out.

Shared by the curriculum and the `math/operator` environment. Knows no tokens, models or environments.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

SYMBOLS = ("#", "@", "~", "%")


@dataclass(frozen=True)
class Operator:
    """`a symbol b` is the last digit of `p a + q b`; all of a, b, p, q are digits, p and q not 0."""

    symbol: str
    p: int
    q: int

    @property
    def rule(self) -> str:
        """The definition, as notes state it."""
        return f"a {self.symbol} b is the last digit of {self.p} a plus {self.q} b."

    @property
    def held_out(self) -> bool:
        """Whether this operator is kept out of every curriculum (about a fifth are)."""
        return hashlib.sha256(f"{self.symbol}{self.p}{self.q}".encode()).digest()[0] < 52

    def __call__(self, a: int, b: int) -> int:
        """The result for two digits: a digit."""
        return (self.p * a + self.q * b) % 10

    def question(self, a: int, b: int) -> str:
        """The question for two digits."""
        return f"What is {a} {self.symbol} {b} ?"

    def reply(self, a: int, b: int, p: int | None = None, q: int | None = None) -> str:
        """A worked answer; `p` and `q` differ from the operator's own where the rule is guessed."""
        p, q = p or self.p, q or self.q
        left, right = p * a % 10, q * b % 10
        steps = f"{p} times {a} is {left}. {q} times {b} is {right}. {left} plus {right} is {(left + right) % 10}."
        return f"{steps}\n> {(left + right) % 10}"


def sample_operator(rng: np.random.Generator, held_out: bool) -> Operator:
    """Draw an operator from one side of the split."""
    while True:
        drawn = Operator(str(rng.choice(SYMBOLS)), int(rng.integers(1, 10)), int(rng.integers(1, 10)))
        if drawn.held_out == held_out:
            return drawn
