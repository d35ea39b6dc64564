"""What looks like a special token of some chat template, and text without it. Knows no tokenizer.

A server that is handed messages reads special tokens out of plain text, whoever wrote it: a game could end its turn and
speak as the system. Where we make the ids ourselves (`render`), contents are plain text and nothing is needed.
"""

import re
from typing import Final

SPECIAL: Final = re.compile(
    r"<\|[^<>]{0,80}\|>|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|BOS|EOS|gMASK)\]"
    r"|<\uff5c[^<>]{0,80}\uff5c>"  # with full-width bars, as DeepSeek writes them
    r"|</?(?:s|bos|eos|pad|unk|mask|im_start|im_end|start_of_turn|end_of_turn|begin_of_text|end_of_text"
    r"|system|user|assistant|think|tool_call|tool_response)>",
    re.IGNORECASE,
)
# Where one could begin: more than `SPECIAL`, for tokenizers differ; a tag that an environment asks for stays.
_BEGINS: Final = re.compile(
    r"[<\uff1c\ufe64\u226e](?=[|\uff5c]|/?[^\s<>\uff1e]{1,100}[>\uff1e])(?!/?action>)"
    r"|\[(?=[/|]|[A-Z]{2}|gMASK|[^\x00-\x7f])|[\ufe47\uff3b]"
)
_THOUGHT: Final = re.compile(r"</?think>")
_ALIKE: Final = {"<": "\u2039", "\uff1c": "\u2039", "\ufe64": "\u2039", "\u226e": "\u2039"}


def disarm(text: str, *, said: bool = False) -> str:
    """The text with the first character of what could be a special token replaced by one that looks like it.

    Args:
        text: What somebody wrote.
        said: Whether it is an earlier reply, whose marks of thinking chat templates look for.
    """

    def alike(found: re.Match[str]) -> str:
        return found[0] if said and _THOUGHT.match(text, found.start()) else _ALIKE.get(found[0], "\u2045")

    return _BEGINS.sub(alike, text)
