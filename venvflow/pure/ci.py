"""Decides whether a run may write to a remote: only what a branch that others reviewed brings may.

The services say in variables of the environment what started a job. A job of a pull request runs what a
stranger wrote, and a job that somebody else's event started (``workflow_run``, ``issue_comment``) may do so.
This is a belt. The braces are the rights of the credentials that a job gets.

Sources: the pages on default or predefined variables of GitHub Actions, GitLab CI/CD, Buildkite, CircleCI,
Jenkins (environment variables, branch source plugins) and Azure Pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from venvflow.model import RemoteConfig

Mode = Literal["off", "read", "write", "auto"]
"""What ``store.remote.mode`` and ``VENVFLOW_REMOTE_MODE`` may say."""

KEY, KEY_FILE = "VENVFLOW_SIGNING_KEY", "VENVFLOW_SIGNING_KEY_FILE"
"""The variables that hold the key to sign with, or name the file that does."""

TRUSTED_REF = "VENVFLOW_TRUSTED_REF"
"""The variable that names the branch whose jobs may write, where a service tells of no protection."""

MODES: tuple[Mode, ...] = ("off", "read", "auto", "write")
"""All of them, those first by which a run may do less."""

_Reason = Callable[[Mapping[str, str]], str]


class Access(NamedTuple):
    """What a run may do with a remote, and the *reason* why it is not more."""

    read: bool
    write: bool
    reason: str

    def __str__(self) -> str:
        """Say it in words, as of a remote."""
        if not self.read:
            return f"not used: {self.reason}"
        return "read and written" if self.write else f"only read: {self.reason}"


class _Service(NamedTuple):
    """A CI service: the variable by which it is known, and why a job of it may not write, or nothing.

    *repository*, *branch* and *run* say where a job comes from, variables in braces; *run* is a URL.
    """

    name: str
    mark: str
    why_not: _Reason
    repository: str
    branch: str
    run: str


def _github(environ: Mapping[str, str]) -> str:
    event = environ.get("GITHUB_EVENT_NAME", "")
    if event not in ("push", "schedule", "workflow_dispatch"):
        return f"the event {event or 'of this job'} may bring what nobody reviewed"
    if environ.get("GITHUB_REF_PROTECTED") != "true":
        return "its branch is not protected"
    if environ.get("ACTIONS_CACHE_MODE") in ("read", "none"):
        return "ACTIONS_CACHE_MODE forbids it"
    return ""


_OF_A_REQUEST = ("CI_MERGE_REQUEST_IID", "CI_EXTERNAL_PULL_REQUEST_IID")
"""The variables of GitLab that a pipeline has which its parent started for a request, too."""


def _gitlab(environ: Mapping[str, str]) -> str:
    source = environ.get("CI_PIPELINE_SOURCE", "")
    if source == "merge_request_event" or any(map(environ.get, _OF_A_REQUEST)):
        return "the pipeline is that of a merge request"
    if source not in ("push", "schedule", "web", "api", "trigger", "pipeline", "parent_pipeline"):
        return f"a pipeline of the source {source or 'that is not told'} may bring what nobody reviewed"
    return "" if environ.get("CI_COMMIT_REF_PROTECTED") == "true" else "its branch is not protected"


def _by_branch(
    requests: Sequence[str], branch: str, *, tag: str = "", starter: str = "", start: str = ""
) -> _Reason:
    """Return the rule for services that do not tell which branches are protected.

    *requests* are the variables that name a job's pull request, if it has one. *branch* is the one that names
    its branch, which may begin with *start*; for a *tag*, of which there is a variable then, it has the name
    of that. *starter* is the one that names another job by which it was started, and told what to do.
    """

    def why_not(environ: Mapping[str, str]) -> str:
        if any(environ.get(each, "") not in ("", "false") for each in requests):
            return "the job is that of a pull request"
        if tag and environ.get(tag):
            return "the job is that of a tag"
        if starter and environ.get(starter):
            return "another job has started it, perhaps that of a pull request"
        trusted = environ.get(TRUSTED_REF, "")
        if not trusted:
            return f"{TRUSTED_REF} does not name the branch whose jobs may write"
        if environ.get(branch, "").removeprefix(start) != trusted:
            return f"its branch is not {TRUSTED_REF}"
        return ""

    return why_not


SERVICES = (
    _Service(
        "GitHub Actions", "GITHUB_ACTIONS", _github,
        "{GITHUB_REPOSITORY}", "{GITHUB_REF_NAME}",
        "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",
    ),
    _Service(
        "GitLab CI/CD", "GITLAB_CI", _gitlab,
        "{CI_PROJECT_PATH}", "{CI_COMMIT_REF_NAME}", "{CI_JOB_URL}",
    ),
    _Service(
        "Buildkite", "BUILDKITE",
        _by_branch(
            ("BUILDKITE_PULL_REQUEST",), "BUILDKITE_BRANCH",
            tag="BUILDKITE_TAG", starter="BUILDKITE_TRIGGERED_FROM_BUILD_ID",
        ),
        "{BUILDKITE_ORGANIZATION_SLUG}/{BUILDKITE_PIPELINE_SLUG}", "{BUILDKITE_BRANCH}",
        "{BUILDKITE_BUILD_URL}",
    ),
    _Service(
        "CircleCI", "CIRCLECI",
        _by_branch(
            ("CIRCLE_PULL_REQUEST", "CIRCLE_PULL_REQUESTS", "CIRCLE_PR_NUMBER"), "CIRCLE_BRANCH",
            tag="CIRCLE_TAG",
        ),
        "{CIRCLE_PROJECT_USERNAME}/{CIRCLE_PROJECT_REPONAME}", "{CIRCLE_BRANCH}", "{CIRCLE_BUILD_URL}",
    ),
    _Service(
        "Jenkins", "JENKINS_URL", _by_branch(("CHANGE_ID",), "BRANCH_NAME", tag="TAG_NAME"),
        "{JOB_NAME}", "{BRANCH_NAME}", "{BUILD_URL}",
    ),
    _Service(
        "Azure Pipelines", "TF_BUILD",
        _by_branch(("SYSTEM_PULLREQUEST_PULLREQUESTID",), "BUILD_SOURCEBRANCH", start="refs/heads/"),
        "{BUILD_REPOSITORY_NAME}", "{BUILD_SOURCEBRANCHNAME}",
        "{SYSTEM_COLLECTIONURI}{SYSTEM_TEAMPROJECT}/_build/results?buildId={BUILD_BUILDID}",
    ),
)  # fmt: skip


_WORD = re.compile(r"[\w.+/-]{1,200}")
_RUN = re.compile(r"https?://[\w.:-]{1,200}(?:/[\w.~%+-]{1,200}){1,20}/?(?:\?buildId=\d{1,20})?")


def origin_of(environ: Mapping[str, str]) -> str:
    """Return which job of which CI service this is: ``acme/shop@main https://…``; empty outside of them.

    What a service says is left out where it could hold more than that: a user, a password, or a query.
    """
    service = next(_services(environ), None)
    if service is None:
        return ""
    repository, branch, run = (
        _filled(each, environ) for each in (service.repository, service.branch, service.run)
    )
    at = f"@{branch}" if _WORD.fullmatch(branch) else ""
    words = (f"{repository}{at}" if _WORD.fullmatch(repository) else "", run if _RUN.fullmatch(run) else "")
    return " ".join(filter(None, words))


def _filled(text: str, environ: Mapping[str, str]) -> str:
    """Return *text* with its variables filled in, nothing if one of them is not there."""
    values = {name: environ.get(name, "") for name in re.findall(r"\{(\w+)\}", text)}
    return text.format_map(values) if all(values.values()) else ""


_OF_THE_REMOTE = (
    *("AWS_", "AZURE_", "GOOGLE_", "VENVFLOW_SIGNING_KEY"),
    *("ACTIONS_ID_TOKEN_REQUEST_", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL"),
    *("BUILDKITE_AGENT_ACCESS_TOKEN", "CIRCLE_OIDC_TOKEN", "CI_JOB_JWT", "SYSTEM_ACCESSTOKEN"),
)
"""How the variables begin by which a remote's credentials are found, or a CI service gives them out.

