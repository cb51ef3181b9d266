"""``explain``: what a venv's key is made of, what a miss is nearest to, what doit would do, and why."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from archives import document
from wheels import make_wheel, requirements

from venvflow.cli.render import Output
from venvflow.model import Key
from venvflow.pure.keys import make_key

if TYPE_CHECKING:
    from cli_project import Project


STEPS = ["hash-lockfiles:api", "restore:api", "build-venv:api", "squish:api", "pack:api", "store:api", "trim"]


def explained(project: Project, *words: str, code: int = 0) -> dict[str, Any]:
    """Return the explanation as JSON, after seeing that nothing moved by asking."""
    before = project.hashes()
    answer = project.run("explain", *words, "--json")
    assert answer.code == code, answer.err
    assert project.hashes() == before
    document: dict[str, Any] = answer.document
    return document


def would(project: Project, venv: str = "api") -> dict[str, str]:
    """Return what each task would do, those left out that would do nothing."""
    tasks = explained(project, venv)["tasks"]
    return {
        each["task"].partition(":")[0]: each["did"] or each["would"]
        for each in tasks
        if each["would"] != "nothing"
    }


def lock(project: Project, *versions: tuple[str, str]) -> None:
    """Write the lock of ``api``."""
    requirements(project.root / "api", [make_wheel(project.house, *each) for each in versions])


# --------------------------------------------------------------------------- one venv


def test_a_hit_is_explained_in_one_screen(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key with its parts, that the store has it, and every task; in 80 columns and 24 lines."""
    monkeypatch.setattr(Output, "on_terminal", True)
    answer = project.run("explain", "api")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == "api: api/.venv"
    assert lines[1].startswith("key ")
    assert ": in the store, made " in lines[1]
    names = [line.split("  ")[1] for line in lines if line.startswith("  ")][:9]
    assert names == [
        "lock requirements.txt", "abi", "builder", "bytecode", "commands", "exclude", "format", "platform",
        "python",
    ]  # fmt: skip
    assert "doit would:" in lines
    assert [line.split()[0] for line in lines[-9:] if not line.startswith(" ")] == ["TASK", *STEPS]
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_the_document_has_these_keys(project: Project) -> None:
    """Those of a hit, before anything was run."""
    from cli_project import blurred

    found = blurred(explained(project, "api"), project.root.parent)
    assert found.pop("key") == {
        "digest": "<digest>", "current": True,
        "parts": {
            "lock:requirements.txt": "<digest>", "python": "str", "abi": found_part(project, "abi"),
            "platform": found_part(project, "platform"), "builder": "uv", "exclude": "[]",
            "commands": found_part(project, "commands"), "bytecode": "canonical", "format": "str",
        },
    }  # fmt: skip
    tasks = found.pop("tasks")
    assert found == {
        "venv": "api",
        "path": "<base>/project/api/.venv",
        "problem": None,
        "files": {"lock:requirements.txt": "<base>/project/api/requirements.txt"},
        "packages": {"lock:requirements.txt": {"demo": "1.0"}},
        "made_for": None,
        "store": {"path": "<base>/store", "exists": True, "snapshot": "<digest>"},
        "nearest": None,
        "start": None,
        "since": None,
        "origin": None,
        "warnings": [],
        "remote": None,
    }
    assert [each["task"] for each in tasks] == STEPS
    assert {tuple(each) for each in tasks} == {("certain", "did", "reason", "task", "would")}
    assert tasks[1] == {
        "task": "restore:api", "would": "run", "did": "hit", "certain": True,
        "reason": "there is no venv; the store has a snapshot for the key",
    }  # fmt: skip


def found_part(project: Project, name: str) -> str:
    """Return a part of the key as it is."""
    return str(json.loads(project.run("explain", "api", "--json").out)["key"]["parts"][name])


