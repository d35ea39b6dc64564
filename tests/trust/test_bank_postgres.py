"""The same bank on a real PostgreSQL server that this file starts; skipped where none is installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from experience_bank import Bank
from experience_bank.lessons import Op
from opcd_agents.errors import BankError
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task, Turn

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")


def programs() -> Path | None:
    """Where Debian or the path keeps the server's programs."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, filter(None, [shutil.which("initdb")]))]
    return next((p if p.is_dir() else p.parent for p in sorted(places, reverse=True)), None)


@pytest.fixture(scope="module")
def server():
    """The address of an empty database."""
    where = programs()
    if where is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="opcd-postgres-"))
    if user:
        shutil.chown(folder, user)

    def run(*command):
        done = subprocess.run(
            command, user=user, cwd=folder, capture_output=True, text=True, timeout=120, env={"LC_ALL": "C"}
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = folder / "data"
    run(where / "initdb", "-D", data, "-U", "opcd", "-A", "trust", "-E", "UTF8", "--no-sync")
    run(where / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", f"-k {folder} -c listen_addresses=''", "start")
    yield f"postgresql://opcd:secret@/postgres?host={folder}"
    run(where / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def address(server):
    """The address of a schema of its own."""
    import psycopg

    name = f"s{os.urandom(4).hex()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{server}&options=-csearch_path%3D{name}"


def episode(seed=0):
    task = Task("e", {"goal": ["coin", None]}, 2**62, Split.TRAIN, "house/7", "f", None, 9)
    turn = Turn("a \0 \ud800 \x01", "b", "c", 0.1, (2**31 - 1,), (-1, 7), (-0.5, -1.25), "why", ("look", "go\n"))
    return Episode(task, (turn, Turn("x", "", "")), Outcome.WON, Provenance("m", "w", seed, "v"), "over")


def test_the_same_bank_as_in_a_file(address, tmp_path):
    with Bank.open(address) as bank, Bank.open(tmp_path / "bank.db") as file:
        keys = bank.add_episodes([episode(), episode(1)])
        assert list(bank.episodes("house/7", Split.TRAIN, "student", Outcome.WON)) == [
            (keys[0], episode()),
            (keys[1], episode(1)),
        ]
        [lesson] = bank.add_lessons([Lesson("place", "house/7", "coin in crate.", {"name": "coin"}, ((keys[0], 1),))])
        bank.note(lesson, Op.RETIRE, "wrong")
        bank.vote([(lesson, 1.0)], "human")
        bank.bless(bank.add_context(Context("c1", "Notes: \0.", "experience", 0, "house/7")), "good")
        bank.forget(keys[1], "private")
        assert bank.verify() == []
        file.merge(bank)
        assert file.digest() == bank.digest()
        assert list(file.episodes()) == list(bank.episodes())
        assert file.blessed("house/7") == bank.blessed("house/7")


def test_a_file_is_merged_into_it(address, tmp_path):
    with Bank.open(tmp_path / "bank.db") as file, Bank.open(address) as bank:
        file.add_episodes([episode(n) for n in range(30)])
        assert bank.merge(file)["turns"] == 60
        assert not any(bank.merge(file).values())
        assert bank.digest() == file.digest()


def test_readers_make_and_change_nothing(address):
    with pytest.raises(BankError, match="holds no bank"):
        Bank.open(address, "r")
    with Bank.open(address) as bank:
        key = bank.add_episode(episode())
    with Bank.open(address, "r") as bank:
        assert bank.episode(key[:10])[1] == episode()
        with pytest.raises(BankError, match="opened to read"):
            bank.add_episode(episode())
        with pytest.raises(BankError, match="PostgreSQL refused"):
            bank._store.rows("DELETE FROM turns RETURNING number")


def test_what_fails_is_undone(address):
    with Bank.open(address) as bank:
        with pytest.raises(BankError, match="64 bits"):
            bank.add_episode(Episode(episode().task, (), Outcome.WON, Provenance("m", "w", 2**70, "v")))
        with pytest.raises(BankError, match="cites episode"):
            bank.add_lessons([Lesson("k", "s", "x", {}, (("nobody", 0),))])
        assert bank.counts() == {"episodes": 0, "turns": 0, "lessons": 0, "contexts": 0}


def test_many_may_make_and_fill_it_at_once(address):
    code = (
        "import sys; from experience_bank import Bank; from opcd_agents.types import *\n"
        "task = Task('e', {}, 0, Split.TRAIN, 's', 'f', None, 9)\n"
        "with Bank.open(sys.argv[1]) as bank:\n"
        "    for n in range(20):\n"
        "        played = Episode(task, (Turn('a', 'b', 'c'),), Outcome.WON, Provenance('m', 'w', n, 'v'))\n"
        "        print(bank.add_episode(played))\n"
    )
    command = [sys.executable, "-c", code, address]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, said
    with Bank.open(address, "r") as bank:
        assert bank.episode_ids() == sorted(key for out, _ in said for key in out.split())


def run_together(code, address, count, *args):
    command = [sys.executable, "-c", code, address]
    both = [
        subprocess.Popen([*command, str(n), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(count)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0] * count, said
    return [out for out, _ in said]


def test_collectors_that_share_blobs_do_not_stand_in_each_others_way(address):
    """The same game, whose rooms each sees in another order."""
    code = (
        "import random, sys; from experience_bank import Bank; from opcd_agents.types import *\n"
        "chance = random.Random(int(sys.argv[2]))\n"
        "task = Task('e', {}, 0, Split.TRAIN, 's', 'f', None, 9)\n"
        "with Bank.open(sys.argv[1]) as bank:\n"
        "    for game in range(12):\n"
        "        rooms = [f'game {game} room {n}' for n in range(150)]\n"
        "        chance.shuffle(rooms)\n"
        "        turns = tuple(Turn('a', 'b', 'c', admissible=(room,)) for room in rooms)\n"
        "        bank.add_episode(Episode(task, turns, Outcome.WON, Provenance('m', 'w', 0, 'v')))\n"
    )
    run_together(code, address, 4)
    with Bank.open(address, "r") as bank:
        assert (len(bank.episode_ids()), bank.verify()) == (48, [])


def test_a_transaction_that_the_server_ended_is_done_again(address):
    from psycopg.errors import DeadlockDetected

    with Bank.open(address) as bank:
        store, tries = bank._store, []

        def work():
            tries.append(store.insert("tombstones", [{"id": "t", "episode_id": "e", "reason": ""}]))
            if len(tries) < 3:
                store.rows("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")
            return "done"

        assert (store.transact(work), len(tries)) == ("done", 3)
        tries.clear()

        def hopeless():
            tries.append(None)
            raise BankError("no") from DeadlockDetected()

        with pytest.raises(BankError, match="no"):
            store.transact(hopeless)
        assert 3 < len(tries) < 10


def test_many_may_merge_at_once(address, tmp_path):
    with Bank.open(tmp_path / "bank.db") as file:
        keys = file.add_episodes([episode(n) for n in range(60)])
        file.add_lessons([Lesson("k", "s", f"said {n}", {}, ((keys[0], 0),)) for n in range(20)])
        digest = file.digest()
    Bank.open(address).close()
    code = (
        "import sys; from experience_bank import Bank\n"
        "with Bank.open(sys.argv[1]) as bank, Bank.open(sys.argv[3], 'r') as file:\n"
        "    print(bank.merge(file)['episodes'])\n"
    )
    assert sorted(run_together(code, address, 4, str(tmp_path / "bank.db")), key=int) == ["0\n"] * 3 + ["60\n"]
    with Bank.open(address, "r") as bank:
        assert bank.digest() == digest


def test_no_command_prints_a_password(opcd, address, tmp_path):
    with Bank.open(address) as bank:
        key = bank.add_episode(episode())
    Bank.open(tmp_path / "other.db").close()
    also = address.replace("opcd:secret@", "") + "&user=opcd&password=secret"
    for dsn in (address, also):
        runs = [
            ("merge", tmp_path / "other.db"), ("merge", dsn), ("doctor",), ("migrate",), ("gc",), ("verify",), ("ls",), ("stats",),
            ("consolidate", "house/7"), ("show", key), ("doctor", "--bank", dsn.replace("search_path%3D", "search_path%3Dno")),
        ]  # fmt: skip
        for command in runs:
            for as_json in ((), ("--json",)):
                done = opcd("bank", command[0], "--bank", dsn, *command[1:], *as_json)
                assert done.code == (1 if "--bank" in command else 0), (command, done.err)
                assert "secret" not in done.out + done.err, command


def test_a_doctor_looks_at_no_file_of_a_server(opcd, address):
    Bank.open(address).close()
    done = opcd("bank", "doctor", "--bank", address)
    assert (done.code, "digests" in done.out, "file" in done.out.replace("files", "")) == (0, True, False)


def test_messages_are_one_line_and_hold_no_password(address):
    wrong = address.replace("/postgres?", "/nothere?")
    with pytest.raises(BankError) as caught:
        Bank.open(wrong)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with Bank.open(address) as bank:
        assert "secret" not in bank.name
