"""Equal parts share one snapshot; what is restored works at its place, and speaks of no other."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pythons import interpreters
from scenario import BESIDE, MINOR, PIP, UV, Item, Machine, Project, manifest_of
from wheels import make_project, requirements

from venvflow.model import INSTALLER_NOTE

HOSTILE = "a dir with 'quotes' & \"more\"; $HOME %s ä 漢"


def _mentions(directory: Path, text: str) -> list[str]:
    """Return the files below *directory* that contain *text*, and the links that point to it."""
    found = []
    for path, item in manifest_of(directory).items():
        if os.fsencode(text) in item.content:
            found.append(path)
    return found


# --------------------------------------------------------------------------- the key


def test_equal_parts_share_one_snapshot_whatever_path_and_name(machine: Machine) -> None:
    """One lock, two paths with different base names: one build, and each venv speaks of its own place."""
    project = machine.project("p", {"a": {"path": "envs/a"}, "b": {"path": "services/b/.venv"}})
    project.lock("a", machine.wheel("alpha"))
    project.lock("b", machine.wheel("alpha"))
    run = project.doit()
    assert ("build-venv:a" in run.did, "build-venv:b" in run.did) == (True, False)
    assert len(machine.snapshots()) == 1
    for path, prompt in ((project.root / "envs/a", "a"), (project.root / "services/b/.venv", ".venv")):
        text = (path / "bin" / "activate").read_text()
        assert str(path) in text
        activated = project.run(
            ["bash", "-c", f'. "{path}/bin/activate"; echo "$VIRTUAL_ENV|$VIRTUAL_ENV_PROMPT|$PS1"']
        )
        assert activated.out == f"{path}|{prompt}|({prompt}) \n", activated.text
        assert project.run([str(path / "bin" / "alpha")]).out == "1.0\n"


def test_pip_made_venvs_of_different_names_have_their_own_prompt(machine: Machine) -> None:
    """The same for what ``python -m venv`` writes."""
    project = machine.project(
        "p", {"a": {"path": "envs/one"}, "b": {"path": "envs/two"}}, defaults={"build": _bare()}
    )
    project.lock("a", machine.wheel("alpha"))
    project.lock("b", machine.wheel("alpha"))
    run = project.doit()
    assert "build-venv:b" not in run.did
    for name in ("one", "two"):
        venv = project.root / "envs" / name
        script = f'PS1=old; . "{venv}/bin/activate"; echo "$VIRTUAL_ENV|$PS1"'
        assert project.run(["bash", "-c", script]).out.strip() == f"{venv}|({name}) old"
        other = {"one": "two", "two": "one"}[name]
        assert not _mentions(venv, f"envs/{other}")


def _bare() -> list[list[str]]:
    return [["{python}", "-m", "venv", "--without-pip", "{venv}"]]


def test_a_lock_moved_by_directory_is_a_hit_and_another_content_a_miss(machine: Machine) -> None:
    """Base name and bytes count, the directory does not."""
    project = machine.project("p", {"api": {}})
    lock = project.lock("api", machine.wheel("alpha"))
    project.doit()
    (project.root / "locks").mkdir()
    lock.rename(project.root / "locks" / "requirements.txt")
    project.configure({"api": {"locks": ["locks/requirements.txt"]}})
    assert not set(project.doit().did) - {"hash-lockfiles:api", "trim"}
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    (project.root / "locks" / "requirements.txt").write_text("# now empty\n")
    assert project.doit().did["restore:api"].startswith("miss")


def test_included_files_are_in_the_key(machine: Machine) -> None:
    """What a lock includes by ``-r`` and constrains by ``-c`` decides like the lock itself."""
    project = machine.project("p", {"api": {}})
    shared = project.lock("shared", machine.wheel("alpha"))
    (project.root / "api").mkdir()
    (project.root / "api" / "requirements.txt").write_text("-r ../shared/requirements.txt\n")
    project.doit()
    assert project.output("api", "alpha") == "1.0"
    assert project.doit().nothing_to_do
    project.lock("shared", machine.wheel("alpha", "2.0"))
    project.doit()
    assert project.output("api", "alpha") == "2.0"
    assert shared.exists()


def test_the_parts_of_the_key_have_names(machine: Machine) -> None:
    """``key.json`` and the snapshot list them by name, and none of them holds a local path."""
    project = machine.project("p", {"api": {"key": {"env": ["SECRET"]}}})
    project.lock("api", machine.wheel("alpha"))
    project.doit(env={"SECRET": "canary-in-the-mine"})
    parts = project.key("api")["parts"]
    assert {"python", "abi", "platform", "builder", "bytecode", "format"} <= set(parts)
    assert machine.snapshots()[0]["key"]["parts"] == parts if "key" in machine.snapshots()[0] else True
    assert str(machine.root) not in repr(parts)
    everything = b"".join(item.content for item in manifest_of(machine.root).values())
    assert b"canary-in-the-mine" not in everything


OTHERS = [path for minor, path in sorted(interpreters().items()) if minor != MINOR and minor >= "3.10"]


@pytest.mark.skipif(not OTHERS, reason="there is no second Python on this machine")
def test_a_snapshot_is_never_offered_to_another_python(machine: Machine) -> None:
    """One lock, two interpreters: two snapshots, two builds; and each comes back as it was."""
    project = machine.project("p", {"a": {}, "b": {"python": OTHERS[0]}})
    for name in "ab":
        project.lock(name, machine.wheel("alpha"))
    run = project.doit()
    assert {"build-venv:a", "build-venv:b"} <= set(run.did)
    assert len(machine.snapshots()) == 2
    print_version = ["python", "-c", "import sys, alpha; print(sys.version_info[:2])"]
    versions = [project.output(name, *print_version) for name in "ab"]
    assert len(set(versions)) == 2
    for name in "ab":
        shutil.rmtree(project.venv(name))
    run = project.doit()
    assert run.did["restore:a"].startswith("hit")
    assert run.did["restore:b"].startswith("hit")
    assert [project.output(name, *print_version) for name in "ab"] == versions


@pytest.mark.skipif(not OTHERS, reason="there is no second Python on this machine")
def test_changing_the_python_of_a_venv_builds_it_and_changing_back_is_a_hit(machine: Machine) -> None:
    """The interpreter is a part of the key."""
    project = machine.project("p", {"a": {}})
    project.lock("a", machine.wheel("alpha"))
    project.doit()
    project.configure({"a": {"python": OTHERS[0]}})
    assert "build-venv:a" in project.doit().did
    assert not (project.venv("a") / "lib" / f"python{MINOR}").exists()
    project.configure({"a": {"python": MINOR}})
    assert project.doit().did["restore:a"].startswith("hit")


# --------------------------------------------------------------------------- complete and at home


def _differences(one: Path, two: Path) -> dict[str, tuple[object, object]]:
    """Return what differs between two venvs beyond the places that they name."""
    first, second = manifest_of(one), manifest_of(two)
    found: dict[str, tuple[object, object]] = {}
    for path in sorted({*first, *second}):
        a, b = first.get(path), second.get(path)
        if a is None or b is None or _at_home(a, one) != _at_home(b, two):
            found[path] = (a, b)
    return found


def _at_home(item: Item, venv: Path) -> tuple[object, ...]:
    content = item.content.replace(os.fsencode(venv), b"<venv>")
    return item.kind, item.executable, content


@pytest.mark.parametrize("builder", ["uv", PIP, "commands"])
def test_a_restored_venv_equals_the_built_one(machine: Machine, builder: str) -> None:
    """Same paths, kinds, bytes, executable bits and link targets, whatever built it."""
    venvs = {"a": {"build": _bare() if builder == "commands" else builder}}
    project = machine.project("p", venvs)
    data = {
        "tools/run.sh": b"#!/bin/sh\n", "many/empty.txt": b"", "many/blob.bin": bytes(range(256)) * 40,
        "tools-1.0.data/scripts/tool": b"#!python\nprint('tool')\n",
    }  # fmt: skip
    tools = machine.wheel(
        "tools", modules={"tools/__init__.py": "X = 1\n"}, data=data, scripts={"t": "tools:X"}
    )
    project.lock("a", machine.wheel("alpha"), tools)
    project.doit()
    built = project.root / "kept"
    shutil.copytree(project.venv("a"), built, symlinks=True)
    shutil.rmtree(project.venv("a"))
    assert project.doit().did["restore:a"].startswith("hit")
    assert manifest_of(project.venv("a")) == manifest_of(built)


@pytest.fixture
def restored(machine: Machine) -> tuple[Project, Project]:
    """Give a project that built its venv, and another checkout, at an awkward path, that restored it."""
    first = machine.project("first checkout", {"api": {"check": ["-c", "import alpha"]}})
    first.lock("api", machine.wheel("alpha"), machine.wheel("beta"), _scripted(machine))
    first.doit()
    second = Project(machine, machine.root / "other" / HOSTILE)
    shutil.copytree(
        first.root, second.root, ignore=shutil.ignore_patterns(".venv", ".venvflow", "__pycache__")
    )
    run = second.doit()
    assert run.did["restore:api"].startswith("hit"), run.text
    assert "build-venv:api" not in run.did
    return first, second


def _scripted(machine: Machine) -> Path:
    data = {
        "scripted-1.0.data/scripts/plain": b"#!python\nimport sys, alpha\nprint(alpha.VERSION, sys.prefix)\n"
    }
    return machine.wheel("scripted", modules={"scripted.py": "def main(): print(__file__)\n"}, data=data,
                         scripts={"scripted": "scripted:main", "second": "scripted:main"})  # fmt: skip


def test_every_console_script_runs_in_another_checkout(restored: tuple[Project, Project]) -> None:
    """Spaces, quotes and non-ASCII letters in the path break no shebang."""
    _, second = restored
    venv = second.venv("api")
    assert second.output("api", "alpha") == "1.0"
    assert second.output("api", "beta") == "1.0"
    assert second.output("api", "scripted") == str(second.site("api") / "scripted.py")
    assert second.output("api", "second") == str(second.site("api") / "scripted.py")
    assert second.output("api", "plain") == f"1.0 {venv}"
    assert second.output("api", "python", "-c", "import sys; print(sys.prefix)") == str(venv)


@pytest.mark.parametrize("shell", ["bash", "sh", "zsh", "fish", "csh"])
def test_activate_sets_the_right_virtual_env(restored: tuple[Project, Project], shell: str) -> None:
    """Every activate script speaks of its own venv, and python is the venv's."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    _, second = restored
    script = {"fish": ".fish", "csh": ".csh"}.get(shell, "")
    source = "source" if script else "."
    lines = f'{source} ./api/.venv/bin/activate{script}\necho "$VIRTUAL_ENV"\nalpha\n'
    run = second.run([shell, "-c", lines])
    assert run.out.splitlines() == [str(second.venv("api")), "1.0"], run.text