def test_a_miss_names_the_packages_that_differ(project: Project) -> None:
    """From the nearest snapshot: added, removed, changed, old before new."""
    project.run("restore", "api")
    lock(project, ("demo", "1.1"), ("other", "2.0"))
    found = explained(project, "api")
    assert found["store"]["snapshot"] is None
    nearest = found["nearest"]
    assert (nearest["venv"], nearest["place"]) == ("api", None)
    assert nearest["id"] == nearest["key"] == found["made_for"]
    (part,) = nearest["parts"]
    assert part["name"] == "lock:requirements.txt"
    assert part["old"] != part["new"] == found["key"]["parts"]["lock:requirements.txt"]
    (changed,) = nearest["lists"]
    assert changed == {
        "old": "lock:requirements.txt", "new": "lock:requirements.txt", "basis": "lists",
        "packages": [
            {"name": "demo", "old": "1.0", "new": "1.1"}, {"name": "other", "old": None, "new": "2.0"},
        ],
    }  # fmt: skip
    assert found["since"]["lists"] == nearest["lists"]
    text = project.run("explain", "api").out
    assert "      ~ demo 1.0 -> 1.1\n      + other 2.0\n" in text
    assert "nearest snapshot: " in text
    assert "the venv was made from it; differs in 1 part:" in " ".join(text.split())
    assert text.count("demo 1.0 -> 1.1") == 1
    assert would(project) == {
        "hash-lockfiles": "new", "restore": "miss", "build-venv": "built", "squish": "squished",
        "store": "stored", "trim": "dropped",
    }  # fmt: skip


def test_what_changed_since_the_venv_was_made_needs_no_store(project: Project) -> None:
    """The key that the last run noted tells its parts, though not its packages."""
    project.run("restore", "api")
    assert explained(project, "api")["since"] is None
    shutil.rmtree(project.store)
    lock(project, ("demo", "1.1"))
    found = explained(project, "api")
    assert [each["name"] for each in found["since"]["parts"]] == ["lock:requirements.txt"]
    assert found["since"]["lists"][0]["basis"] == "nothing"
    assert (
        f"changed since the venv was made (for key {found['made_for'][:12]}):"
        in project.run("explain", "api").out
    )


def test_what_changed_since_is_told_with_a_hit_too(project: Project) -> None:
    """A lock that was changed back has a snapshot; the venv in its place is of another key."""
    project.run("restore", "api")
    text = (project.root / "api" / "requirements.txt").read_bytes()
    lock(project, ("demo", "1.1"))
    make(project, "api")
    (project.root / "api" / "requirements.txt").write_bytes(text)
    found = explained(project, "api")
    assert (found["store"]["snapshot"], found["nearest"]) == (found["key"]["digest"], None)
    assert found["since"]["lists"][0]["packages"] == [{"name": "demo", "old": "1.1", "new": "1.0"}]


def test_a_link_to_a_venv_of_the_config_is_that_venv(project: Project) -> None:
    """It is explained as if it had been named."""
    project.run("restore", "api")
    (project.root.parent / "link").symlink_to(project.root / "api" / ".venv")
    assert explained(project, "../link")["venv"] == "api"


