"""What the documents tell the reader to type does what they say; what they refer to is there.

Pages with sessions are run whole (slow). What cannot be run as it stands is listed here, with the reason and
with what is tested instead: the CI files are parsed and their commands run, the Dockerfile's too.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import preloaded
import pytest
import yaml
from pythons import interpreters

from tools.__main__ import main
from tools.markdown import (
    Block,
    anchors,
    blocks,
    generated_sections,
    links,
    prose,
    with_sections,
)
from tools.pages import DOCS, README, ROOT, SESSIONS, all_pages, answers_of
from tools.reference import sections
from tools.world import BIN, World
from venvflow import config
from venvflow.cli.schema import schema_text
from venvflow.pure.signing import encode_secret, public_of, secret_key
from venvflow.state import schema

TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

PAGES = all_pages()
DECISIONS = [*DOCS.glob("decisions/0*.md")]
"""They are listed in their own index, and held by test_docs."""

CHECKED = {"console", "yaml", "json", "toml", "ini", "make", "python", "sql", "sh", "dockerfile", "text"}
"""Languages of blocks. ``text`` is for output and usage, and for what NOT_RUN lists."""

NOT_RUN = {
    "docs/howto/install.md": ("@ git+https://", "./venvflow[uv]"),
    "docs/howto/archives.md": ("spark-submit", "--dest-prefix"),
    "README.md": ("make run", "rm -rf .venvs/web && make run", "venvflow init"),
}
"""Commands in ``text`` blocks. ``git+https`` needs a host that has the repository, ``make run`` a package
index and minutes. Lines that install are the tutorial's, the README's others are run by test_docs."""

NEEDS = {
    "docs/howto/tox-and-nox.md": ("tox", "nox"),
    "docs/howto/make.md": ("make",),
    "docs/howto/worktrees.md": ("git",),
    "docs/tutorial.md": ("git",),
    "docs/howto/install.md": ("git", "uv"),
    "README.md": ("git",),
    "docs/reference/database.md": ("datasette",),
    "docs/howto/many-pythons.md": ("python3.12", "python3.13"),
    "docs/howto/fan-out.md": ("jq",),
    "docs/howto/monorepo.md": ("git", "python3.12", "python3.13"),
    "docs/howto/with-uv.md": ("git", "uv"),
    "docs/howto/with-poetry.md": ("git", "poetry"),
    "docs/howto/with-pdm.md": ("git", "pdm"),
    "docs/howto/with-pip-tools.md": ("git", "pip-compile"),
}
"""Programs that a page is about. A page is skipped, with the reason, where they are missing."""


def name_of(page: Path) -> str:
    """Return the name of a page for people."""
    return page.relative_to(ROOT).as_posix()


def text_of(name: str) -> str:
    """Return the text of a page."""
    return (ROOT / name).read_text(encoding="utf-8")


def quick_world(root: Path, wheels: Path) -> World:
    """Return a world in which what starting Python costs is saved: in our own doit and venvflow."""
    world = World(root, wheels)
    world.programs.append(preloaded.programs(world.environ))
    return world


def all_blocks(language: str) -> Iterator[tuple[str, Block]]:
    """Yield every block of a language, with the name of its page."""
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.language == language:
                yield name_of(page), block


# --------------------------------------------------------------------------- what is generated


def test_generated_sections_say_what_the_code_says() -> None:
    """Whoever changes a command, a key or a view runs "make docs"."""
    made = sections()
    stale = [
        name_of(page)
        for page in PAGES
        if with_sections(page.read_text("utf-8"), made) != page.read_text("utf-8")
    ]

    assert stale == [], 'run "make docs"'


def test_every_generated_section_has_a_page() -> None:
    """Nothing is generated for nobody."""
    used = [section for page in PAGES for section in generated_sections(page.read_text("utf-8"))]

    assert sorted(used) == sorted(sections())


def test_a_page_is_written_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the generator fills in is what stands in the reference."""
    page = DOCS / "reference" / "tasks.md"

    assert main(["reference", str(page)]) == 0
    assert capsys.readouterr().out == ""