@pytest.mark.slow
def test_a_restored_venv_passes_the_checks_of_uv_and_pip(restored: tuple[Project, Project]) -> None:
    """Both package managers find nothing amiss, and list what is there."""
    _, second = restored
    python = str(second.venv("api") / "bin" / "python")
    assert second.run([UV, "pip", "check", "--python", python]).code == 0
    listed = second.run([sys.executable, "-m", "pip", "--python", python, "list", "--format=freeze"])
    assert {"alpha==1.0", "beta==1.0", "scripted==1.0"} <= set(listed.out.split()), listed.text
    checked = second.run([sys.executable, "-m", "pip", "--python", python, "check"])
    assert checked.code == 0, checked.text


def record_problems(site: Path) -> list[str]:
    """Return every line of every RECORD that the files do not bear out."""
    wrong = []
    for record in site.glob("*.dist-info/RECORD"):
        with open(record, newline="", encoding="utf-8") as file:
            for path, digest, size in csv.reader(file):
                target = site / path
                if not target.exists():
                    if not path.endswith(INSTALLER_NOTE):  # which is given back only where it fits
                        wrong.append(f"{path} is missing")
                elif digest:
                    name, _, expected = digest.partition("=")
                    data = target.read_bytes()
                    found = base64.urlsafe_b64encode(hashlib.new(name, data).digest()).rstrip(b"=").decode()
                    if (found, str(len(data))) != (expected, size):
                        wrong.append(f"{path} has another content")
    return wrong