def test_many_packages_are_listed_only_when_asked_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A screen holds a few; -v and JSON have all."""
    monkeypatch.setattr("venvflow.steps.explain.NEAR", 0)
    monkeypatch.setattr(Output, "on_terminal", True)
    text = (project.root / "api" / "requirements.txt").read_text(encoding="utf-8")
    more = "".join(f"new{number:02}==1\n" for number in range(19)) + f"new19 @ https://host/{'x' * 90}.whl\n"
    (project.root / "api" / "requirements.txt").write_text(text + more, encoding="utf-8")
    (project.root / "web" / "requirements.txt").unlink()
    out = project.run("explain", "api").out
    assert "and 12 more (-v lists all)" in out
    assert max(map(len, out.splitlines())) <= 80
    assert f"new19 @ https://host/{'x' * 90}.whl" in project.run("explain", "api", "-v").out
    assert len(explained(project, "api")["nearest"]["lists"][0]["packages"]) == 20


def test_another_hash_in_a_lock_is_a_miss_that_says_so(project: Project) -> None:
    """That the packages are the same helps."""
    file = project.root / "api" / "requirements.txt"
    lines = f"{file.read_text(encoding='utf-8')} --hash=sha256:{'0' * 64}\n"
    file.write_text(lines.replace("\n --hash", " --hash"), encoding="utf-8")
    assert explained(project, "api")["nearest"]["lists"][0]["packages"] == []
    assert "the same packages: only hashes" in project.run("explain", "api").out


def test_a_comment_in_a_lock_is_told_and_changes_nothing(project: Project) -> None:
    """The file is named, as doit names it: the key is the same."""
    file = project.root / "api" / "requirements.txt"
    make(project, "api")
    before = explained(project, "api")["key"]["digest"]
    file.write_text(f"{file.read_text(encoding='utf-8')}# more\n", encoding="utf-8")
    found = explained(project, "api")
    assert (found["key"]["digest"], found["nearest"], found["since"]) == (before, None, None)
    hashed = found["tasks"][0]
    assert (hashed["did"], hashed["reason"]) == ("unaffected", "requirements.txt changed, not for api")


def test_files_of_one_name_are_told_apart_by_their_paths(project: Project) -> None:
    """Among the parts, and where they differ."""
    text = project.config.read_text(encoding="utf-8")
    text = text.replace("[api/requirements.txt]", "[api/requirements.txt, web/requirements.txt]")
    project.config.write_text(text, encoding="utf-8")
    make(project, "api")
    labels = {"lock api/requirements.txt", "lock web/requirements.txt"}
    assert {line[2:27] for line in project.run("explain", "api").out.splitlines()} >= labels
    lock(project, ("demo", "1.1"))
    found = explained(project, "api")
    assert len(found["nearest"]["parts"]) == 1
    assert found["nearest"]["lists"][0]["packages"] == [{"name": "demo", "old": "1.0", "new": "1.1"}]
    assert "  ~ lock api/requirements.txt  " in project.run("explain", "api").out


def test_what_changed_in_the_config_is_a_part(project: Project) -> None:
    """It is named as in the config, with its old value and the new one."""
    config = project.config.read_text(encoding="utf-8")
    project.config.write_text(f'{config}exclude: ["**/doc/"]\n', encoding="utf-8")
    found = explained(project, "api")["nearest"]
    assert found["parts"] == [{"name": "exclude", "old": "[]", "new": '["**/doc/"]'}]
    assert found["lists"] == []
    assert "  ~ exclude  none -> **/doc/" in project.run("explain", "api").out


def test_the_nearest_snapshot_differs_in_the_fewest_parts(project: Project) -> None:
    """Then one of a venv of that name, although another was used since; then the last used."""
    first = explained(project, "api")["key"]["digest"]
    lock(project, ("demo", "2.0"))
    project.run("restore", "api")
    make(project, "api")
    second = explained(project, "api")["key"]["digest"]
    make(project, "web")
    lock(project, ("demo", "3.0"))
    assert explained(project, "api")["nearest"]["id"] == second
    assert project.run("restore", "api").code == 1
    (project.store / "snapshots" / f"{second}.json").unlink()
    assert explained(project, "api")["nearest"]["id"] == first
    (project.store / "snapshots" / f"{first}.json").unlink()
    assert explained(project, "api")["nearest"]["venv"] == "web"


def test_a_snapshot_with_less_than_half_of_the_packages_is_not_near(project: Project) -> None:
    """One that differs in more parts is then, if it has half of them; else it is said that none is."""
    wanted = [("demo", "2.0"), ("one", "1.0"), ("two", "1.0")]
    lock(project, *wanted)
    found = explained(project, "api")
    assert (found["nearest"], found["store"]["exists"]) == (None, True)
    text = project.run("explain", "api").out
    assert "not in the store; no snapshot is near: none has half of these packages" in " ".join(text.split())
    config = project.config.read_text(encoding="utf-8")
    project.config.write_text(f'{config}exclude: ["**/doc/"]\n', encoding="utf-8")
    lock(project, *wanted[:2])
    make(project, "api")
    near = explained(project, "api")["key"]["digest"]
    project.config.write_text(config, encoding="utf-8")
    lock(project, *wanted)
    found = explained(project, "api")["nearest"]
    assert (found["id"], len(found["parts"])) == (near, 2)


def make(project: Project, venv: str) -> None:
    """Build a venv and store it."""
    from venvflow.flow import load
    from venvflow.steps.build_venv import build_venv
    from venvflow.steps.hash_lockfiles import hash_lockfiles
    from venvflow.steps.squish import squish
    from venvflow.steps.store import store

    job = load(str(project.root), os.environ).job(venv)
    for step in (hash_lockfiles, build_venv, squish, store):
        step(job)


def test_an_index_that_is_gone_changes_no_explanation(project: Project) -> None:
    """The snapshots themselves tell, only not when they were used."""
    lock(project, ("demo", "2.0"))
    with_index = explained(project, "api")["nearest"]
    for file in project.store.glob("index.db*"):
        file.unlink()
    without = explained(project, "api")["nearest"]
    assert without == {**with_index, "last_used": None}
    (project.store / "index.db").write_bytes(b"garbage" * 1000)
    assert explained(project, "api")["nearest"] == without


def test_without_an_old_list_the_installed_packages_are_compared(project: Project) -> None:
    """A snapshot that was stored before lists were kept says what it holds all the same."""
    from dataclasses import replace

    from venvflow.pure.manifest import decode_snapshot, encode_snapshot

    (file,) = (project.store / "snapshots").iterdir()
    old = replace(decode_snapshot(file.read_bytes()), packages={})
    file.unlink()
    file.write_bytes(encode_snapshot(old))
    lock(project, ("demo", "1.1"))
    (changed,) = explained(project, "api")["nearest"]["lists"]
    assert changed["basis"] == "installed"
    assert changed["packages"] == [{"name": "demo", "old": "1.0", "new": "1.1"}]
    assert "compared with the packages that were installed" in project.run("explain", "api").out


def test_a_format_that_cannot_be_read_says_so(project: Project) -> None:
    """Only its bytes are known to differ; of another file of the key nobody would expect packages."""
    text = project.config.read_text(encoding="utf-8")
    more = "locks: [api/lock.yml], key: {files: [data.bin]}, build: [[sh, -c, 'exit 0', '{venv}']]"
    project.config.write_text(text.replace("locks: [api/requirements.txt]", more), encoding="utf-8")
    for name in ("data.bin", "api/lock.yml"):
        (project.root / name).write_bytes(b"1")
    store_as_built(project, "api")
    for name in ("data.bin", "api/lock.yml"):
        (project.root / name).write_bytes(b"2")
    found = explained(project, "api")["nearest"]
    assert [each["name"] for each in found["parts"]] == ["file:data.bin", "lock:lock.yml"]
    (changed,) = found["lists"]
    assert (changed["new"], changed["basis"], changed["packages"]) == ("lock:lock.yml", "nothing", [])
    text = project.run("explain", "api").out
    assert text.count("its packages cannot be compared") == 1


def store_as_built(project: Project, venv: str) -> None:
    """Store a venv that another tool made."""
    project.make_foreign_venv(venv)
    answer = project.run("store", venv)
    assert answer.code == 0, answer.err


def test_a_snapshot_keeps_what_its_locks_list_and_no_secret(project: Project) -> None:
    """Names and versions, by the part of the lock; not the lines, in which indexes have passwords."""
    wheel = make_wheel(project.house, "demo", "1.0", scripts={"demo": "demo:main"})
    file = requirements(project.root / "api", [wheel])
    text = f"--index-url https://me:canary@host/simple?token=canary\n{file.read_text(encoding='utf-8')}"
    file.write_text(text, encoding="utf-8")
    make(project, "api")
    identifier = explained(project, "api")["store"]["snapshot"]
    data = (project.store / "snapshots" / f"{identifier}.json").read_text(encoding="ascii")
    assert json.JSONDecoder().raw_decode(data)[0]["packages"] == {"lock:requirements.txt": {"demo": "1.0"}}
    assert "canary" not in data


@pytest.mark.parametrize("damage", ["gone", "directory", "unknown python"])
def test_what_has_no_key_is_explained_by_its_last_one(damage: str, project: Project) -> None:
    """Why there is none, what it was, and that doit would say the same."""
    project.run("restore", "api")
    last = explained(project, "api")["key"]["digest"]
    file = project.root / "api" / "requirements.txt"
    if damage == "unknown python":
        text = project.config.read_text(encoding="utf-8")
        text = text.replace("{path: api/.venv,", "{path: api/.venv, python: /nowhere/python3,")
        project.config.write_text(text, encoding="utf-8")
    else:
        file.unlink()
        if damage == "directory":
            file.mkdir()
    found = explained(project, "api")
    assert found["problem"]
    assert found["key"]["digest"] == last
    assert not found["key"]["current"]
    assert found["store"]["snapshot"] == last
    assert [each["would"] for each in found["tasks"]] == ["fail", *["not run"] * 6]
    lines = project.run("explain", "api").out.splitlines()
    assert lines[1].startswith("no key:")
    assert f"the last one was {last[:12]}" in " ".join(" ".join(lines).split())
    shutil.rmtree(project.root / ".venvflow")
    assert explained(project, "api")["key"] is None
    assert project.run("explain", "api").code == 0


def test_without_a_store_nothing_is_near(project: Project) -> None:
    """And none is made by asking."""
    shutil.rmtree(project.store)
    found = explained(project, "api")
    assert (found["store"]["exists"], found["nearest"]) == (False, None)
    assert would(project)["build-venv"] == "built"
    assert not project.store.exists()


def test_a_snapshot_for_another_place_says_so(project: Project) -> None:
    """It names files of the project: for the same key it is no hit elsewhere."""
    from dataclasses import replace

    from venvflow.pure.keys import snapshot_id
    from venvflow.pure.manifest import decode_snapshot, encode_snapshot

    (file,) = (project.store / "snapshots").iterdir()
    snapshot = decode_snapshot(file.read_bytes())
    other = snapshot_id(snapshot.key.digest, "else/.venv")
    bound = replace(snapshot, id=other, place="else/.venv")
    file.unlink()
    (project.store / "snapshots" / f"{other}.json").write_bytes(encode_snapshot(bound))
    found = explained(project, "api")
    assert found["store"]["snapshot"] is None
    assert (found["nearest"]["parts"], found["nearest"]["place"]) == ([], "else/.venv")
    text = " ".join(project.run("explain", "api").out.split())
    assert "for the same key, but it names files of the project, so it fits only else/.venv" in text


def test_more_than_one_venv_decides_about_trim(project: Project) -> None:
    """It runs after all of them: another one's snapshot is a reason, another one's failure too."""
    trim = explained(project, "api")["tasks"][-1]
    assert (trim["did"], trim["reason"]) == ("dropped", "store:web adds a snapshot")
    (project.root / "web" / "requirements.txt").unlink()
    trim = explained(project, "api")["tasks"][-1]
    assert (trim["would"], trim["reason"]) == ("not run", "hash-lockfiles:web fails")


def test_a_store_that_cannot_be_written_fails_where_it_would_be(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A venv is built all the same, and the task that needs the store says so."""
    from venvflow.state.reader import StoreReader

    lock(project, ("demo", "2.0"))
    usual = StoreReader._open

    def read_only(self: StoreReader) -> None:
        usual(self)
        self.read_only = True

    monkeypatch.setattr(StoreReader, "_open", read_only)
    found = would(project)
    assert (found["build-venv"], found["squish"], found["store"]) == ("built", "fail", "not run")


