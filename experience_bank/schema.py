"""The tables of a bank and the version they carry. Knows no connection and no Python types.

Raw episodes are the truth; lessons point at them by evidence; contexts are addressed by content.
"""

from typing import Final

# "opcd" in ASCII: tells a bank from any other SQLite file, so that none of those is ever written to.
APPLICATION_ID: Final = 0x6F706364
SCHEMA_VERSION: Final = 1

EPISODE_COLUMNS: Final = (
    "role", "env_id", "kwargs", "seed", "split", "scope", "fingerprint", "optimal", "turn_limit",
    "outcome", "model", "weights", "player_seed", "code_version", "context_id", "final", "error",
)  # fmt: skip
TURN_COLUMNS: Final = (
    "observation", "reply", "action", "reward", "prompt_ids", "sampled_ids", "logprobs", "invalid",
)  # fmt: skip

TABLES: Final = (
    """CREATE TABLE episodes(
        id TEXT PRIMARY KEY, digest TEXT NOT NULL, role TEXT NOT NULL,
        env_id TEXT NOT NULL, kwargs TEXT NOT NULL, seed INTEGER NOT NULL, split TEXT NOT NULL,
        scope TEXT NOT NULL, fingerprint TEXT NOT NULL, optimal INTEGER, turn_limit INTEGER NOT NULL,
        outcome TEXT NOT NULL, model TEXT NOT NULL, weights TEXT NOT NULL,
        player_seed INTEGER NOT NULL, code_version TEXT NOT NULL, context_id TEXT,
        final TEXT NOT NULL, error TEXT)""",
    "CREATE INDEX episodes_by_scope ON episodes(scope)",
    """CREATE TABLE turns(
        episode_id TEXT NOT NULL REFERENCES episodes(id), number INTEGER NOT NULL,
        observation TEXT NOT NULL, reply TEXT NOT NULL, action TEXT NOT NULL, reward REAL NOT NULL,
        prompt_ids BLOB NOT NULL, sampled_ids BLOB NOT NULL, logprobs BLOB NOT NULL, invalid TEXT,
        PRIMARY KEY(episode_id, number))""",
    """CREATE TABLE lessons(
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, scope TEXT NOT NULL, statement TEXT NOT NULL,
        facts TEXT NOT NULL)""",
    """CREATE TABLE evidence(
        lesson_id TEXT NOT NULL REFERENCES lessons(id),
        episode_id TEXT NOT NULL REFERENCES episodes(id), turn INTEGER NOT NULL,
        PRIMARY KEY(lesson_id, episode_id, turn))""",
    """CREATE TABLE contexts(
        serial INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, text TEXT NOT NULL,
        source TEXT NOT NULL, version INTEGER NOT NULL, scope TEXT NOT NULL, lessons TEXT NOT NULL,
        tokens INTEGER NOT NULL, UNIQUE(scope, id), UNIQUE(scope, version))""",
)