def test_record_tells_the_truth_of_every_file(restored: tuple[Project, Project]) -> None:
    """Hashes and sizes of rewritten scripts are right where they are restored, and where they are built."""
    first, second = restored
    assert record_problems(first.site("api")) == []
    assert record_problems(second.site("api")) == []


def test_the_old_place_is_named_nowhere(restored: tuple[Project, Project]) -> None:
    """No file, bytecode or link of the restored venv knows where it was built, nor a staging directory."""
    first, second = restored
    for project in restored:
        assert _mentions(project.venv("api"), ".vf-") == []
    assert _mentions(second.venv("api"), str(first.root)) == []
    assert _mentions(second.venv("api"), "first checkout") == []
    bytecode = [item for path, item in manifest_of(second.venv("api")).items() if path.endswith(".pyc")]
    assert bytecode
    assert not [item for item in bytecode if os.fsencode(second.root.parent) in item.content]


def test_tracebacks_name_the_files_of_the_place(restored: tuple[Project, Project]) -> None:
    """Bytecode that all venvs share still tells the right file at run time."""
    _, second = restored
    code = "import alpha; print(alpha.main.__code__.co_filename)"
    assert second.output("api", "python", "-c", code) == str(second.site("api") / "alpha.py")


def test_what_differs_between_the_two_places_is_only_the_place(restored: tuple[Project, Project]) -> None:
    """Filled with their own paths, prefixed entries are equal too; RECORD lines and shebang forms apart."""
    first, second = restored
    differing = set(_differences(first.venv("api"), second.venv("api")))
    allowed = {path for path in differing if path.startswith("bin/") or path.endswith("/RECORD")}
    assert differing == allowed


