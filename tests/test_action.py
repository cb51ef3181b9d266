"""The action for GitHub: its steps, run as a runner does, in jobs that share nothing but what is kept.

Only what is GitHub's own is played here: its contexts, its files for outputs and variables, and its cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import preloaded
import pytest
import yaml

from tools.markdown import blocks
from tools.pages import ROOT
from tools.world import World
from venvflow.pure.signing import encode_secret, public_of, secret_key

ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS = ACTION["runs"]["steps"]
SECRET = encode_secret(os.urandom(32))
PUSH = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF_PROTECTED": "true", "GITHUB_REPOSITORY": "acme/shop"}
FORK = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF_PROTECTED": "false"}


def expanded(text: str, context: Mapping[str, str]) -> str:
    """Return *text* with GitHub's expressions in it evaluated."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(evaluated(found[1], context)), text)


def evaluated(expression: str, context: Mapping[str, str]) -> Any:
    """Return what an expression of paths, strings, comparisons, ``&&`` and ``||`` gives."""
    words = re.sub(
        r"'[^']*'|[a-z]+(?:\.[\w-]+)+",
        lambda found: found[0] if found[0][0] == "'" else repr(context.get(found[0], "")),
        expression,
    )
    words = re.sub(r"!(?!=)", " not ", words)
    return eval(words.replace("&&", " and ").replace("||", " or ").strip(), {"__builtins__": {}})  # noqa: S307