# --------------------------------------------------------------------------- what pages look like


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("[A-Z]*.md")}), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link leads to a file that is there, and to a heading that it has."""
    for link in links(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_in_the_index() -> None:
    """A page that nobody links to is a page that nobody reads."""
    index = text_of("docs/index.md")
    listed = {(DOCS / link).resolve() for link in links(index)}

    assert {page for page in PAGES if page not in (README, DOCS / "index.md", *DECISIONS)} <= listed


@pytest.mark.parametrize("page", [page for page in PAGES if page not in (README, *DECISIONS)], ids=name_of)
def test_a_page_says_at_its_top_what_one_will_be_able_to_do(page: Path) -> None:
    """The first sentence below the title speaks to the reader."""
    title, first = page.read_text(encoding="utf-8").split("\n\n")[:2]

    assert title.startswith("# ")
    assert re.match(r"(You (will|can)|At the end of this page you|Start with) ", first), first


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_plain(page: Path) -> None:
    """Lines are short, headings go down by one level, and nothing is left to be written."""
    text = page.read_text(encoding="utf-8")
    levels = [len(found) for found in re.findall(r"^(#+) ", prose(text), re.MULTILINE)]
    long = [line for line in prose(with_sections(text, dict.fromkeys(sections(), ""))).splitlines()
            if len(line) > 130 and not line.startswith("|")]  # fmt: skip

    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert long == []
    assert "TODO" not in text


def test_every_block_is_of_a_language_that_is_checked() -> None:
    """A block without a language, or with a new one, would be tested by nobody."""
    odd = [
        (name_of(page), block.line, block.language)
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language not in CHECKED
    ]

    assert odd == []


def test_commands_that_are_not_run_are_listed() -> None:
    """A command in a text block is one of the few that cannot be run here."""
    program = re.compile(r"^(venvflow|doit|make|pip|uv|rm|python3?|~/\S+/pip) .*")
    for name, block in all_blocks("text"):
        generated = name == "docs/reference/commands.md"
        for line in block.text.splitlines():
            if program.match(line) and not generated and not block.file:
                assert any(word in block.text for word in NOT_RUN.get(name, ())), (name, line)


def test_yaml_is_yaml_and_configs_load(tmp_path: Path) -> None:
    """Each YAML block parses, and whatever is meant for venvflow.yaml is a config without mistakes."""
    services = [f"services/{name}/requirements" for name in ("api", "worker", "mail", "pay")]
    locks = [f"{path}{end}.txt" for path in services for end in ("", "-dev")]
    locks += [f"libs/{name}/requirements.txt" for name in ("base", "text")]
    for place in (*locks, "constraints/a.txt", "libs/core/uv.lock", "locks/3.12.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")
    ours = set(json.loads(schema_text())["properties"])
    seen = 0
    for name, block in all_blocks("yaml"):
        document = yaml.safe_load(block.text)
        if not set(document) <= ours:
            assert block.file or set(document) <= {"env", "variables"}, (name, block.line)
            continue
        file = tmp_path / "venvflow.yaml"
        file.write_text(block.text if {"venvs", "each"} & set(document) else f"{block.text}\nvenvs: {{}}\n")
        config.load(str(file), str(tmp_path), {"HOME": str(tmp_path)})
        seen += 1
    assert seen >= 8


def test_toml_json_and_python_are_well_formed() -> None:
    """Each block in TOML or JSON parses, each Python block compiles."""
    for name, block in all_blocks("json"):
        assert json.loads(block.text), name
    for name, block in all_blocks("toml"):
        assert TOML.loads(block.text), name
    for name, block in all_blocks("python"):
        compile(block.text, f"{name}:{block.line}", "exec")


def test_the_reference_names_every_variable_that_is_read() -> None:
    """A variable that the code asks for is in the table."""
    page = text_of("docs/reference/environment.md")
    asked = re.compile(r"""environ(?:\.get\(|\[)"([A-Z_]+)\"""")
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "venvflow").rglob("*.py"))
    names = set(asked.findall(code)) | set(re.findall(r"\bVENVFLOW_[A-Z_]+\b", code))

    assert len(names) > 8
    assert {name for name in names if f"`{name}`" not in page} - SET_FOR_OTHERS == set()


SET_FOR_OTHERS = {"PYTHONHASHSEED"}
"""What we do not read but set for a program that we run."""


# --------------------------------------------------------------------------- SQL


def test_queries_fit_the_schema() -> None:
    """Each query of the page runs on an index without rows."""
    connection = sqlite3.connect(":memory:")
    schema.apply(connection)
    queries = [block.text for _, block in all_blocks("sql")]

    assert len(queries) >= 4
    for query in queries:
        assert connection.execute(query).fetchall() == []
    connection.close()