# --------------------------------------------------------------------------- two keys


def test_two_keys_are_compared_by_their_parts(project: Project) -> None:
    """Venvs as their locks are now, snapshots and keys; 0 for equal ones, else 1."""
    (identifier,) = (path.stem for path in (project.store / "snapshots").iterdir())
    assert explained(project, "api", identifier[:8]) == {
        "old": {"kind": "venv", "name": "api", "key": identifier},
        "new": {"kind": "snapshot", "name": identifier[:8], "key": identifier},
        "equal": True, "parts": [], "lists": [],
    }  # fmt: skip
    found = explained(project, f"key:{identifier}", "web", code=1)
    assert (found["old"]["kind"], found["new"]["kind"], found["equal"]) == ("key", "venv", False)
    assert [each["name"] for each in found["parts"]] == ["lock:requirements.txt"]
    assert found["lists"][0]["packages"] == [{"name": "other", "old": None, "new": "2.0"}]
    answer = project.run("explain", "api", "web")
    assert answer.code == 1
    assert answer.out.splitlines()[0].startswith(f"venv api ({identifier[:12]}) -> venv web (")
    assert "      + other 2.0" in answer.out
    assert "have the same key" in project.run("explain", "api", "api").out


def test_a_key_that_no_snapshot_has_is_that_of_a_venv(project: Project) -> None:
    """What the last run noted can be compared by its digits."""
    lock(project, ("demo", "2.0"))
    assert project.run("restore", "api").code == 1
    digest = explained(project, "api")["key"]["digest"]
    found = explained(project, digest[:10], "api")
    assert (found["old"], found["equal"]) == ({"kind": "key", "name": digest[:10], "key": digest}, True)
    answer = project.run("diff", digest[:10], "api")
    assert (answer.code, "the store has no snapshot for the key" in answer.err) == (2, True)


