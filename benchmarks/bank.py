"""The bank beside other stores run as they are: turns a second, the slowest put, reads, size.

    python benchmarks/bank.py
    python benchmarks/bank.py --episodes 1000 --only bank sqlite jsonl

Every store gets the same episodes of 20 turns with token ids and log-probs, a process a writer, and acknowledges an episode only when
it is on disk; `bank` also encodes, digests and checks. The others are handed what they keep as ready rows, which flatters them. DuckDB
admits one writing process, so with several it opens and closes for each put. Stores whose library is missing are left out and named.
Ratios are to plain SQLite in the same run; wall-clock time, since waiting for the disk is the point.
"""

import argparse
import fcntl
import json
import os
import random
import shutil
import sqlite3
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np

from cli.console import say, say_table
from experience_bank import Bank
from opcd_agents.types import Episode, Outcome, Provenance, Split, Task, Turn

TURNS = 20
SEEN = "-= Hall =-\nThere is a closed crate. There is a coin on the floor. Exits: Cellar south, Attic north by closed gate. You carry nothing.\n"


def episode(number: int) -> Episode:
    """An episode like those of a model of ten words a thought: 180 ids a turn."""
    rng = random.Random(number)
    task = Task(
        "opcd/House-v0",
        {"house": 7, "goal": ["coin", None]},
        number,
        Split.TRAIN,
        f"house/{number % 10}",
        f"{number:064x}",
        5,
        TURNS,
    )
    turns = tuple(
        Turn(
            observation=SEEN + str(rng.random()),
            reply="In Hall: coin crate Cellar. Cellar south.\n> go south",
            action="go south",
            prompt_ids=tuple(rng.choices(range(30_000), k=120)),
            sampled_ids=tuple(rng.choices(range(30_000), k=60)),
            logprobs=tuple(-rng.random() for _ in range(60)),
        )
        for _ in range(TURNS)
    )
    outcome = Outcome.WON if number % 3 == 0 else Outcome.LOST
    return Episode(task, turns, outcome, Provenance("pocket", "cd" * 32, number, "0.1"), SEEN)


def rows(played: Episode, key: str) -> list[dict[str, Any]]:
    """The turns as rows of plain values."""
    return [
        {
            "episode": key, "number": n, "outcome": str(played.outcome), "scope": played.task.scope, "seen": t.observation,
            "said": t.reply, "action": t.action, "reward": t.reward, "prompt": list(t.prompt_ids), "sampled": list(t.sampled_ids),
            "logprobs": list(t.logprobs),
        }
        for n, t in enumerate(played.turns)
    ]  # fmt: skip


class Target(ABC):
    """A store that writers of several processes share."""

    needs: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def put(self, played: Sequence[Episode]) -> None:
        """Keep episodes; they are on disk when this returns."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of it."""


class OurBank(Target):
    """This project's bank."""

    path = "bank.db"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bank = Bank.open(self.address())

    def address(self) -> str:
        """What is opened."""
        return str(self.folder / self.path)

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        self.bank.add_episodes(played)

    def close(self) -> None:
        """See `Target`."""
        self.bank.close()


class OurShards(OurBank):
    """A shard a writer."""

    def address(self) -> str:
        """See `Target`."""
        return f"shards:{self.folder}"