@pytest.mark.slow
def test_queries_answer(tmp_path: Path, wheels: Path) -> None:
    """On a real store, each query but the one for old snapshots has something to say."""
    world = quick_world(tmp_path, wheels)
    world.furnish()
    lock = world.project / "services/api/requirements.txt"
    shell(world, "doit")
    lock.write_text("click==8.2.1\n")
    shell(world, "doit")
    connection = sqlite3.connect(world.home / ".local/share/venvflow/index.db")
    answers = {block.text: connection.execute(block.text).fetchall() for _, block in all_blocks("sql")}
    connection.close()

    assert [query for query, rows in answers.items() if not rows and "-30 days" not in query] == []
    versions = next(rows for query, rows in answers.items() if "HAVING" in query)
    found = {version: {*venvs.split(",")} for _, version, venvs in versions}  # SQLite orders them as it likes
    assert found == {"8.2.1": {"api"}, "8.3.1": {"api", "worker"}}


# --------------------------------------------------------------------------- sessions


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of the packages that the pages install."""
    return tmp_path_factory.mktemp("packages")


ON_DISK = {"docs/explanation/sharing.md"}
"""Pages that say how many blocks files take: not the same number in memory."""


def need(name: str) -> None:
    """Skip a test whose page is about programs that are not here."""
    pythons = {f"python{minor}" for minor in interpreters()}
    path = os.pathsep.join([BIN, os.environ["PATH"]])
    missing = [
        program
        for program in NEEDS.get(name, ())
        if not (shutil.which(program, path=path) or program in pythons)
    ]
    if missing:
        pytest.skip(f"{name} is about {' and '.join(missing)}: not installed")


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS, ids=name_of)
def test_what_a_page_tells_to_type_prints_what_it_says(page: Path, tmp_path: Path, wheels: Path) -> None:
    """All sessions of a page, run as one, in a new home; what starting Python costs is saved."""
    need(name_of(page))

    with tempfile.TemporaryDirectory() if name_of(page) in ON_DISK else nullcontext(str(tmp_path)) as root:
        answers = answers_of(page, Path(root), wheels, programs=preloaded.programs)

    problems = [answer.problem for answer in answers if answer.problem]
    assert not problems, '"make docs" would change it:\n\n' + "\n\n".join(problems)


@pytest.mark.parametrize("page", ["README.md", "docs/howto/install.md"])
def test_all_pages_install_as_the_tutorial_does(page: str) -> None:
    """There it is run: from a clone, by pip, in an empty home."""
    told = next(block.text for block in blocks(text_of(page)) if "pip install" in block.text)
    typed = next(block.text for block in blocks(text_of("docs/tutorial.md")) if block.language == "console")

    assert told.splitlines()[:3] == [line[2:] for line in typed.splitlines()][:3]


def test_tutorial_and_how_tos_have_sessions() -> None:
    """Each is run, but for those whose examples are for machines that we do not have."""
    without = {name_of(page) for page in DOCS.glob("howto/*.md")} - {name_of(page) for page in SESSIONS}

    assert without == {
        f"docs/howto/{name}.md" for name in ("gitlab-ci", "docker", "fleet-on-github", "fleet-on-gitlab")
    }  # tested below, and in test_action
    assert DOCS / "tutorial.md" in SESSIONS
    assert README in SESSIONS


# --------------------------------------------------------------------------- CI files, Dockerfile, Python


def shell(world: World, script: str, cwd: Path | None = None, **more: str) -> str:
    """Run a script that must succeed, and return all that it printed."""
    done = subprocess.run(
        ["bash", "-euc", script], cwd=cwd or world.project, env={**world.environ, **more}, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"$ {script}\n{done.stdout}"
    return done.stdout


def file_of(name: str, file: str) -> str:
    """Return the whole file that a page shows."""
    return next(block.text for block in blocks(text_of(name)) if block.file == file)


INSTALLS = "pip install 'venvflow[uv]'"
"""Not run: it needs a package index that has venvflow; the one that is tested is installed already."""


def one_ci_run(root: Path, wheels: Path, commands: list[str], given: dict[str, str], cached: Path) -> str:
    """Run a job's commands on a new machine that has nothing but what the cache brings; keep its store.

    The clone is writable for everybody, as runners make it.
    """
    world = quick_world(root, wheels)
    world.furnish()
    (world.project / "venvflow.yaml").chmod(0o666)
    here = {name: value.replace("$CI_PROJECT_DIR", str(world.project)) for name, value in given.items()}
    here["VENVFLOW_STORE"] = here["VENVFLOW_STORE"].replace("/tmp/", f"{root}/")  # noqa: S108 - the page's
    store = Path(here["VENVFLOW_STORE"])
    if cached.exists():
        store.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xf", cached, "-C", store], check=True)
    printed = "".join(shell(world, command, None, **here) for command in commands if command != INSTALLS)
    subprocess.run(["tar", "-cf", cached, "-C", store, "."], check=True)
    return printed


def assert_restored_by_the_second_run(
    tmp_path: Path, wheels: Path, commands: list[str], given: dict[str, str]
) -> None:
    """Assert that a first machine builds, and that a second one takes all from the cached store."""
    cached = tmp_path / "store.tar"
    first = one_ci_run(tmp_path / "one", wheels, commands, given, cached)
    second = one_ci_run(tmp_path / "two", wheels, commands, given, cached)

    assert INSTALLS in commands
    assert "build-venv:api" in first
    assert "restore:api  hit" in second
    assert "build-venv" not in second
    assert "OK" in second  # the tests of the project


@pytest.mark.slow
def test_the_github_workflow_restores_in_its_second_run(tmp_path: Path, wheels: Path) -> None:
    """Its run: lines are run on two new machines, between which the cache carries the store as a tar."""
    page = text_of("docs/howto/github-actions.md")
    workflow = yaml.safe_load(file_of("docs/howto/github-actions.md", ".github/workflows/test.yml"))
    job = workflow["jobs"]["test"]
    caches = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/cache@")]
    commands = [step["run"] for step in job["steps"] if "run" in step]

    assert set(workflow) == {"name", True, "jobs"}  # "on" is true in YAML 1.1, and a forge knows that
    assert [cache["path"] for cache in caches] == [job["env"]["VENVFLOW_STORE"]]
    assert caches[0]["key"].startswith(caches[0]["restore-keys"])
    order = [step.get("uses", step.get("run", "")).split("@")[0] for step in job["steps"]]
    assert order.index("actions/cache") < order.index("doit")
    assert "`VENVFLOW_TRUST: ${{ github.workspace }}` to `env`" in page
    given = {**job["env"], "VENVFLOW_TRUST": "$CI_PROJECT_DIR"}
    assert_restored_by_the_second_run(tmp_path, wheels, commands, given)


@pytest.mark.slow
def test_the_gitlab_job_restores_in_its_second_run(tmp_path: Path, wheels: Path) -> None:
    """Its script is run on two new machines, between which the cache carries what lies in the project."""
    document = yaml.safe_load(file_of("docs/howto/gitlab-ci.md", ".gitlab-ci.yml"))
    job, given = document["test"], document["variables"]

    assert [f"$CI_PROJECT_DIR/{path}".rstrip("/") for path in job["cache"]["paths"]] == [
        given["VENVFLOW_STORE"]
    ]
    assert_restored_by_the_second_run(tmp_path, wheels, job["before_script"] + job["script"], given)


@pytest.mark.slow
def test_the_gitlab_job_pushes_for_a_protected_branch_and_reads_for_others(
    tmp_path: Path, wheels: Path
) -> None:
    """Its commands, with a directory for the bucket: main fills it, a merge request takes from it."""
    document = yaml.safe_load(file_of("docs/howto/fleet-on-gitlab.md", ".gitlab-ci.yml"))
    job, bucket = document["test"], f"file://{tmp_path}/bucket"
    remote = next(
        block.text
        for name, block in all_blocks("yaml")
        if name == "docs/howto/fleet-on-gitlab.md" and "endpoint:" in block.text
    )
    secret = encode_secret(os.urandom(32))
    remote = re.sub(r'"ed25519:.*?"', json.dumps(public_of(secret_key(secret))), remote)
    given = {
        **document["variables"],
        "GITLAB_CI": "true",
        "CI_PIPELINE_SOURCE": "push",
        "VENVFLOW_REMOTE": bucket,
        "READER_SECRET": "x",
    }
    protected = {"CI_COMMIT_REF_PROTECTED": "true", "VENVFLOW_SIGNING_KEY": secret}

    def run(name: str, **more: str) -> str:
        world = quick_world(tmp_path / name, wheels)
        world.furnish()
        file = world.project / "venvflow.yaml"
        file.write_text(file.read_text() + remote)
        here = {
            key: value.replace("$CI_PROJECT_DIR", str(world.project)) for key, value in (given | more).items()
        }
        script = "\n".join(job["before_script"][1:] + job["script"])
        return shell(world, script, None, **here)

    assert job["before_script"][0] == "pip install 'venvflow[uv,remote]'"
    main = run("main", **protected)
    assert "push  pushed 2 of 2 snapshots" in main
    merge = run("merge", CI_PIPELINE_SOURCE="merge_request_event", **protected)
    assert "signed by main-2026" in merge
    assert "build-venv" not in merge
    assert "push  " not in merge


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments."""
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