def _editable(machine: Machine, name: str, builder: str) -> Project:
    project = machine.project(name, {"api": {"build": builder}})
    make_project(project.root / "mylib", "mylib", source="WHERE = __file__\n")
    project.lock("api", machine.wheel("alpha"), extra=["-e ../mylib"])
    return project


@pytest.mark.parametrize("builder", ["uv", PIP])
def test_an_editable_install_points_into_its_own_checkout(machine: Machine, builder: str) -> None:
    """A bound snapshot is offered to the same place of another checkout, and means its sources."""
    first = _editable(machine, "first", builder)
    first.doit()
    ask = ["python", "-c", "import mylib; print(mylib.WHERE)"]
    assert first.output("api", *ask) == str(first.root / "mylib" / "src" / "mylib.py")
    second = _editable(machine, f"second {HOSTILE}", builder)
    run = second.doit()
    assert run.did["restore:api"].startswith("hit"), run.text
    assert second.output("api", *ask) == str(second.root / "mylib" / "src" / "mylib.py")
    assert _mentions(second.venv("api"), str(first.root)) == []
    assert record_problems(second.site("api")) == []


def test_a_bound_snapshot_is_not_offered_to_another_place(machine: Machine) -> None:
    """The same lock at another place of the project is another venv when it refers to the project."""
    project = _editable(machine, "p", "uv")
    project.doit()
    shutil.copytree(project.root / "api", project.root / "web", ignore=shutil.ignore_patterns(".venv"))
    project.configure({"api": {}, "web": {}})
    run = project.doit()
    assert "build-venv:web" in run.did
    assert len(machine.snapshots()) == 2
    assert str(project.root / "mylib") in project.output(
        "web", "python", "-c", "import mylib; print(mylib.WHERE)"
    )


