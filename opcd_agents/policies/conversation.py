"""One conversation on its way to ids. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from opcd_agents.render import Renderer


@dataclass
class Conversation:
    """What was heard and said. `ids` are its last prompt and reply."""

    heard: list[str] = field(default_factory=list[str])
    said: list[str] = field(default_factory=list[str])
    ids: list[int] = field(default_factory=list[int])

    def hear(self, observation: str, renderer: Renderer, context: str | None) -> tuple[list[int], list[int]]:
        """Go on to the next reply.

        Returns:
            The prompt as it is recorded, and all ids up to the reply; the same but where an earlier row goes on.
        """
        self.heard.append(observation)
        if not self.said:
            whole = renderer.opening(context, observation)
        elif renderer.history == "append":
            new = renderer.following(self.ids[-1:], observation)
            return new, self.ids + new
        else:
            whole = renderer.prompt(context, self.heard, self.said)
        return whole, whole

    def say(self, text: str, ids: list[int]) -> None:
        """Take a reply in.

        Args:
            text: As it was understood.
            ids: All ids up to its end.
        """
        self.said.append(text)
        self.ids = ids