class PlainSqlite(Target):
    """SQLite, WAL, FULL, a transaction a put, no queue but its own busy waiting."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.db = sqlite3.connect(folder / "plain.db", timeout=60, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS turns(episode TEXT, number INT, outcome TEXT, scope TEXT, seen TEXT, said TEXT, action TEXT, "
            "reward REAL, prompt BLOB, sampled BLOB, logprobs BLOB, PRIMARY KEY(episode, number))"
        )

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        ready = [
            [json.dumps(v).encode() if isinstance(v, list) else v for v in row.values()]
            for one in played
            for row in rows(one, os.urandom(13).hex())
        ]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(f"INSERT INTO turns VALUES({', '.join('?' * 11)})", ready)
        self.db.execute("COMMIT")

    def close(self) -> None:
        """See `Target`."""
        self.db.close()


class Jsonl(Target):
    """Lines of JSON, a file lock, fsync."""

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        text = "".join(json.dumps(row) + "\n" for one in played for row in rows(one, os.urandom(13).hex()))
        with (self.folder / "turns.jsonl").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


class Parquet(Target):
    """A Parquet file a put."""

    needs = "pyarrow"

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        import pyarrow
        from pyarrow import parquet

        key = os.urandom(13).hex()
        table = pyarrow.Table.from_pylist([row for one in played for row in rows(one, key)])
        with (self.folder / f"{key}.parquet").open("wb") as file:
            parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())


class DuckDb(Target):
    """DuckDB, opened for each put under a lock, since only one process may write."""

    needs = "duckdb"

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        import duckdb

        ready = [
            [json.dumps(v) if isinstance(v, list) else v for v in r.values()]
            for one in played
            for r in rows(one, os.urandom(13).hex())
        ]
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with duckdb.connect(str(self.folder / "duck.db")) as db:
                db.execute(
                    "CREATE TABLE IF NOT EXISTS turns(episode TEXT, number INT, outcome TEXT, scope TEXT, seen TEXT, said TEXT, "
                    "action TEXT, reward DOUBLE, prompt TEXT, sampled TEXT, logprobs TEXT)"
                )
                db.execute("BEGIN")
                db.executemany(f"INSERT INTO turns VALUES({', '.join('?' * 11)})", ready)
                db.execute("COMMIT")


class Lance(Target):
    """LanceDB, an add a put."""

    needs = "lancedb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import lancedb

        self.db = lancedb.connect(str(folder / "lance"))
        with (folder / "lock").open("a") as lock:  # two writers may not create one table
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "lance" / "turns.lance").exists():
                self.db.create_table("turns", rows(episode(0), "first"))

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        self.db.open_table("turns").add([row for one in played for row in rows(one, os.urandom(13).hex())])


class Minari(Target):
    """Minari, a dataset updated for each put under a lock, since it numbers its episodes itself."""

    needs = "minari"
    name = "opcd/bench-v0"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        os.environ["MINARI_DATASETS_PATH"] = str(folder)

    def put(self, played: Sequence[Episode]) -> None:
        """See `Target`."""
        import warnings

        import minari
        from gymnasium.spaces import Text

        warnings.simplefilter("ignore")  # it asks for an environment, an author and a link
        buffers = [self.buffer(one) for one in played]
        words = Text(10_000)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (self.folder / self.name).exists():
                minari.load_dataset(self.name).update_dataset_from_buffer(buffers)
            else:
                minari.create_dataset_from_buffers(self.name, buffers, action_space=words, observation_space=words)

    @staticmethod
    def buffer(played: Episode) -> Any:
        """An episode with its ids beside it, as arrays."""
        from minari.data_collector import EpisodeBuffer

        kept = rows(played, "")
        ends = [False] * (TURNS - 1) + [True]
        return EpisodeBuffer(
            observations=[row["seen"] for row in kept] + [SEEN],
            actions=[row["action"] for row in kept],
            rewards=[row["reward"] or 0.0 for row in kept],
            terminations=ends,
            truncations=[False] * TURNS,
            infos={key: np.array([row[key] for row in [*kept, kept[-1]]]) for key in ("prompt", "sampled", "logprobs")},
        )


class Server(OurBank):
    """This project's bank on the PostgreSQL server that OPCD_POSTGRES names."""

    needs = "psycopg"

    def address(self) -> str:
        """See `Target`."""
        return os.environ["OPCD_POSTGRES"]


TARGETS: dict[str, type[Target]] = {
    "sqlite": PlainSqlite, "bank": OurBank, "bank, shards": OurShards, "bank, postgresql": Server, "jsonl": Jsonl, "parquet": Parquet,
    "duckdb": DuckDb, "lancedb": Lance, "minari": Minari,
}  # fmt: skip


def work(name: str, folder: Path, first: int, count: int, batch: int, gate: Any) -> list[float]:
    """One writer: seconds of each put."""
    target = TARGETS[name](folder)
    played = [episode(first + i) for i in range(count)]
    gate.wait()
    taken: list[float] = []
    for start in range(0, count, batch):
        began = time.perf_counter()
        target.put(played[start : start + batch])
        taken.append(time.perf_counter() - began)
    target.close()
    return taken