# --------------------------------------------------------------------------- what makes a hit a miss


def test_a_failing_check_is_a_miss_and_the_old_venv_stays(machine: Machine) -> None:
    """Where the build that follows fails it too, the check may be at fault: nobody loses the snapshot."""
    flag = machine.root / "flag"
    flag.write_text("")
    check = ["-c", f"import os, sys; sys.exit(0 if os.path.exists({str(flag)!r}) else 'the flag is down')"]
    project = machine.project("p", {"api": {"check": check}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    project.lock("api", machine.wheel("alpha", "2.0"))
    project.doit()
    before = manifest_of(project.venv("api"))
    flag.unlink()
    project.lock("api", machine.wheel("alpha"))
    run = project.doit(code=4)
    assert run.did["restore:api"].startswith("miss")
    assert "the flag is down" in run.did["restore:api"]
    assert "check" in run.err
    assert manifest_of(project.venv("api")) == before
    assert len(machine.snapshots()) == 2
    flag.write_text("")
    assert project.doit().did["restore:api"].startswith("hit")
    assert project.output("api", "alpha") == "1.0"


def test_a_snapshot_that_fails_what_a_new_build_passes_is_put_aside(machine: Machine) -> None:
    """Then the snapshot was bad, and the build takes its place for everybody."""
    count = machine.root / "count"
    check = ["-c", f"import sys; f = open({str(count)!r}, 'ab'); f.write(b'x'); sys.exit(f.tell() == 2)"]
    project = machine.project("p", {"api": {"check": check}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    shutil.rmtree(project.venv("api"))
    run = project.doit()
    assert "cannot be used: its check ended with exit status 1" in run.did["restore:api"]
    assert run.did["build-venv:api"].startswith("built")
    assert run.did["store:api"].startswith("stored")
    assert len(list((machine.store / "quarantine").iterdir())) == len(machine.snapshots()) == 1
    assert project.doit().nothing_to_do


def test_a_new_check_is_run_in_the_venv_that_is_there(machine: Machine) -> None:
    """Once, without a build; where it fails, venv and snapshot stay, until lock file or check are mended."""
    project = machine.project("p", {"api": {}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    before, built = manifest_of(project.venv("api")), project.built_at("api")
    project.configure({"api": {"check": ["-c", "import nonex"]}})
    for _ in range(2):
        run = project.doit(code=4)
        assert "its check ended with exit status 1" in run.err
        assert "No module named 'nonex'" in run.err
        assert "snapshot" in run.err
    count = machine.root / "count"
    project.configure({"api": {"check": ["-c", f"import alpha; open({str(count)!r}, 'a').write('x')"]}})
    assert project.doit().nothing_to_do
    assert project.doit().nothing_to_do
    assert count.read_text() == "x"
    assert manifest_of(project.venv("api")) == before
    assert project.built_at("api") == built
    assert len(machine.snapshots()) == 1


def test_an_interpreter_that_is_gone_is_said_and_the_venv_stays(machine: Machine) -> None:
    """Nothing is taken away from a venv because its Python disappeared; the message names it."""
    real = os.path.realpath(os.path.join(sys.base_prefix, "bin", f"python{MINOR}"))
    home = machine.root / "mypython"
    subprocess.run([UV, "venv", "-q", "--python", real, str(home)], check=True, env=machine.environ)
    link = machine.root / "mypython-link"
    link.symlink_to(real)
    project = machine.project("p", {"api": {"python": str(link)}})
    project.lock("api", machine.wheel("alpha"))
    project.doit()
    before = manifest_of(project.venv("api"))
    link.unlink()
    project.lock("api", machine.wheel("alpha"), machine.wheel("beta"))
    run = project.doit(code=3)
    assert "Traceback" not in run.text
    assert str(link) in run.err
    assert manifest_of(project.venv("api")) == before


@pytest.mark.parametrize(
    "damage",
    ["flipped", "appended", "truncated", "removed", "tree flipped", "tree removed", "snapshot flipped"],
)
def test_damage_in_the_store_is_a_miss_and_heals_by_a_build(machine: Machine, damage: str) -> None:
    """Objects and records that are not what their names say are never put into a venv."""
    project = machine.project("p", {"api": {}}, store={"durability": "none", "verify": "full"})
    big = machine.wheel("big", modules={"big.py": "TEXT = 'needle in the store'\n"}, scripts={})
    project.lock("api", machine.wheel("alpha"), big)
    project.doit()
    before = manifest_of(project.venv("api"))
    shutil.rmtree(project.venv("api"))
    _damage(machine, damage)
    run = project.doit()
    assert run.did["restore:api"].startswith("miss"), run.text
    assert "build-venv:api" in run.did
    assert manifest_of(project.venv("api")) == before
    shutil.rmtree(project.venv("api"))
    assert project.doit().did["restore:api"].startswith("hit")
    assert manifest_of(project.venv("api")) == before


def _damage(machine: Machine, damage: str) -> None:
    needle = next(
        path
        for path in (machine.store / "objects").glob("*/*")
        if b"needle in the store'\n" in path.read_bytes()
    )
    data = needle.read_bytes()
    if damage.startswith("tree"):
        needle = max((machine.store / "trees").glob("*/*"), key=lambda path: path.stat().st_size)
    if damage.startswith("snapshot"):
        needle = next((machine.store / "snapshots").glob("*.json"))
    st = needle.stat()
    data = needle.read_bytes()
    needle.unlink()
    if damage.endswith("removed"):
        return
    middle = len(data) // 2
    changed = {"appended": data + b"#", "truncated": data[:-1]}.get(
        damage, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    )
    needle.write_bytes(changed)
    needle.chmod(st.st_mode)
    os.utime(needle, ns=(st.st_atime_ns, st.st_mtime_ns))


def test_the_order_of_locks_is_in_the_key_of_a_command_that_names_the_first(machine: Machine) -> None:
    """``{lock}`` is the first one; for ``{locks}`` the order decides nothing."""
    site = {}
    for word in ("{lock}", "{locks}"):
        build = [
            ["{uv}", "venv", "--no-project", "--python", "{python}", "{venv}"],
            ["{uv}", "pip", "sync", "--python", "{venv}/bin/python", word],
        ]
        for order in ("ab", "ba"):
            locks = [f"{name}.txt" for name in order]
            project = machine.project(f"{word[1:-1]}-{order}", {"api": {"build": build, "locks": locks}})
            requirements(project.root, [machine.wheel("alpha")], name="a.txt")
            requirements(project.root, [machine.wheel("beta")], name="b.txt")
            project.doit()
            installed = {name for name in ("alpha", "beta") if (project.site("api") / f"{name}.py").exists()}
            site[word, order] = (project.key("api")["digest"], installed)
    assert [site["{lock}", order][1] for order in ("ab", "ba")] == [{"alpha"}, {"beta"}]
    assert site["{lock}", "ab"][0] != site["{lock}", "ba"][0]
    assert site["{locks}", "ab"] == site["{locks}", "ba"]
    assert site["{locks}", "ab"][1] == {"alpha", "beta"}


WRITER = """\
import json, os, sys
venv, project = sys.argv[1:]
site = os.path.join(venv, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
kernel = os.path.join(venv, "share/jupyter/kernels/data")
os.makedirs(kernel)
os.makedirs(os.path.join(venv, "etc"))
with open(os.path.join(kernel, "kernel.json"), "w") as file:
    json.dump({"argv": [venv + "/bin/python"], "env": {"DATA": project + "/data"}}, file)
with open(os.path.join(venv, "etc/app.ini"), "w") as file:
    file.write("[app]\\ndata = %s/data\\n" % project)
with open(os.path.join(site, "sitecustomize.py"), "w") as file:
    file.write("import os\\nos.environ['DATA'] = %r\\n" % (project + "/data"))
with open(os.path.join(venv, "bin/kernel"), "w") as file:
    file.write("#!/usr/bin/env -S %s/bin/python -I -B\\nimport sys; print(sys.prefix)\\n" % venv)
os.chmod(os.path.join(venv, "bin/kernel"), 0o755)
"""


def test_what_a_build_writes_names_the_checkout_that_it_is_restored_in(machine: Machine) -> None:
    """Settings, a kernel and a script that a command wrote, at a long path with a blank in it."""
    script = machine.root / "writer.py"
    script.write_text(WRITER)
    build = [*_bare(), ["{python}", str(script), "{venv}", "{project}"]]
    first = machine.project("one", {"api": {"build": build}})
    first.lock("api", machine.wheel("alpha"))
    first.doit()
    second = machine.project("/".join(["a b", *["long" * 10] * 5]), {"api": {"build": build}})
    second.lock("api", machine.wheel("alpha"))
    run = second.doit()
    assert "hit" in run.did["restore:api"], run.text
    assert "build-venv:api" not in run.did
    assert not _mentions(second.venv("api"), str(first.root))
    data = f"{second.root}/data"
    assert data in (second.venv("api") / "etc/app.ini").read_text()
    kernel = json.loads((second.venv("api") / "share/jupyter/kernels/data/kernel.json").read_text())
    assert kernel == {"argv": [f"{second.venv('api')}/bin/python"], "env": {"DATA": data}}
    assert second.output("api", "python", "-c", "import os; print(os.environ['DATA'])") == data
    assert second.output("api", "kernel") == str(second.venv("api"))


LOADER = """\
import os, sys
venv, project = sys.argv[1:]
site = os.path.join(venv, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
build = os.path.join(project, "build/here")
os.makedirs(build, exist_ok=True)
with open(os.path.join(build, "made.py"), "w") as file:
    file.write("X = 1\\n")
with open(os.path.join(site, "_made_editable_loader.py"), "w") as file:
    file.write("import sys\\nsys.path.append(%r)\\n" % build)
with open(os.path.join(site, "made-editable.pth"), "w") as file:
    file.write("import _made_editable_loader\\n")
"""


def test_a_snapshot_that_needs_what_only_its_checkout_has_is_a_miss(machine: Machine) -> None:
    """As meson-python's editable installs do: built in each checkout, and a hit where the path is there."""
    script = machine.root / "loader.py"
    script.write_text(LOADER)
    build = [*_bare(), ["{python}", str(script), "{venv}", "{project}"]]
    projects = [machine.project(name, {"api": {"build": build}}) for name in ("one", "two", "three")]
    for project in projects:
        project.lock("api", machine.wheel("alpha"))
    first, second, third = projects
    first.doit()
    why = "the snapshot for the key needs build/here, which is not here"
    explained = second.run([os.path.join(BESIDE, "venvflow"), "explain", "api"]).out
    assert why in " ".join(explained.split())
    run = second.doit()
    assert why in run.did["restore:api"]
    assert run.did["build-venv:api"].startswith("built")
    assert second.output("api", "python", "-c", "import made; print(made.__file__)").startswith(
        str(second.root)
    )
    assert second.doit().nothing_to_do
    shutil.copytree(first.root / "build", third.root / "build")
    assert third.doit().did["restore:api"].startswith("hit")
    assert third.output("api", "python", "-c", "import made; print(made.__file__)").startswith(
        str(third.root)
    )
    for project in (second, third):  # built and restored: what was there is gone later
        shutil.rmtree(project.root / "build")
        assert "damaged" in project.run([os.path.join(BESIDE, "venvflow"), "status", "api"]).out
        run = project.doit()
        assert (why in run.did["restore:api"], "build-venv:api" in run.did) == (True, True)
        assert project.output("api", "python", "-c", "import made; print(made.X)") == "1"
        assert project.doit().nothing_to_do
