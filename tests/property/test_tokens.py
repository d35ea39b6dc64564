"""Rows are the turns and nothing else; the pocket tokenizer keeps any text as it is."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from opcd_agents.pocket.tokens import SPECIAL, train_tokenizer
from opcd_agents.render import Renderer
from opcd_agents.types import Tokens, Turn

ids = st.lists(st.integers(0, 50), max_size=6).map(tuple)
turns = st.lists(st.builds(lambda p, s: Turn("o", "r", "a", 0.0, p, s, (0.0,) * len(s)), ids, ids), max_size=5)
texts = st.one_of(
    st.text(max_size=30), st.lists(st.sampled_from([*SPECIAL, "coin", " ", "\n", "<|", "|>", "\r\n"])).map("".join)
)


@cache
def renderer() -> Renderer:
    return Renderer(train_tokenizer(["You are in the Hall.", "> go south", "Notes: coin crate. crate Hall."] * 6, 400))


@given(turns)
def test_a_row_is_all_that_was_heard_and_said(played):
    row = Tokens.of(played)
    assert len(row.ids) == len(row.sampled) == sum(len(t.prompt_ids) + len(t.sampled_ids) for t in played)
    assert row.said == tuple(i for t in played for i in t.sampled_ids)
    rest = tuple(i for i, mine in zip(row.ids, row.sampled, strict=True) if not mine)
    assert rest == tuple(i for t in played for i in t.prompt_ids)


@given(turns, st.integers(0, 5))
def test_a_row_grows_at_its_end(played, cut):
    whole, part = Tokens.of(played), Tokens.of(played[:cut])
    assert whole.ids[: len(part.ids)] == part.ids
    assert whole.sampled[: len(part.ids)] == part.sampled


@given(turns, ids)
def test_an_opening_takes_the_place_of_the_first_prompt(played, opening):
    bare, row = Tokens.of(played), Tokens.of(played, opening)
    if played:
        first = len(played[0].prompt_ids)
        assert row.ids == opening + bare.ids[first:]
        assert row.sampled == (False,) * len(opening) + bare.sampled[first:]
    else:
        assert row == bare == Tokens((), ())


@settings(deadline=None, max_examples=100)
@given(texts, texts)
def test_any_text_can_be_heard_and_read_again(context, observation):
    r = renderer()
    assert (
        r.text(r.opening(context, observation))
        == f"<|system|>{context}<|end|><|user|>{observation}<|end|><|assistant|>"
    )
    assert r.text(r.opening(None, observation)) == f"<|user|>{observation}<|end|><|assistant|>"
    for sampled in ([7, 8], [7, r.end_id]):
        row = [*sampled, *r.following(sampled, observation)]
        assert (
            r.text(row)
            == f"{r.text([7, 8] if sampled == [7, 8] else [7])}<|end|><|user|>{observation}<|end|><|assistant|>"
        )


@settings(deadline=None, max_examples=100)
@given(texts)
def test_text_is_never_special(text):
    special = {renderer().end_id, *renderer().opening("", "")}
    assert not special & set(renderer()._plain(text))
    assert renderer().count(text) == len(renderer()._plain(text))
