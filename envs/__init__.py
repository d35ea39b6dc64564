r"""Text environments with Gymnasium's interface: what is played, told apart by fingerprint.

    >>> import envs
    >>> task = envs.tasks("operator:3#4")[25]
    >>> env = envs.make_env(task)
    >>> observation, info = env.reset(seed=task.seed)
    >>> observation
    'What is 2 # 5 ?'
    >>> env.step("3 times 2 is 6. 4 times 5 is 0. 6 plus 0 is 6.\n> 6")[:3]
    ('right', 1.0, True)

Importing this package loads no game engine. Knows no models, no tokens and no bank.
"""

from envs.anchors import Blind, best_blind, random_wins, solved
from envs.catalogue import FAMILIES, make_env, tasks
from envs.catalogue import register as _register
from envs.commands import Read, check_command, read_action, read_command
from envs.game_store import prepare
from envs.house_data import house_tasks
from envs.operator import held_out_operators, operator_tasks
from envs.solutions import solution
from envs.spaces import FreeText
from envs.splits import overlap
from envs.text_env import TextEnv, TurnLimit

__all__ = [
    "FAMILIES",
    "Blind",
    "FreeText",
    "Read",
    "TextEnv",
    "TurnLimit",
    "best_blind",
    "check_command",
    "held_out_operators",
    "house_tasks",
    "make_env",
    "operator_tasks",
    "overlap",
    "prepare",
    "random_wins",
    "read_action",
    "read_command",
    "solution",
    "solved",
    "tasks",
]

_register()
