"""What a venv keeps to itself: credentials, and what other users cannot read where it is."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path
from stat import S_ISREG

import pytest
from cli_project import Project
from contents import NOBODY, for_everybody, in_child, needs_root
from flows import World

from venvflow import pack_venv
from venvflow.pure.sharing import holds_key, is_credential

SECRET = "hunter2-and-more"  # noqa: S105 - it opens nothing
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "path", ["pip.conf", "etc/.netrc", ".pypirc", "home/.ssh/id_ed25519", "share/pip.ini"]
)
def test_files_for_credentials_are_known_by_name(path: str) -> None:
    """Wherever in the venv they are."""
    assert is_credential(path)
    assert not is_credential(f"{path}.md")


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_keys_are_known_by_content(kind: str) -> None:
    """With a certificate before them, too; a certificate alone is no secret, whatever its file is called."""
    key = f"-----BEGIN {kind}PRIVATE KEY-----\nMIIE\n-----END {kind}PRIVATE KEY-----\n"
    assert holds_key(key.encode())
    assert holds_key((CERTIFICATE + key.replace("\n", "\r\n")).encode())
    assert not holds_key(CERTIFICATE.encode())
    assert not holds_key(b"how to read -----BEGIN PRIVATE KEY----- in a text")


def secrets(venv: Path, umask: int = 0o022) -> None:
    """Put all kinds of secrets into a venv, and what looks like one and is none."""
    for path, text, mode in (
        ("pip.conf", f"[global]\nindex-url = https://u:{SECRET}@h/\n", 0o644),
        ("etc/server.pem", KEY, 0o644),
        ("share/token.txt", f"{SECRET}\n", 0o600),
        ("share/closed/readable.txt", f"{SECRET} {venv}\n", 0o644),
        ("etc/group.txt", f"{SECRET} of the group\n", 0o640),
        ("etc/cacert.pem", CERTIFICATE, 0o644),
    ):
        (venv / path).parent.mkdir(parents=True, exist_ok=True)
        (venv / path).write_text(text)
        (venv / path).chmod(mode & ~umask)
    (venv / "share/closed").chmod(0o700)


PRIVATE = ("pip.conf", "etc/server.pem", "share/token.txt", "share/closed/readable.txt", "etc/group.txt")


def holders(root: Path) -> list[str]:
    """Return the files below *root* that have the secret in them."""
    return [str(path) for path in root.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("opened", [False, True])
def test_secrets_stay_in_their_venv(project: Project, opened: bool) -> None:
    """Whether the store is open or not, for it may be opened one day; the rest is shared."""
    venv = project.make_foreign_venv()
    secrets(venv)
    if opened:
        project.store.chmod(0o755)
    answer = project.run("squish", "api")
    assert answer.code == 0, answer.err
    assert holders(project.store) == []
    for path in PRIVATE:
        assert SECRET in (venv / path).read_text()
        assert (venv / path).stat().st_nlink == 1
    assert (venv / "etc/cacert.pem").stat().st_nlink > 1
    said = answer.out + answer.err
    assert "pip.conf" in said or "etc/server.pem" in said
    assert "it stays in this venv only" in said
    assert SECRET not in said


def test_a_venv_that_was_shared_without_its_secrets_is_not_changed_by_hand(project: Project) -> None:
    """Neither at once nor later, by any command; and nothing is missing from it."""
    venv = project.make_foreign_venv()
    secrets(venv)
    for _ in range(2):
        assert project.run("squish", "api").code == 0
        assert project.run("verify").code == 0, project.run("verify").out
    assert "by hand" not in project.run("status").out
    assert project.run("unsquish", "api").code == 0
    assert SECRET in (venv / "pip.conf").read_text()


@pytest.mark.parametrize("close", [0o700, 0o750])
def test_a_closed_venv_is_not_shared_through_an_open_store(project: Project, close: int) -> None:
    """What others could not read before, they cannot read afterwards."""
    venv = project.make_foreign_venv()
    venv.chmod(close)
    project.store.chmod(0o755)
    answer = project.run("squish", "api")
    assert answer.code == 6
    assert "chmod go-rx" in answer.err
    assert not [
        path for path in venv.rglob("*") if S_ISREG(path.lstat().st_mode) and path.lstat().st_nlink > 1
    ]
    project.store.chmod(0o700)
    assert project.run("squish", "api").code == 0


def test_a_closed_file_of_a_package_is_not_shared_through_an_open_store(project: Project) -> None:
    """A snapshot without it would not be whole: the store has to be closed, or the file opened."""
    assert project.run("restore", "api").code == 0
    assert project.run("unsquish", "api").code == 0
    file = project.site / "demo.py"
    file = file if file.exists() else next(project.site.glob("demo*/*.py"))
    file.chmod(0o600)
    project.store.chmod(0o755)
    answer = project.run("squish", "api")
    assert (answer.code, file.name in answer.err) == (6, True)
    project.store.chmod(0o700)
    assert project.run("squish", "api").code == 0


@pytest.mark.parametrize("opened", [False, True])
def test_what_is_closed_of_a_package_stays_closed_in_a_venv_of_others(
    project: Project, tmp_path: Path, opened: bool
) -> None:
    """Somebody wrote a password into it: neither it nor its bytecode can be read by others afterwards."""
    venv = tmp_path / "other"
    project.make_foreign_venv().rename(venv)
    site = next(venv.glob("lib/python3*/site-packages"))
    info = site / "demo-1.0.dist-info"
    info.mkdir()
    files = {"demo.py": 0o600, "sub/__init__.py": 0o644, "plain.py": 0o644, ".env": 0o644}
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    (site / "sub").mkdir(mode=0o700)
    for name, mode in files.items():
        (site / name).write_text(f"PASSWORD = '{SECRET}'\n" if name != "plain.py" else "x = 1\n")
        (site / name).chmod(mode)
    if opened:
        project.store.mkdir(exist_ok=True)
        project.store.chmod(0o755)
    answer = project.run("squish", str(venv))
    assert answer.code == 0, answer.err
    assert holders(project.store) == []
    assert (site / "demo.py").stat().st_mode & 0o077 == 0
    assert {path.name for path in map(Path, holders(venv))} == {"demo.py", "__init__.py", ".env"}
    assert (site / "plain.py").stat().st_nlink > 1
    assert project.run("unsquish", str(venv)).code == 0
    assert (site / "demo.py").stat().st_mode & 0o077 == 0


@pytest.mark.root
@needs_root
def test_nobody_reads_a_secret_through_the_store(project: Project) -> None:
    """Another user who may enter everything above the store."""
    venv = project.make_foreign_venv()
    secrets(venv)
    assert project.run("squish", "api").code == 0
    with for_everybody() as place:
        store = Path(shutil.copytree(project.store, place / "store", symlinks=True))
        store.chmod(0o755)
        assert list(store.rglob("objects/*/*"))

        def work() -> None:
            assert holders(store) == []

        assert in_child(work, user=NOBODY) == 0


def test_secrets_are_in_no_archive_and_no_export(project: Project) -> None:
    """Neither of a venv of the config nor of a directory that is packed as it is."""
    venv = project.make_foreign_venv()
    secrets(venv)
    for words in (("squish", "api"), ("export", "api", "../exported")):
        project.run(*words)
    assert holders(project.root.parent / "exported") == []
    closed = "not everybody can read"
    with (
        pytest.warns(pack_venv.PackWarning, match=closed),
        pytest.warns(pack_venv.PackWarning, match="holds credentials"),
        pytest.warns(pack_venv.PackWarning, match="must be filled in"),
    ):
        pack_venv.export_venv(venv, project.root.parent / "copy")
    with (
        pytest.warns(pack_venv.PackWarning, match=closed),
        pytest.warns(pack_venv.PackWarning, match="holds credentials"),
        pytest.warns(pack_venv.PackWarning, match="must be filled in"),
    ):
        made = pack_venv.create_archive(venv, project.root.parent / "layer", show_progress=False)
    with tarfile.open(made) as archive:
        archive.extractall(project.root.parent / "unpacked", filter="tar")
    for target in ("copy", "unpacked"):
        names = {path.rpartition("/")[2] for path in holders(project.root.parent / target)}
        assert not names & {"pip.conf", "server.pem"}
        assert [*(project.root.parent / target).rglob("cacert.pem")]


def test_notes_of_urls_with_credentials_stay_in_their_venv(project: Project) -> None:
    """Although a RECORD lists them: of a package that was installed by a signed link, of a clone."""
    venv = project.make_foreign_venv()
    site = next(venv.glob("lib/python3*/site-packages"))
    notes = {
        site / "linked-1.0.dist-info/direct_url.json": f'{{"url": "https://h/linked.whl?token={SECRET}"}}',
        venv / "src/cloned/.git/config": f'[remote "origin"]\n\turl = https://me:{SECRET}@h/cloned.git\n',
        venv / "src/cloned/.git/logs/HEAD": f"0 0 me clone: from https://{SECRET}@h/cloned.git\n",
    }
    clean = site / "clean-1.0.dist-info/direct_url.json"
    for path, text in {**notes, clean: '{"url": "https://h/clean.whl"}'}.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
        if path.parent.name.endswith(".dist-info"):
            (path.parent / "RECORD").write_text(f"{path.parent.name}/direct_url.json,,\n")
    for words in (
        ("store", "api", "--force"),
        ("squish", "api"),
        ("verify",),
        ("export", "api", "../exported"),
    ):
        answer = project.run(*words)
        assert answer.code == 0, answer.err
        assert SECRET not in answer.out + answer.err
    assert holders(project.store) == holders(project.root.parent / "exported") == []
    assert len(holders(venv)) == len(notes)
    assert (project.root.parent / "exported" / clean.relative_to(venv)).is_file()
    with pytest.warns(pack_venv.PackWarning, match="holds credentials"):
        pack_venv.export_venv(venv, project.root.parent / "copy")
    assert holders(project.root.parent / "copy") == []


@pytest.mark.slow
def test_a_venv_that_was_built_with_secrets_is_restored_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is changed by hand then, nor missing; and no build is needed."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name, mode in (("pip.conf", 0o644), ("closed.txt", 0o600), ("public.txt", 0o644)):
        (tmp_path / name).write_text(SECRET if name != "public.txt" else "for all")
        (tmp_path / name).chmod(mode)
    world = World(tmp_path, tmp_path / "house")
    lock = world.lock("api", world.wheel("demo"))
    python = os.path.realpath(f"{sys.base_prefix}/bin/python3")
    build = [
        ["uv", "venv", "-q", "--python", python, "{venv}"],
        ["uv", "pip", "install", "-q", "--python", "{venv}/bin/python", "-r", str(lock)],
        ["cp", *(str(tmp_path / name) for name in ("pip.conf", "closed.txt", "public.txt")), "{venv}"],
    ]
    world.configure({"api": {"build": build, "python": python}})
    assert {name: outcome.did for name, outcome in world.run().items() if name != "pack"} == {
        "hash_lockfiles": "new", "restore": "miss", "build_venv": "built", "squish": "squished",
        "store": "stored",
    }  # fmt: skip
    assert holders(world.store) == []
    assert SECRET in (world.venv() / "pip.conf").read_text()
    for gone in (False, True):
        if gone:
            shutil.rmtree(world.venv())
        for restored in ("hit" if gone else "kept", "kept"):
            did = world.run()
            assert (did["restore"].did, did["restore"].warnings) == (restored, ())
            assert did["build_venv"].did == "kept"
    assert {path.name for path in world.venv().glob("*.*")} >= {"public.txt"}
    assert not (world.venv() / "pip.conf").exists()