@dataclass
class Runner:
    """A machine for one job: a checkout in *world*, and the *cache* of all jobs."""

    world: World
    cache: Path
    variables: dict[str, str]
    path: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    code: int = 0

    def run(self, inputs: Mapping[str, str], steps: list[dict[str, Any]] = STEPS) -> None:
        """Run *steps* until one fails."""
        context = {f"inputs.{name}": each["default"] for name, each in ACTION["inputs"].items()}
        context |= {f"inputs.{name.replace('_', '-')}": value for name, value in inputs.items()}
        context |= {"runner.os": "Linux", "runner.arch": "X64"}
        for step in steps:
            if "if" in step and not evaluated(step["if"], context):
                continue
            self.ran.append(step["name"])
            outputs = self._uses(step, context) if "uses" in step else self._shell(step, context)
            context |= {f"steps.{step.get('id')}.outputs.{name}": value for name, value in outputs.items()}
            if self.code:
                break

    def _shell(self, step: dict[str, Any], context: Mapping[str, str]) -> dict[str, str]:
        temp = Path(self.variables["RUNNER_TEMP"])
        files = {name: temp / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH")}
        for file in files.values():
            file.write_text("")
        environ = {
            **self.world.environ,
            **self.variables,
            **dict(zip(files, map(str, files.values()), strict=True)),
        }
        environ["PATH"] = os.pathsep.join([*reversed(self.path), environ["PATH"]])
        environ |= {name: expanded(value, context) for name, value in step.get("env", {}).items()}
        assert step["shell"] == "bash"
        words = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        where = self.world.project / expanded(step.get("working-directory", "."), context)
        done = subprocess.run(
            words, cwd=where, env=environ, check=False, text=True, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.said[step["name"]], self.code = done.stdout, done.returncode
        self.variables |= dict(line.split("=", 1) for line in files["GITHUB_ENV"].read_text().splitlines())
        self.path += files["GITHUB_PATH"].read_text().split()
        return dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())

    def _uses(self, step: dict[str, Any], context: Mapping[str, str]) -> dict[str, str]:
        """Do what the cache's action does: keep a directory by its path and key, once, and give it back."""
        given = {name: expanded(value, context) for name, value in step["with"].items()}
        kept = self.cache / given["key"]
        if step["uses"].split("@")[0] == "actions/cache/save":
            assert not kept.exists(), "a key is kept once"
            shutil.copytree(given["path"], kept, symlinks=True)
            return {}
        assert step["uses"].split("@")[0] == "actions/cache/restore"
        older = sorted(self.cache.glob(f"{given['restore-keys']}*"), key=lambda path: path.stat().st_mtime)
        found = kept if kept.exists() else next(iter(reversed(older)), None)
        if found is not None:
            shutil.copytree(found, given["path"], symlinks=True)
        return {"cache-primary-key": given["key"], "cache-hit": "true" if found == kept else ""}


class Service:
    """Runs jobs: each on a machine of its own, with the project as *lock* and *config* have it."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root, self.wheels = root, wheels
        self.config = ""
        self.lock = ""
        self._jobs = 0

    def job(self, event: Mapping[str, str], **inputs: str) -> Runner:
        """Run the action in a job that *event* started."""
        runner = self.runner(event)
        runner.run(inputs)
        return runner

    def runner(self, event: Mapping[str, str], *, installed: bool = True) -> Runner:
        """Return a machine for a job that *event* started; what the first step installs may be there."""
        self._jobs += 1
        world = World(self.root / f"machine-{self._jobs}", self.wheels)
        world.furnish()
        config = world.project / "venvflow.yaml"
        config.write_text(config.read_text() + self.config)
        config.chmod(0o666)  # as in a job in a container
        if self.lock:
            (world.project / "services/api/requirements.txt").write_text(self.lock)
        temp = world.root / "temp"
        (temp / "venvflow/bin").mkdir(parents=True)
        if installed:
            for program in Path(preloaded.programs(world.environ)).iterdir():
                (temp / "venvflow/bin" / program.name).symlink_to(program)
            (temp / "venvflow/bin/python").symlink_to(sys.executable)
        else:
            shutil.rmtree(temp / "venvflow")
        (self.root / "cache").mkdir(exist_ok=True)
        variables = {
            "RUNNER_TEMP": str(temp), "GITHUB_WORKSPACE": str(world.project), "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_ACTIONS": "true", "CI": "true", **event,
        }  # fmt: skip
        return Runner(world, self.root / "cache", variables)

    def have_a_bucket(self) -> Path:
        """Let the config name a remote, in the mode that it has by default."""
        bucket = self.root / "bucket"
        keys = f'{{main-2026: "{public_of(secret_key(SECRET))}"}}'
        self.config = f"store:\n  remote: {{url: 'file://{bucket}', keys: {keys}}}\n"
        return bucket


@pytest.fixture
def service(tmp_path: Path, wheelhouse: Path) -> Service:
    """Give a service whose cache is empty."""
    return Service(tmp_path, wheelhouse / "packages")


BUILD = "Restore or build the venvs"


@pytest.mark.slow
def test_without_a_bucket_the_cache_keeps_the_store(service: Service) -> None:
    """The second job builds nothing and keeps nothing anew; a changed lock starts from the store."""
    first = service.job(PUSH)
    assert (first.code, first.ran[-1]) == (0, "Keep the store"), first.said
    assert "build-venv:api" in first.said[BUILD]

    second = service.job(PUSH)
    assert "build-venv" not in second.said[BUILD]
    assert "restore:worker  hit" in second.said[BUILD]
    assert "Keep the store" not in second.ran

    service.lock = "click==8.2.1\n"
    third = service.job(PUSH)
    assert re.search("build-venv:api .*restore:worker  hit", third.said[BUILD], re.DOTALL)
    assert third.ran[-1] == "Keep the store"
    assert len([*(service.root / "cache").iterdir()]) == 2


@pytest.mark.slow
def test_a_push_to_main_fills_the_bucket_and_a_fork_only_reads_it(service: Service) -> None:
    """A pull request gets what main has; what it builds itself goes nowhere, with a key or without one."""
    bucket = service.have_a_bucket()

    def records() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in bucket.rglob("*") if path.is_file()}

    main = service.job(PUSH, signing_key=SECRET)
    assert (main.code, main.ran[-1]) == (0, "Push what was built"), main.said
    assert SECRET not in str(main.said)
    before = records()
    assert len([path for path in before if path.parts[-3] == "records"]) == 2

    fork = service.job(FORK)
    assert "build-venv" not in fork.said[BUILD]
    assert "signed by main-2026, pushed by acme/shop" in fork.said[BUILD]
    assert fork.ran[-1] == BUILD

    service.lock = "click==8.2.1\n"
    for key in ("", SECRET):
        changed = service.job(FORK, signing_key=key)
        assert "build-venv:api" in changed.said[BUILD]
        assert changed.code == 0
    assert "nothing is pushed: GitHub Actions: the event pull_request" in changed.said["Push what was built"]
    assert records() == before


@pytest.mark.slow
def test_only_some_venvs_and_what_goes_wrong(service: Service) -> None:
    """Names and shares choose; a bucket that is gone is a miss, a key that nobody believes an error."""
    bucket = service.have_a_bucket()
    one = service.job(PUSH, venvs="api\n", signing_key=SECRET, remote=f"file://{bucket}")
    assert "worker" not in one.said[BUILD]
    shares = [service.job(PUSH, shard=f"{number}/2").said[BUILD] for number in (1, 2)]
    assert sorted(name for name in ("api", "worker") for share in shares if f"restore:{name}" in share) == [
        "api", "worker",
    ]  # fmt: skip
    stranger = service.job(PUSH, venvs="api", signing_key=encode_secret(os.urandom(32)))
    assert stranger.code == 2
    assert "nobody would believe it" in stranger.said["Push what was built"]
    gone = service.job(PUSH, venvs="worker", signing_key=SECRET, remote="https://127.0.0.1:9/nothing")
    assert gone.code == 0
    assert "build-venv:worker" in gone.said[BUILD]
    for name, words in (
        ("venvs", "$(touch pwned) `touch pwned`"), ("venvs", '" ; touch pwned; "'),
        ("venvs", "--config=x api"),
        ("shard", "$(touch pwned) ; touch pwned"), ("shard", "1/1 --config=x"),
    ):  # fmt: skip
        wrong = service.job(PUSH, **{name: words})
        assert wrong.code == 2, (wrong.said, words)
        assert not [*service.root.rglob("pwned")]


def test_no_input_is_part_of_a_program() -> None:
    """They reach a shell in variables only; each is explained and used; one step alone gets the key."""
    text = (ROOT / "action.yml").read_text("utf-8")
    for step in STEPS:
        assert "${{" not in step.get("run", ""), step["name"]
    for name, given in ACTION["inputs"].items():
        assert given["description"]
        assert "required" in given or "default" in given
        assert f"inputs.{name}" in text
    assert [step["name"] for step in STEPS if "VENVFLOW_SIGNING_KEY" in step.get("env", {})] == [
        "Push what was built"
    ]


def workflows() -> list[tuple[str, dict[str, Any]]]:
    """Return the steps of all workflows on the pages that use the action, with their pages."""
    found = []
    for page in sorted((ROOT / "docs/howto").glob("*.md")):
        for block in blocks(page.read_text("utf-8")):
            jobs = yaml.safe_load(block.text).get("jobs", {}) if block.file.startswith(".github/") else {}
            steps = [step for job in jobs.values() for step in job["steps"]]
            found += [
                (page.name, step) for step in steps if step.get("uses", "").startswith("acme/venvflow@")
            ]
    return found


def test_the_pages_give_the_action_what_it_takes() -> None:
    """Each input that a workflow names is one; the page on GitHub explains all of them."""
    found = workflows()
    assert {page for page, _ in found} == {"fan-out.md", "fleet-on-github.md", "github-actions.md"}
    for page, step in found:
        assert set(step.get("with", {})) <= set(ACTION["inputs"]), page
    text = (ROOT / "docs/howto/github-actions.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == set(ACTION["inputs"])


def test_the_workflow_with_a_bucket_lets_main_alone_write() -> None:
    """Its expressions, for a push, a pull request of our own, and one of a fork."""
    (block,) = (
        block
        for block in blocks((ROOT / "docs/howto/fleet-on-github.md").read_text("utf-8"))
        if block.file.startswith(".github/")
    )
    job = yaml.safe_load(block.text)["jobs"]["test"]
    role, action = job["steps"][2], job["steps"][3]
    fork = "github.event.pull_request.head.repo.fork"
    for context, environment, kind, remote in (
        ({"github.event_name": "push"}, "venvs", "write", ""),
        ({"github.event_name": "pull_request"}, "", "read", ""),
        ({"github.event_name": "pull_request", fork: "true"}, "", None, "off"),
    ):
        assert expanded(job["environment"], context) == environment
        assert expanded(action["with"]["remote"], context) == remote
        assert bool(evaluated(role["if"], context)) == (kind is not None)
        if kind is not None:
            assert expanded(role["with"]["role-to-assume"], context).endswith(f":role/venvs-{kind}")


@pytest.mark.network
def test_the_action_installs_what_it_was_tested_with(service: Service) -> None:
    """By version and hash, from the index of this machine."""
    runner = service.runner(PUSH, installed=False)
    index = ("PIP_NO_INDEX", "PIP_FIND_LINKS", "UV_OFFLINE", "UV_NO_INDEX")
    runner.variables |= dict.fromkeys(index, "")
    runner.run({}, STEPS[:1])
    assert runner.code == 0, runner.said
    done = subprocess.run(
        [f"{runner.path[0]}/venvflow", "version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("venvflow ")
