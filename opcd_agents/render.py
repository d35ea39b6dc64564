"""Messages to token ids. The only code that knows chat templates.

A template is taken apart once, into the scaffolding between message contents. Scaffolding is encoded with
its special tokens; contents are encoded as plain text, so nothing an environment or a bank says can become a special
token. Knows no model and never decodes what was sampled back into ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opcd_agents.errors import TemplateError

_MARK = "\ue000{}\ue001"  # private-use characters: no template trims or alters them


class Renderer:
    """Turns observations into ids that are appended, one turn at a time.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template; this floor does not import transformers.

    Raises:
        TemplateError: The template drops or rewrites earlier messages, so a conversation is not a growing row.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._bare = self._parts([("user", 0)])
        self._with_system = self._parts([("system", 1), ("user", 0)])
        self._next = self._parts([("user", 2), ("assistant", 1), ("user", 0)])
        if self._next[:2] != self._bare:
            raise TemplateError(
                "wanted a chat template that keeps earlier turns as a prefix, got one that rewrites them"
            )
        self._after_reply = self._scaffold(self._next[2])
        self._before_answer = self._scaffold(self._next[3])

    @property
    def end_id(self) -> int:
        """The id with which the template ends a reply."""
        if not self._after_reply:
            raise TemplateError(
                "wanted a chat template that ends a reply with a token, got one that ends it with nothing"
            )
        return self._after_reply[0]

    def opening(self, context: str | None, observation: str) -> list[int]:
        """Ids from the very beginning up to the first reply.

        Args:
            context: Text of the system message; None for no system message of ours.
            observation: The first thing the environment shows.
        """
        if context is None:
            before, after = self._bare
            return self._scaffold(before) + self._plain(observation) + self._scaffold(after)
        before, between, after = self._with_system
        head = self._scaffold(before) + self._plain(context) + self._scaffold(between)
        return head + self._plain(observation) + self._scaffold(after)

    def following(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids between a reply as sampled and the next reply.

        Args:
            sampled: The reply; where it lacks the end token (it was cut off), the end is supplied here.
            observation: What the environment showed next.
        """
        closed = len(sampled) > 0 and sampled[-1] == self.end_id
        return self._after_reply[closed:] + self._plain(observation) + self._before_answer

    def reply(self, text: str) -> list[int]:
        """Ids of a reply that nobody sampled, its end included."""
        return [*self._plain(text), self.end_id]

    def text(self, sampled: Sequence[int]) -> str:
        """A reply as text, without its end token."""
        kept = sampled[:-1] if len(sampled) > 0 and sampled[-1] == self.end_id else sampled
        return self._tokenizer.decode(list(kept), skip_special_tokens=False)

    def count(self, text: str) -> int:
        """Length of plain text in tokens."""
        return len(self._plain(text))

    def save_tokenizer(self, folder: Path) -> None:
        """Save the tokenizer as `from_pretrained` reads it."""
        self._tokenizer.save_pretrained(str(folder))

    def _parts(self, roles: Sequence[tuple[str, int]]) -> list[str]:
        messages = [{"role": role, "content": _MARK.format(i)} for role, i in roles]
        try:
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            raise TemplateError(f"wanted a chat template for {[r for r, _ in roles]}, got {error!s:.200}") from error
        parts: list[str] = []
        for _, i in roles:
            before, found, text = text.partition(_MARK.format(i))
            if not found:
                raise TemplateError("wanted a chat template that shows every message, got one that drops some")
            parts.append(before)
        return [*parts, text]

    def _scaffold(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)) if text else []
