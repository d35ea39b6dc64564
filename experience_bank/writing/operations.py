"""Rules that a model adds to, confirms, rewords and objects to, batch after batch: the scheme of ExpeL. Writes to no bank.

After ExpeL (arXiv 2308.10144): each batch sees the rules as the batches before it left them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, final

from experience_bank.codec import lesson_id
from experience_bank.layer import chunks
from experience_bank.lessons import Status
from experience_bank.scopes import holding
from experience_bank.writing import grammar
from experience_bank.writing.deltas import Add, Agree, Batch, Delta, Edit, Remove
from experience_bank.writing.items import lesson
from experience_bank.writing.ledger import Ledger
from experience_bank.writing.quote import BAR, one_line
from experience_bank.writing.records import Known, Shown, allowed, largest, unfit
from experience_bank.writing.statements import RefusedError
from experience_bank.writing.writer import STREAM, Question, Writer, ask
from opcd_agents.errors import UsageError
from opcd_agents.types import Lesson

MOST: Final = 4  # operations a reply
SHOWN: Final = 20  # rules a prompt
_WON: Final = 8  # episodes a batch
_BY: Final = "operations"

Rule = tuple[str, Lesson]


def comparisons(episodes: Iterable[Known]) -> list[tuple[Known, ...]]:
    """What ExpeL shows together: a won and a lost episode of one task, then the won ones of a scope, eight at a time.

    Args:
        episodes: (id, episode) pairs. Those that failed in their engine are passed over.
    """
    tasks: dict[tuple[str, str], list[Known]] = defaultdict(list)
    won: dict[str, list[Known]] = defaultdict(list)
    for key, episode in episodes:
        if unfit([(key, episode)]):
            continue
        tasks[episode.task.scope, episode.task.fingerprint].append((key, episode))
        if episode.won:
            won[episode.task.scope].append((key, episode))
    pairs: list[tuple[Known, ...]] = []
    for played in tasks.values():
        good, bad = [k for k in played if k[1].won], [k for k in played if not k[1].won]
        pairs += zip(good, bad, strict=False)
    return pairs + [tuple(part) for wins in won.values() for part in chunks(wins, _WON)]


def write_operations(
    writer: Writer,
    batches: Iterable[Sequence[Known]],
    rules: Iterable[Rule] = (),
    votes: Mapping[str, Sequence[float]] | None = None,
    *,
    seed: int = 0,
) -> Iterator[Batch]:
    """At most four operations from each batch of episodes.

    Args:
        writer: The model.
        batches: Episodes of one scope each, as `comparisons` gives them.
        rules: The active lessons, as a bank gives them. Only those of kind `strategy` are shown: what was mined from
            episodes is not a model's to change.
        votes: The bank's votes on them.
        seed: Seed of the model's chance.

    Returns:
        One batch a batch, as soon as it is written.

    Raises:
        UsageError: A batch is empty or of several scopes, or an episode belongs to the test split. Nothing was asked.
    """
    shown = [tuple(allowed(batch)) for batch in batches]
    for batch in shown:
        if len(scopes := sorted({episode.task.scope for _, episode in batch})) != 1:
            raise UsageError(f"wanted a batch of episodes of one scope, got scopes {scopes}; see `comparisons`")
    return _written(writer, shown, _Rules(rules, votes or {}), seed)


@final
class _Rules:
    """The rules as they are after the deltas so far."""

    def __init__(self, rules: Iterable[Rule], votes: Mapping[str, Sequence[float]]) -> None:
        self._rules = {key: known for key, known in rules if known.kind == "strategy"}
        self._ledger = Ledger(dict.fromkeys(self._rules, Status.ACTIVE), votes)

    def best(self, scope: str) -> list[Rule]:
        """The active rules that hold for a scope, the highest counter first."""
        near = holding(scope)
        found = [(k, known) for k, known in self._rules.items() if known.scope in near and self._ledger.is_active(k)]
        return sorted(found, key=lambda rule: (-self._ledger.counter(rule[0]), rule[0]))

    def take(self, deltas: Sequence[Delta]) -> None:
        """Go on with what a model wants."""
        for delta in deltas:
            if self._ledger.take(delta) and not isinstance(delta, Remove):
                self._rules.setdefault(lesson_id(delta.lesson), delta.lesson)


def _written(writer: Writer, batches: Sequence[tuple[Known, ...]], rules: _Rules, seed: int) -> Iterator[Batch]:
    for number, batch in enumerate(batches):
        scope = batch[0][1].task.scope
        kept, text = _listed(writer, rules.best(scope))
        read = partial(_read, rules=kept, model=writer.policy.name)
        question = Question(_BY, batch, MOST, seed * STREAM + number, read, several=True, lessons={"rules": text})
        for done in ask(writer, [question]):
            rules.take(done.deltas)
            yield done


def _listed(writer: Writer, rules: Sequence[Rule]) -> tuple[Sequence[Rule], str]:
    """The first rules that fit the room, and the lines of them."""
    said = [f"{number} {BAR}{one_line(rule.statement)}" for number, (_, rule) in enumerate(rules[:SHOWN], 1)]

    def tried(count: int) -> list[str] | None:
        return said[:count] if writer.count_tokens("\n".join(said[:count])) <= writer.room else None

    kept = largest(1, len(said), tried) or []
    left = [f"({len(rules) - len(kept)} more are not shown: there is no room for them)"]
    lines = [*kept, *left[: len(kept) < len(rules)]]
    return rules[: len(kept)], "\n".join(lines or ["(there are none yet)"])


def _read(reply: str, shown: Sequence[Shown], *, rules: Sequence[Rule], model: str) -> tuple[Delta, ...]:
    scope = shown[0].episode.task.scope
    return tuple(_delta(said, scope, rules, model) for said in grammar.operations(reply, shown, len(rules), MOST))


def _delta(said: grammar.Said, scope: str, rules: Sequence[Rule], model: str) -> Delta:
    if said.op == "ADD":
        return Add(lesson(scope, said), _BY, model)
    key, rule = rules[said.number - 1]
    if said.op == "EDIT":
        if said.statement == rule.statement:
            raise RefusedError(f"EDIT {said.number} changes nothing")
        return Edit(key, lesson(rule.scope, said), _BY, model)
    if said.op == "REMOVE":
        return Remove(key, said.cited, _BY, model)
    return Agree(key, Lesson(rule.kind, rule.scope, rule.statement, rule.facts, said.cited), _BY, model)
