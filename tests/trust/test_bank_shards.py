"""Shards: whole when they are handed over, merged once, and a killed collector's can still be had."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from experience_bank import Bank
from experience_bank.ingest import Ingester
from experience_bank.shards import CLOSED, OPEN, shards
from opcd_agents.errors import BankError
from opcd_agents.types import Context, Episode, Outcome, Provenance, Split, Task, Turn


def episode(seed=0):
    task = Task("e", {}, 0, Split.TRAIN, "s", "f", None, 9)
    return Episode(task, (Turn("a", "b", "c"),), Outcome.WON, Provenance("m", "w", seed, "v"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


def test_a_shard_is_one_file_that_is_handed_over_when_it_is_closed(folder):
    with Bank.open(f"shards:{folder}") as shard:
        key = shard.add_episode(episode())
        assert shards(folder) == []
        assert [path.suffix for path in shards(folder, abandoned=True)] == [OPEN]
    [handed] = folder.iterdir()
    assert handed.suffix == CLOSED
    assert shards(folder) == [handed]
    with Bank.open(handed, "r") as shard:
        assert shard.episode_ids() == [key]
    assert list(folder.iterdir()) == [handed]  # a reader leaves nothing beside it


def test_shards_of_two_collectors_become_one_bank(folder, tmp_path):
    keys: list[str] = []
    for seed in range(2):
        with Bank.open(f"shards:{folder}") as shard:
            keys += shard.add_episodes([episode(seed)] * 3)
    with Bank.open(tmp_path / "bank.db") as bank:
        for path in shards(folder) * 2:
            with Bank.open(path, "r") as shard:
                bank.merge(shard)
        assert bank.episode_ids() == sorted(keys)


def test_closing_twice_is_allowed(folder):
    shard = Bank.open(f"shards:{folder}")
    shard.close()
    shard.close()


def test_a_killed_collectors_shard_holds_what_it_acknowledged(folder):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from experience_bank import Bank\n"
        "from opcd_agents.types import *\n"
        "task = Task('e', {}, 0, Split.TRAIN, 's', 'f', None, 9)\n"
        "played = Episode(task, (Turn('a', 'b', 'c'),), Outcome.WON, Provenance('m', 'w', 0, 'v'))\n"
        "shard = Bank.open(sys.argv[1])\n"
        "while True: print(shard.add_episode(played), flush=True)\n"
    )
    command = [sys.executable, "-c", code, f"shards:{folder}", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout is not None
        said = [collector.stdout.readline().strip() for _ in range(20)]
        collector.send_signal(signal.SIGKILL)
    assert shards(folder) == []
    [left] = shards(folder, abandoned=True)
    with Bank.open(left, "r") as shard:
        assert set(said) <= set(shard.episode_ids())
        assert shard.verify() == []


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(BankError, match="folder of shards"):
        shards(tmp_path / "none")


def test_shards_are_not_read_before_they_are_merged(folder):
    Bank.open(f"shards:{folder}").close()
    with pytest.raises(BankError, match="run `opcd bank merge shards:"):
        Bank.open(f"shards:{folder}", "r")
    assert len(list(folder.iterdir())) == 1


def test_one_bad_shard_does_not_end_a_watcher(folder, tmp_path):
    good = Bank.open(f"shards:{folder}")
    good.add_episode(episode())
    good.add_context(Context("c", "x" * 20_000, "experience", 0, "s"))
    good.close()
    [path] = shards(folder)
    bad = folder / f"0{CLOSED}"
    shutil.copy(path, bad)
    with closing(sqlite3.connect(bad)) as database:
        page = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'contexts'").fetchone()[0]
        size = database.execute("PRAGMA page_size").fetchone()[0]
    with bad.open("r+b") as file:  # the one table that `verify` of episodes and lessons never reads
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    (folder / f"1{CLOSED}").symlink_to(tmp_path / "nothing")
    ingester = Ingester(folder)
    with Bank.open(tmp_path / "bank.db") as bank:
        assert ingester.take(bank)["episodes"] == 1
        assert sorted(ingester.refused) == [bad.name, f"1{CLOSED}"]
        (folder / f"1{CLOSED}").unlink()
        assert not ingester.take(bank)
        assert sorted(ingester.refused) == [bad.name]


def test_a_watcher_says_all_of_it_as_json_and_takes_abandoned_shards(folder, tmp_path):
    first = Bank.open(f"shards:{folder}")  # never closed
    key = first.add_episode(episode())
    with Bank.open(f"shards:{folder}") as second:
        second.add_episode(episode())
        with second._store.writing():
            second._store.do("UPDATE episodes SET final = 'x'", [()])
    command = [sys.executable, "-m", "opcd_agents", "bank", "merge", f"shards:{folder}", "--watch", "0.05", "--json"]
    with subprocess.Popen(
        [*command, "--abandoned", "--bank", tmp_path / "all.db"], stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        told = json.loads(watcher.stdout.readline())
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=30) == 130
    assert (told["merged"], told["new"]["episodes"], told["new"]["quarantine"]) == (2, 1, 1)
    with Bank.open(tmp_path / "all.db", "r") as bank:
        assert bank.episode_ids() == [key]


def test_a_watcher_of_no_folder_makes_no_bank(opcd, tmp_path):
    done = opcd("bank", "merge", f"shards:{tmp_path / 'none'}", "--watch", 1, "--bank", tmp_path / "new.db")
    assert (done.code, "folder of shards" in done.err, (tmp_path / "new.db").exists()) == (1, True, False)


def test_a_watcher_takes_in_what_is_handed_over_and_leaves_what_is_damaged(folder, tmp_path):
    target = tmp_path / "bank.db"
    (folder / f"0{CLOSED}").write_bytes(b"SQLite format 3\0" + bytes(200))
    command = [sys.executable, "-m", "opcd_agents", "bank", "merge", f"shards:{folder}", "--watch", "0.05"]
    with subprocess.Popen([*command, "--bank", target], stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stderr is not None
        assert "left for now: 0.closed" in watcher.stderr.readline()
        for seed in range(3):
            with Bank.open(f"shards:{folder}") as shard:
                shard.add_episodes([episode(seed)] * 2)
            assert "2 new episodes" in watcher.stderr.readline()
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=30) == 130
    with Bank.open(target, "r") as bank:
        assert (len(bank.episode_ids()), bank.verify()) == (6, [])


def test_a_shard_that_came_in_parts_is_taken_when_it_is_whole(folder, tmp_path):
    with Bank.open(f"shards:{folder}") as shard:
        shard.add_episodes([episode(seed) for seed in range(50)])
    [path] = shards(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    ingester = Ingester(folder)
    with Bank.open(tmp_path / "bank.db") as bank:
        assert ingester.take(bank) == {}
        assert list(ingester.refused) == [path.name]
        path.write_bytes(whole)
        assert ingester.take(bank)["episodes"] == 50
        assert (ingester.refused, ingester.take(bank), ingester.taken) == ({}, {}, 1)