@pytest.mark.slow
def test_the_dockerfile_builds_a_venv_that_runs_at_its_last_place(tmp_path: Path, wheels: Path) -> None:
    """Its RUN lines are run here, with the mount and the image's paths in a directory of the test.

    No image is built: that needs a daemon and base images.
    """
    world = quick_world(tmp_path, wheels)
    world.furnish()
    found = instructions(file_of("docs/howto/docker.md", "Dockerfile"))
    (mounted,) = [words for verb, words in found if verb == "RUN" and words != INSTALLS]
    options, command = re.fullmatch(r"--mount=(\S+) (.*)", mounted).groups()  # type: ignore[union-attr]
    mount = dict(option.split("=") for option in options.split(","))
    store = next(words.split("=")[1] for verb, words in found if verb == "ENV" and "STORE" in words)
    cache, image = cache_mount(tmp_path), tmp_path / "image"

    said = shell(world, command.replace("/opt/", f"{image}/opt/"), VENVFLOW_STORE=str(cache))
    again = shell(
        world, "rm -rf services/api/.venv .venvflow; " + command.replace("/opt/", f"{image}/two/"),
        VENVFLOW_STORE=str(cache),
    )  # fmt: skip

    assert mount["type"] == "cache"
    assert mount["target"] == store
    assert ("COPY", "--from=build /opt/api /opt/api") in found
    assert "build-venv:api" in said
    assert "restore:api  hit" in again
    shutil.rmtree(world.project)
    shutil.rmtree(cache)
    imported = "import click, sys; print(sys.prefix, click.__version__)"
    where = f"{image}/opt/api"
    assert shell(world, f'{where}/bin/python -c "{imported}"', world.home) == f"{where} 8.3.1\n"
    files = [path for path in Path(where).rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert {path.stat().st_nlink for path in files} == {1}  # nothing leans on the cache


@pytest.mark.slow
def test_the_dockerfile_in_layers_copies_a_venv_that_runs(tmp_path: Path, wheels: Path) -> None:
    """Its RUN line is run, and what its COPY lines copy is copied: one layer has what the config says."""
    world = quick_world(tmp_path, wheels)
    world.furnish()
    (asked,) = (
        block for block in blocks(text_of("docs/howto/docker.md")) if block.language == "yaml"
    )  # fmt: skip
    (world.project / "venvflow.yaml").write_text(asked.text)
    found = instructions(file_of("docs/howto/docker.md", "Dockerfile.layers"))
    (mounted,) = [words for verb, words in found if verb == "RUN" and words != INSTALLS]
    image = tmp_path / "image"
    command = (
        mounted.split(" ", 1)[1].replace("/layers", f"{image}/layers", 1).replace("/opt/", f"{image}/opt/")
    )

    shell(world, command)
    copied = [words.split()[1:] for verb, words in found if verb == "COPY" and "--from=build" in words]
    for source, target in copied:
        shutil.copytree(f"{image}{source}", f"{image}{target}", symlinks=True, dirs_exist_ok=True)

    assert [source for source, _ in copied] == ["/layers/01", "/layers/02"]
    assert [*(image / "layers/01").rglob("click")]
    assert not [*(image / "layers/02").rglob("click")]
    shutil.rmtree(world.project)
    where = f"{image}/opt/api"
    imported = "import click, sys; print(sys.prefix, click.__version__)"
    assert shell(world, f'{where}/bin/python -c "{imported}"', world.home) == f"{where} 8.3.1\n"


def cache_mount(tmp_path: Path) -> Path:
    """Return a directory on another file system, as a cache mount is, where this machine has one."""
    shared = Path("/dev/shm")  # noqa: S108 - for a directory of our own
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        return tmp_path / "cache"
    return shared / f"venvflow-test-{os.getpid()}"


@pytest.mark.slow
def test_the_second_dockerfile_unpacks_the_archive(tmp_path: Path, wheels: Path) -> None:
    """Its RUN line makes a venv that runs of the archive that ``pack:`` made."""
    world = quick_world(tmp_path, wheels)
    world.furnish()
    *_, last = (block for block in blocks(text_of("docs/howto/docker.md")) if block.language == "dockerfile")
    (command,) = [words for verb, words in instructions(last.text) if verb == "RUN"]
    archive = next(words.split()[0] for verb, words in instructions(last.text) if verb == "COPY")
    shell(world, f"doit '*:api' && venvflow pack api -o {archive}")
    (tmp_path / "opt").mkdir()
    shutil.copy(world.project / archive, tmp_path)

    here = command.replace("/tmp/", f"{tmp_path}/")  # noqa: S108 - the page's words
    shell(world, here.replace("/opt/", f"{tmp_path}/opt/"))

    shell(world, f"{tmp_path}/opt/api/bin/python -c 'import click'")


@pytest.mark.slow
def test_the_python_example_writes_its_archive(tmp_path: Path, wheels: Path) -> None:
    """The library's example, with an environment that uv made, writes the file that it names."""
    world = quick_world(tmp_path, wheels)
    (example,) = (block.text for name, block in all_blocks("python") if "create_archive(" in block.text)
    shell(world, "uv venv -q build/env && uv pip install -q -p build/env click")
    (world.project / "example.py").write_text(example)

    shell(world, "python example.py")

    assert (world.project / "dist/env-1.0.tar.gz").is_file()


# --------------------------------------------------------------------------- another user

SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.mark.slow
@pytest.mark.root
def test_another_user_restores_by_copy(wheels: Path) -> None:
    """As the page on sharing says: a hit is copied, plain doit ends with 3, the venv is whole."""
    if os.geteuid() != 0 or not shutil.which("setpriv") or not os.access(SYSTEM_PYTHON, os.X_OK):
        pytest.skip("needs root, setpriv, and a Python that every user may run")
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all"
    if subprocess.run(
        [*nobody.split(), sys.executable, "-c", ""], check=False, capture_output=True
    ).returncode:
        pytest.skip("other users cannot run the Python of these tests")
    with tempfile.TemporaryDirectory() as root:  # pytest's own directories are closed to others
        world = World(Path(root), wheels)
        world.furnish()
        config_file = world.project / "venvflow.yaml"
        config_file.write_text(f"{config_file.read_text()}defaults: {{python: {SYSTEM_PYTHON}}}\n")
        store = f"{root}/shared"
        shell(world, f"cp -r . {root}/other && doit", VENVFLOW_STORE=store)
        shell(world, f"chmod go+rx {root} && chmod -R go+rX,a-w {store} && chown -R 65534 {root}/other")
        theirs = {"VENVFLOW_STORE": store, "HOME": f"{root}/other", "UV_CACHE_DIR": f"{root}/other/.uv"}
        other = Path(root) / "other"

        hit = shell(world, f"{nobody} doit build-venv", other, **theirs)
        plain = shell(world, f"{nobody} doit || echo code $?", other, **theirs)
        works = shell(world, f"{nobody} services/api/.venv/bin/python -c 'import click'", other, **theirs)

    assert re.search("restore:api  hit .* copied", hit)
    assert "code 3" in plain
    assert works == ""


# --------------------------------------------------------------------------- make


@pytest.mark.slow
def test_a_receipt_moves_exactly_when_its_venv_changes(tmp_path: Path, wheels: Path) -> None:
    """What the make pattern stands on: same content, same time; other content, another time; never gone."""
    world = quick_world(tmp_path, wheels)
    world.furnish()
    (world.project / "Makefile").write_text(file_of("docs/howto/make.md", "Makefile"))
    lock = world.project / "services/api/requirements.txt"

    def times() -> tuple[int, int]:
        found = [world.project / f"services/{name}/.venv/.venvflow.json" for name in ("api", "worker")]
        return found[0].stat().st_mtime_ns, found[1].stat().st_mtime_ns

    shell(world, "make -j2")
    first = times()
    lock.touch()
    quiet = shell(world, "make -j2")
    assert times() == first
    assert "unittest" not in quiet
    lock.write_text("click==8.2.1\n")
    changed = shell(world, "make -j2")
    assert times()[0] > first[0]
    assert times()[1] == first[1]
    assert changed.count("-m unittest") == 1
    lock.write_text("nothing-like-this==1\n")
    failed = subprocess.run(
        ["make"], cwd=world.project, env=dict(world.environ), capture_output=True, check=False
    )
    assert failed.returncode == 2
    assert times()[1] == first[1]  # and no receipt was deleted by make
    receipt: dict[str, Any] = json.loads((world.project / "services/api/.venv/.venvflow.json").read_text())
    assert receipt["key"]