def race(name: str, writers: int, episodes: int, batch: int = 1) -> tuple[float, float]:
    """Turns a second of several writers together, and the slowest put in seconds."""
    folder = Path(tempfile.mkdtemp(prefix="opcd-bench-", dir=Path.cwd()))
    context = get_context("spawn")
    try:
        with context.Manager() as manager, context.Pool(writers) as pool:
            gate = manager.Barrier(writers + 1)
            share = episodes // writers
            running = [pool.apply_async(work, (name, folder, w * share, share, batch, gate)) for w in range(writers)]
            gate.wait()
            began = time.perf_counter()
            taken = [one for each in running for one in each.get()]
            seconds = time.perf_counter() - began
    finally:
        shutil.rmtree(folder)
    return writers * share * TURNS / seconds, max(taken)


def reads(episodes: int) -> None:
    """What reading, merging and keeping cost here."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        with Bank.open(folder / "a.db") as bank:
            for start in range(0, episodes, 100):
                bank.add_episodes([episode(i) for i in range(start, start + 100)])
        size = (folder / "a.db").stat().st_size
        say(f"size: {size / episodes / TURNS:,.0f} bytes a turn of 180 ids and 60 log-probs")
        with Bank.open(folder / "a.db", "r") as bank:
            keys = bank.episode_ids()
            stored = sqlite3.connect(folder / "a.db")
            sql = "SELECT * FROM turns WHERE episode_id = ? ORDER BY number"
            bare = median(clock(lambda: stored.execute(sql, [random.choice(keys)]).fetchall()) for _ in range(2000))
            whole = median(clock(lambda: bank.episode(random.choice(keys))) for _ in range(2000))
            stored.close()
            say(f"random episode: its rows {1000 * bare:.3f} ms, as an Episode {1000 * whole:.3f} ms (medians of 2000)")
            found = median(
                clock(lambda: bank.episode_ids("house/3", Split.TRAIN, outcome=Outcome.WON)) for _ in range(20)
            )
            say(f"filtered scan of {episodes} episodes: {1000 * found:.2f} ms")
            say(f"verify: {clock(bank.verify):.2f} s for {episodes * TURNS} turns")
            with Bank.open(folder / "b.db") as other:
                say(f"merge: {clock(lambda: other.merge(bank)):.2f} s for {episodes * TURNS} turns")


def clock(call: Any) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The bank beside other stores.")
    parser.add_argument("--episodes", type=int, default=800, help="episodes of each race")
    parser.add_argument("--reads", type=int, default=5000, help="episodes in the bank that is read")
    parser.add_argument("--only", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    args = parser.parse_args()
    there = [n for n in args.only if not TARGETS[n].needs or find_spec(TARGETS[n].needs)]
    there = [n for n in there if n != "bank, postgresql" or "OPCD_POSTGRES" in os.environ]
    say(f"left out: {', '.join(n for n in args.only if n not in there) or 'none'}")
    table: list[list[str]] = []
    base: list[float] = []
    for name in there:
        slow = name in ("duckdb", "lancedb", "minari")
        episodes = args.episodes // (20 if slow else 1)
        speeds = [
            race(name, 1, episodes),
            race(name, 1, episodes, 10),
            race(name, 4, episodes),
            race(name, 16, episodes),
        ]
        base = base or [speed for speed, _ in speeds]
        cells = [f"{speed:,.0f} ({speed / b:.2f})" for (speed, _), b in zip(speeds, base, strict=True)]
        table.append([name, *cells, f"{1000 * speeds[2][1]:,.0f}", f"{1000 * speeds[3][1]:,.0f}"])
    say_table(
        [
            "turns a second (to the first)",
            "1 writer>",
            "1, ten a put>",
            "4 writers>",
            "16 writers>",
            "slowest put of 4, ms>",
            "of 16, ms>",
        ],
        table,
    )
    reads(args.reads)


if __name__ == "__main__":
    main()