def test_a_venv_at_a_path_has_the_key_it_was_made_for(project: Project) -> None:
    """In another checkout too; one that nobody made has none."""
    project.run("restore", "api")
    other = project.root.parent / "other"
    (other / "place").mkdir(parents=True)
    shutil.copytree(project.root / "api" / ".venv", other / "place" / ".venv", symlinks=True)
    assert explained(project, str(other / "place" / ".venv"), "api")["equal"]
    foreign = project.make_foreign_venv("web")
    moved = other / "foreign"
    os.rename(foreign, moved)
    answer = project.run("explain", str(moved), "api")
    assert (answer.code, "venvflow did not make it" in answer.err) == (2, True)
    answer = project.run("explain", str(moved))
    assert (answer.code, "is not in the config" in answer.err) == (2, True)
    for file in (project.store / "snapshots").iterdir():
        file.unlink()
    answer = project.run("explain", str(other / "place" / ".venv"), "api")
    assert (answer.code, "its snapshot is gone" in answer.err) == (2, True)


def test_an_archive_has_the_key_it_was_made_for(project: Project) -> None:
    """Its packages are those that are in it."""
    project.run("restore", "api")
    assert project.run("pack", "api", "-o", "a.zip").code == 0
    assert explained(project, "a.zip", "api")["equal"]
    lock(project, ("demo", "1.1"))
    (changed,) = explained(project, "a.zip", "api", code=1)["lists"]
    assert (changed["basis"], changed["packages"]) == (
        "installed", [{"name": "demo", "old": "1.0", "new": "1.1"}],
    )  # fmt: skip


