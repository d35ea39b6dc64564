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
_ALIKE: Final = {"<": "\u2039", "[": "\u2045"}


def disarm(text: str) -> str:
    """The text with the first character of what looks like a special token replaced by one that looks like it."""
    return SPECIAL.sub(lambda found: _ALIKE[found[0][0]] + found[0][1:], text)
