"""Messages to token ids. The only code that knows chat templates.

A template is taken apart into the scaffolding between message contents. Only scaffolding may hold special tokens;
contents are encoded as plain text, so nothing an environment or a bank says can become one. What a template
makes of a content (trimmed, or rid of its thoughts) is asked of the template itself.

A conversation becomes ids in one of two ways, its `history`:

* `append`: one growing row; behind each reply, as it was sampled, comes the next observation.
* `per_turn`: each turn's prompt is rendered afresh from all messages, as templates want it that show earlier replies
  otherwise than they were said, such as without their thoughts.

A template without a system role gets the context in front of the first user message, an empty line between. Knows no
model and never encodes again what was sampled, except as an earlier reply in a `per_turn` prompt.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal

from opcd_agents.errors import TemplateError

History = Literal["append", "per_turn"]

_MARK = "\ue000{}\ue001"  # private-use characters: no template trims or alters them
_USER, _SYSTEM, _REPLY = ("user",), ("system", "user"), ("user", "assistant", "user")
_THOUGHT_BEGIN, _THOUGHT_END = "<think>", "</think>"
_THOUGHT = "<think>\nI think.\n</think>\n\nI say."


class Renderer:
    """Turns observations, replies and contexts into ids.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template; this floor does not import transformers.
        history: `append`, `per_turn`, or None: append where the template allows it.
        thinking: Handed to the template as `enable_thinking`; None: as the template has it.

    Attributes:
        history: The one in use.
        notice: What a user should know of the choice, in a line; "" where there is nothing to say.

    Raises:
        TemplateError: The template drops messages or ends no reply; or `append` is wanted of one that rewrites earlier turns.
    """

    def __init__(self, tokenizer: Any, history: History | None = None, thinking: bool | None = None) -> None:
        self._tokenizer = tokenizer
        self._options = {} if thinking is None else {"enable_thinking": thinking}
        self._parts: dict[tuple[str, ...], list[str]] = {}
        self._special = _special_pattern(tokenizer)
        self._scaffold(_USER)
        after_reply = self._scaffold(_REPLY)[2]
        if not self._special.match(after_reply):
            raise TemplateError(f"wanted a chat template that ends a reply with a token, got {after_reply[:40]!r}")
        self.end_id: int = self._ids(after_reply)[0]
        self._has_system = self._shows_system()
        reason = self._rewrites()
        if history == "append" and reason:
            raise TemplateError(
                f"wanted a chat template that keeps earlier turns as a prefix, got one that {reason}; use history = 'per_turn'"
            )
        self.history: History = history or ("per_turn" if reason else "append")
        notes = [f"each turn is a row of its own, because the chat template {reason}"] if reason and not history else []
        if self._options and "enable_thinking" not in str(tokenizer.chat_template):
            notes.append("the chat template knows no enable_thinking, so thinking is as it was")
        self.notice = "; ".join(notes)

    def opening(self, context: str | None, observation: str) -> list[int]:
        """Ids from the very beginning up to the first reply.

        Args:
            context: Text of the system message; None for no system message of ours.
            observation: The first thing the environment shows.
        """
        return self.prompt(context, [observation], [])

    def prompt(self, context: str | None, heard: Sequence[str], said: Sequence[str]) -> list[int]:
        """Ids of a whole conversation up to the next reply, as the template renders it at once.

        Args:
            context: Text of the system message; None for no system message of ours.
            heard: Observations so far.
            said: Replies as text; one fewer.
        """
        if context is not None and not self._has_system:
            context, heard = None, [f"{context}\n\n{heard[0]}", *heard[1:]]
        shown = [self._shown(_USER, 0, text) for text in heard]
        replies = [self._shown(_REPLY, 1, text) for text in said]
        contents = [text for text in chain(*zip_longest(shown, replies)) if text is not None]
        roles = ("user", *("assistant", "user") * len(said))
        if context is not None:
            contents, roles = [self._shown(_SYSTEM, 0, context), *contents], ("system", *roles)
        return self._ids(
            *(piece for pair in zip_longest(self._scaffold(roles), contents, fillvalue="") for piece in pair)
        )

    def following(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids between a reply as sampled and the next reply.

        Args:
            sampled: The reply; where it lacks the end token (it was cut off), the end is supplied here.
            observation: What the environment showed next.
        """
        closed = len(sampled) > 0 and sampled[-1] == self.end_id
        _, _, before, after = self._scaffold(_REPLY)
        return self._ids(before, self._shown(_USER, 0, observation), after)[closed:]

    def reply(self, text: str) -> list[int]:
        """Ids of a reply that nobody sampled, its end included."""
        return [*self._plain(text), self.end_id]

    def text(self, sampled: Sequence[int]) -> str:
        """A reply as text, without its end token."""
        kept = sampled[:-1] if len(sampled) > 0 and sampled[-1] == self.end_id else sampled
        return self._tokenizer.decode(list(kept), skip_special_tokens=False)

    def thought(self, sampled: Sequence[int]) -> int:
        """How many of a reply's ids are thinking, up to the end of its last `</think>`; all, where a thought was cut off.

        A thought is begun by the reply itself, or by what the template puts in front of it.
        """
        text = self.text(sampled)
        whole = self._scaffold(_USER)[-1] + text
        if whole.rfind(_THOUGHT_BEGIN) > whole.rfind(_THOUGHT_END):
            return len(sampled)
        ends = text.count(_THOUGHT_END)
        if not ends:
            return 0
        return bisect_left(range(len(sampled) + 1), ends, key=lambda n: self.text(sampled[:n]).count(_THOUGHT_END))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token to id; models share rows of ids only where these are the same."""
        return self._tokenizer.get_vocab()

    def count(self, text: str) -> int:
        """Length of plain text in tokens."""
        return len(self._plain(text))

    def save_tokenizer(self, folder: Path) -> None:
        """Save the tokenizer as `from_pretrained` reads it."""
        self._tokenizer.save_pretrained(str(folder))

    def _shows_system(self) -> bool:
        try:
            self._scaffold(_SYSTEM)
        except TemplateError:
            return False
        return True

    def _rewrites(self) -> str:
        """How the template breaks the prefix of earlier turns; "" where it keeps it."""
        first, answer, between, after = self._scaffold(_REPLY)
        if self._scaffold(_USER) != [first, answer]:
            return "opens a reply otherwise once it is an earlier one"
        if self._shown(_REPLY, 1, _THOUGHT) != _THOUGHT:
            return "drops the thoughts of earlier replies"
        more = ("assistant", "user")
        grown: list[tuple[tuple[str, ...], list[str]]] = [
            (_REPLY + more, [first, answer, between, after, between, after])
        ]
        if self._has_system:
            grown.append((_SYSTEM + more, [*self._scaffold(_SYSTEM), between, after]))
        if any(self._scaffold(roles) != parts for roles, parts in grown):
            return "renders a turn otherwise once others follow it"
        return ""

    def _scaffold(self, roles: tuple[str, ...]) -> list[str]:
        """What the template puts before, between and after the contents of messages."""
        if roles not in self._parts:
            marks = [_MARK.format(i) for i in range(len(roles))]
            text, parts = self._rendered(roles, marks), list[str]()
            for mark in marks:
                before, found, text = text.partition(mark)
                if not found:
                    raise TemplateError("wanted a chat template that shows every message, got one that drops some")
                parts.append(before)
            self._parts[roles] = [*parts, text]
        return self._parts[roles]

    def _shown(self, roles: tuple[str, ...], at: int, text: str) -> str:
        """What the template makes of a content; the text itself where that cannot be told."""
        contents = [_MARK.format(i) for i in range(len(roles))]
        parts = self._scaffold(roles)
        before = "".join(chain(*zip(parts, contents[:at], strict=False))) + parts[at]
        after = parts[at + 1] + "".join(chain(*zip(contents[at + 1 :], parts[at + 2 :], strict=True)))
        contents[at] = text
        try:
            whole = self._rendered(roles, contents)
        except TemplateError:
            return text
        there = whole.startswith(before) and whole.endswith(after) and len(whole) >= len(before) + len(after)
        return whole[len(before) : len(whole) - len(after)] if there else text

    def _rendered(self, roles: Sequence[str], contents: Sequence[str]) -> str:
        messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self._options
            )
        except Exception as error:
            raise TemplateError(f"wanted a chat template for {list(roles)}, got {error!s:.200}") from error

    def _ids(self, *pieces: str) -> list[int]:
        """Ids of scaffolding and contents in turn.

        Text between two special tokens is encoded in one go, as it is where a template's whole text is encoded.
        """
        ids: list[int] = []
        run = ""
        for index, piece in enumerate(pieces):
            bits = [piece] if index % 2 else self._special.split(piece)
            for place, bit in enumerate(bits):
                if place % 2:
                    ids += [*self._plain(run), self._tokenizer.convert_tokens_to_ids(bit.strip())]
                    run = ""
                else:
                    run += bit
        return ids + self._plain(run)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)) if text else []


def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    """Finds the special tokens of a tokenizer in scaffolding, with the blanks that some of them swallow."""
    special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
    longest_first = sorted(special, key=lambda token: -len(token.content))
    each = [r"\s*" * t.lstrip + re.escape(t.content) + r"\s*" * t.rstrip for t in longest_first]
    return re.compile(f"({'|'.join(each) or '(?!)'})")
