"""Anchors are curriculum conversations with notes, word for word, and never a held-out world."""

from opcd_agents.pocket.anchors import make_anchors


def test_they_are_the_same_on_both_sides_and_drawn_anew(renderer):
    drawn = make_anchors(renderer, 20, 1, "coin crate. crate Hall.")
    assert drawn == make_anchors(renderer, 20, 1, "coin crate. crate Hall.")
    assert drawn != make_anchors(renderer, 20, 2, "coin crate. crate Hall.")
    assert all(example.student == example.teacher for example in drawn)


def test_each_begins_with_notes_and_every_reply_ends(renderer, tokenizer):
    for example in make_anchors(renderer, 20, 3, "coin crate. crate Hall."):
        row = example.student
        text = tokenizer.decode(row.ids)
        assert text.startswith("<|system|>Notes: ")
        ends = [
            i
            for i, (token, mine) in enumerate(zip(row.ids, row.sampled, strict=True))
            if mine and token == renderer.end_id
        ]
        assert len(ends) == text.count("<|assistant|>")
        assert "> " in text or "So: " in text
