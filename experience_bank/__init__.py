"""The experience bank: episodes in, lessons and contexts out.

Knows no environment, no model and no tokenizer; where lengths matter it is handed a counter.
"""

from experience_bank.bank import Bank as Bank
from experience_bank.consolidate import consolidate as consolidate
from experience_bank.consolidate import system_prompt as system_prompt
from experience_bank.extract import extract as extract

__all__ = ["Bank", "consolidate", "extract", "system_prompt"]