Who can ask a service for an identity gets the rights of the job; so does who can write its cache.
"""


def without_credentials(environ: Mapping[str, str], named: Collection[str]) -> dict[str, str]:
    """Return *environ* as builders and checks may see it where there is a remote.

    What installs or runs packages must not be able to write there. Those that a config has *named* for the
    key of a venv stay.
    """
    return {
        name: value for name, value in environ.items() if name in named or not name.startswith(_OF_THE_REMOTE)
    }


def access_of(remote: RemoteConfig, environ: Mapping[str, str]) -> Access:
    """Return what a run in *environ* may do with the remote of a config."""
    has_key = remote.unsigned or any(environ.get(name) for name in (KEY, KEY_FILE))
    may = access(remote.mode, environ, has_key=has_key)
    if may.write and remote.url.startswith(("http:", "https:")):
        return Access(read=True, write=False, reason="a mirror by http can only be read")
    return may


def access(mode: Mode, environ: Mapping[str, str], *, has_key: bool) -> Access:
    """Return what a run may do for which the config says *mode*.

    ``VENVFLOW_REMOTE_MODE`` lowers it and never raises it. *has_key*: there is something to sign with, or
    records need no signature. ``auto`` writes in those jobs of CI services that are to be trusted; on
    somebody's own machine, only ``write`` does.
    """
    asked = environ.get("VENVFLOW_REMOTE_MODE", "")
    if asked in MODES and MODES.index(asked) < MODES.index(mode):
        mode, by = asked, "VENVFLOW_REMOTE_MODE"
    else:
        by = "store.remote.mode"
    if mode == "off":
        return Access(read=False, write=False, reason=f"{by} is off")
    if mode == "read":
        return Access(read=True, write=False, reason=f"{by} is read")
    if not has_key:
        return Access(read=True, write=False, reason=f"there is no signing key, in {KEY} or {KEY_FILE}")
    # A job of a stranger stays one, whatever the config of his branch says of the mode.
    why_not = _why_not(environ, mode)
    return Access(read=True, write=not why_not, reason=why_not)


_OTHERS = ("TEAMCITY_VERSION", "CODEBUILD_BUILD_ID", "GO_PIPELINE_NAME", "bamboo_buildKey")
"""Variables of services that tell their jobs of themselves, and not by CI."""


def _services(environ: Mapping[str, str]) -> Iterator[_Service]:
    return (each for each in SERVICES if environ.get(each.mark))


def _why_not(environ: Mapping[str, str], mode: Mode) -> str:
    is_known = False
    # Of a service whose job has started the agent of another there may be variables, too.
    for service in _services(environ):
        is_known = True
        if reason := service.why_not(environ):
            return f"{service.name}: {reason}"
    if is_known:
        return ""
    if environ.get("CI", "").lower() not in ("", "false", "0") or any(map(environ.get, _OTHERS)):
        return "this CI service is not one whose variables are known"
    return "" if mode == "write" else "this is not a job of a CI service, and the mode is not write"