def test_keys_that_begin_alike_are_told_apart_by_more_digits(project: Project) -> None:
    """As snapshots are."""
    for venv in ("api", "web"):
        project.run("restore", venv)
    found: dict[str, dict[str, Key]] = {"api": {}, "web": {}}
    for number in range(1000):  # until a key of each begins with the same four digits
        for venv, keys in found.items():
            key = make_key({"venv": venv, "number": str(number)})
            keys.setdefault(key.digest[:4], key)
    begin = min(found["api"].keys() & found["web"].keys())
    for venv, keys in found.items():
        note = project.root / ".venvflow" / venv / "key.json"
        document = json.loads(note.read_text(encoding="ascii"))
        key = keys[begin]
        note.write_text(json.dumps({**document, "digest": key.digest, "parts": key.parts}), encoding="ascii")
    answer = project.run("explain", begin, "api")
    assert (answer.code, f"2 keys begin with {begin!r}" in answer.err) == (2, True)
    assert project.run("explain", found["web"][begin].digest, "web").code in (0, 1)


@pytest.mark.parametrize(
    ("commands", "shows"),
    [
        ('[["uv", "sync"], ["x"]]', "uv sync; x"), ("[7]", "[7]"), ("7", "7"), ("no JSON", "no JSON"),
        ("\x1b[31m", "\\x1b[31m"),
    ],
)  # fmt: skip
def test_an_archive_may_say_anything_of_its_key(commands: str, shows: str, project: Project) -> None:
    """Nobody vouches for it: what makes no sense is shown as it is, and moves no cursor."""
    description = {"key": {"digest": "d", "parts": {"commands": commands}}}
    with zipfile.ZipFile(project.root / "a.zip", "w") as archive:
        archive.writestr(".venvflow-pack/pack.json", document(description=description))
    answer = project.run("explain", "a.zip", "api")
    assert (answer.code, answer.err) == (1, "")
    assert f"  ~ commands  {shows} -> " in answer.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ap",), "Did you mean api?"),
        (("api", "nothing"), "'nothing' is neither a venv, nor a snapshot, key or archive"),
        (("api", "web", "api"), "there is a word too many"),
        ((), "Name one: api, web."),
        (("*",), "'*' fits several venvs"),
        (("snapshot:", "api"), "is neither a venv"),
    ],
)
def test_words_that_name_nothing_are_errors(words: tuple[str, ...], says: str, project: Project) -> None:
    """With what was meant, perhaps; exit code 2."""
    answer = project.run("explain", *words)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_a_venv_without_a_key_has_nothing_to_compare(project: Project) -> None:
    """The reason is that of the venv."""
    (project.root / "web" / "requirements.txt").unlink()
    answer = project.run("explain", "api", "web")
    assert answer.code in (2, 3)
    assert "requirements.txt" in answer.err
