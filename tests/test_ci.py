"""Who may write to a remote: one table for each CI service, of what it tells its jobs."""

from __future__ import annotations

from typing import Any

import pytest

from venvflow.model import RemoteConfig
from venvflow.pure.ci import SERVICES, Mode, access, access_of, origin_of, without_credentials

GITHUB = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_REF_PROTECTED": "true"}
GITLAB = {"CI": "true", "GITLAB_CI": "true", "CI_PIPELINE_SOURCE": "push", "CI_COMMIT_REF_PROTECTED": "true"}
BUILDKITE = {
    "CI": "true", "BUILDKITE": "true", "BUILDKITE_PULL_REQUEST": "false", "BUILDKITE_BRANCH": "main",
    "VENVFLOW_TRUSTED_REF": "main",
}  # fmt: skip
CIRCLECI = {"CI": "true", "CIRCLECI": "true", "CIRCLE_BRANCH": "main", "VENVFLOW_TRUSTED_REF": "main"}
JENKINS = {"JENKINS_URL": "https://ci", "BRANCH_NAME": "main", "VENVFLOW_TRUSTED_REF": "main"}
AZURE = {"TF_BUILD": "True", "BUILD_SOURCEBRANCH": "refs/heads/main", "VENVFLOW_TRUSTED_REF": "main"}

TRUSTED = {
    "GitHub: a push": GITHUB,
    "GitHub: by a clock": {**GITHUB, "GITHUB_EVENT_NAME": "schedule"},
    "GitHub: by hand": {**GITHUB, "GITHUB_EVENT_NAME": "workflow_dispatch"},
    "GitHub: its cache may be written": {**GITHUB, "ACTIONS_CACHE_MODE": "write"},
    "GitLab: a push": GITLAB,
    **{
        f"GitLab: {source}": {**GITLAB, "CI_PIPELINE_SOURCE": source}
        for source in ("schedule", "web", "api", "trigger", "pipeline", "parent_pipeline")
    },
    "Buildkite: the branch": BUILDKITE,
    "CircleCI: the branch": CIRCLECI,
    "Jenkins: the branch": JENKINS,
    "Azure: the branch": AZURE,
}
DISTRUSTED = {
    **{
        f"GitHub: {event}": {**GITHUB, "GITHUB_EVENT_NAME": event}
        for event in (
            "pull_request",
            "pull_request_target",
            "workflow_run",
            "issue_comment",
            "merge_group",
            "repository_dispatch",
            "release",
            "deployment",
            "an event of tomorrow",
            "",
        )
    },
    "GitHub: a branch that is not protected": {**GITHUB, "GITHUB_REF_PROTECTED": "false"},
    "GitHub: does not tell": {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push"},
    "GitHub: its cache is only read": {**GITHUB, "ACTIONS_CACHE_MODE": "read"},
    "GitHub: it has no cache": {**GITHUB, "ACTIONS_CACHE_MODE": "none"},
    "Gitea does not tell": {**GITHUB, "GITEA_ACTIONS": "true", "GITHUB_REF_PROTECTED": "false"},
    **{
        f"GitLab: {source}": {**GITLAB, "CI_PIPELINE_SOURCE": source}
        for source in ("external_pull_request_event", "external", "chat", "a source of tomorrow", "")
    },
    "GitLab: a merge request": {**GITLAB, "CI_PIPELINE_SOURCE": "merge_request_event"},
    "GitLab: of a merge request": {
        **GITLAB,
        "CI_MERGE_REQUEST_IID": "7",
        "CI_PIPELINE_SOURCE": "parent_pipeline",
    },
    "GitLab: of a request elsewhere": {
        **GITLAB,
        "CI_EXTERNAL_PULL_REQUEST_IID": "7",
        "CI_PIPELINE_SOURCE": "parent_pipeline",
    },
    "GitLab: a branch that is not protected": {**GITLAB, "CI_COMMIT_REF_PROTECTED": "false"},
    "Buildkite: a pull request": {**BUILDKITE, "BUILDKITE_PULL_REQUEST": "12"},
    "Buildkite: another branch": {**BUILDKITE, "BUILDKITE_BRANCH": "topic"},
    "Buildkite: no branch is named": {**BUILDKITE, "VENVFLOW_TRUSTED_REF": ""},
    "Buildkite: a tag that is called so": {**BUILDKITE, "BUILDKITE_TAG": "main"},
    "Buildkite: by another build": {**BUILDKITE, "BUILDKITE_TRIGGERED_FROM_BUILD_ID": "0193-7a"},
    "CircleCI: a fork": {**CIRCLECI, "CIRCLE_PR_NUMBER": "7"},
    "CircleCI: several": {**CIRCLECI, "CIRCLE_PULL_REQUESTS": "https://github.com/a/b/pull/1,…/2"},
    "CircleCI: a tag that is called so": {**CIRCLECI, "CIRCLE_TAG": "main"},
    "CircleCI: a pull request": {**CIRCLECI, "CIRCLE_PULL_REQUEST": "https://github.com/a/b/pull/1"},
    "CircleCI: another branch": {**CIRCLECI, "CIRCLE_BRANCH": "pull/7"},
    "Jenkins: a change": {**JENKINS, "CHANGE_ID": "7"},
    "Jenkins: a tag that is called so": {**JENKINS, "TAG_NAME": "main"},
    "Jenkins: another branch": {**JENKINS, "BRANCH_NAME": "PR-7"},
    "Azure: a pull request": {**AZURE, "SYSTEM_PULLREQUEST_PULLREQUESTID": "7"},
    "Azure: a tag that is called so": {**AZURE, "BUILD_SOURCEBRANCH": "refs/tags/main"},
    "Azure: a merge of one": {**AZURE, "BUILD_SOURCEBRANCH": "refs/pull/7/merge"},
    "a service that is not known": {"CI": "true"},
    **{
        f"{mark} is not known": {mark: "1"}
        for mark in ("TEAMCITY_VERSION", "CODEBUILD_BUILD_ID", "GO_PIPELINE_NAME", "bamboo_buildKey")
    },
    "nobody's": {},
}


@pytest.mark.parametrize("event", TRUSTED)
def test_a_trusted_event_writes(event: str) -> None:
    """With a key to sign with, and never without one."""
    assert access("auto", TRUSTED[event], has_key=True) == (True, True, "")
    assert access("auto", TRUSTED[event], has_key=False).write is False


@pytest.mark.parametrize("event", DISTRUSTED)
def test_any_other_event_reads_and_says_why_no_more(event: str) -> None:
    """Also if the config of its branch says ``write``, but on a machine of one's own."""
    may = access("auto", DISTRUSTED[event], has_key=True)
    assert (may.read, may.write) == (True, False)
    assert may.reason
    assert access("write", DISTRUSTED[event], has_key=True).write is (event == "nobody's")


def test_one_with_a_pull_request_of_another_service_is_still_one() -> None:
    """Each service whose mark is there has a say: the agent of one may run in a job of another."""
    strangers = DISTRUSTED["GitHub: pull_request"], DISTRUSTED["Jenkins: a change"]
    for stranger in strangers:
        for trusted in (GITLAB, BUILDKITE, AZURE):
            assert access("auto", {**stranger, **trusted}, has_key=True).write is False
    assert access("auto", {**GITHUB, **BUILDKITE}, has_key=True).write


@pytest.mark.parametrize(
    ("config", "variable", "expected"),
    [
        ("auto", "read", "read"), ("auto", "off", "off"), ("write", "auto", "auto"),
        ("read", "write", "read"), ("off", "write", "off"), ("auto", "write", "auto"),
        ("auto", "", "auto"),
    ],
)  # fmt: skip
def test_the_variable_lowers_the_mode_and_never_raises_it(
    config: Mode, variable: str, expected: Mode
) -> None:
    """What it does, the mode alone would do."""
    for event in (GITHUB, {}, DISTRUSTED["GitHub: pull_request"]):
        lowered = access(config, {**event, "VENVFLOW_REMOTE_MODE": variable}, has_key=True)
        assert lowered[:2] == access(expected, event, has_key=True)[:2]


def test_a_mirror_is_only_read() -> None:
    """Whoever runs, and with whatever key."""
    environ = {**GITHUB, "VENVFLOW_SIGNING_KEY": "x"}
    assert access_of(RemoteConfig("s3://bucket", keys={"main": "k"}), environ).write
    assert not access_of(RemoteConfig("https://cdn.example.org/b", keys={"main": "k"}), environ).write
    assert not access_of(RemoteConfig("s3://bucket", keys={"main": "k"}), GITHUB).write
    assert access_of(RemoteConfig("s3://bucket", unsigned=True), GITHUB).write


ORIGINS = [
    (
        {
            **GITHUB, "GITHUB_REPOSITORY": "acme/shop", "GITHUB_REF_NAME": "main", "GITHUB_RUN_ID": "17",
            "GITHUB_SERVER_URL": "https://github.com", "GITHUB_TOKEN": "ghs_0123456789abcdef0123",
        },
        "acme/shop@main https://github.com/acme/shop/actions/runs/17",
    ),
    (
        {
            **GITLAB, "CI_PROJECT_PATH": "acme/tools/shop", "CI_COMMIT_REF_NAME": "main",
            "CI_JOB_URL": "https://gitlab.lan:8443/acme/tools/shop/-/jobs/17",
            "CI_REPOSITORY_URL": "https://gitlab-ci-token:glcbt-64@gitlab.lan/acme/shop.git",
        },
        "acme/tools/shop@main https://gitlab.lan:8443/acme/tools/shop/-/jobs/17",
    ),
    (
        {
            **BUILDKITE, "BUILDKITE_ORGANIZATION_SLUG": "acme", "BUILDKITE_PIPELINE_SLUG": "shop",
            "BUILDKITE_BUILD_URL": "https://buildkite.com/acme/shop/builds/17",
        },
        "acme/shop@main https://buildkite.com/acme/shop/builds/17",
    ),
    (
        {
            **CIRCLECI, "CIRCLE_PROJECT_USERNAME": "acme", "CIRCLE_PROJECT_REPONAME": "shop",
            "CIRCLE_BUILD_URL": "https://circleci.com/gh/acme/shop/17",
        },
        "acme/shop@main https://circleci.com/gh/acme/shop/17",
    ),
    (
        {**JENKINS, "JOB_NAME": "shop/main", "BUILD_URL": "https://ci.lan/job/shop/job/main/17/"},
        "shop/main@main https://ci.lan/job/shop/job/main/17/",
    ),
    (
        {
            **AZURE, "BUILD_REPOSITORY_NAME": "shop", "BUILD_SOURCEBRANCHNAME": "main", "BUILD_BUILDID": "17",
            "SYSTEM_COLLECTIONURI": "https://dev.azure.com/acme/", "SYSTEM_TEAMPROJECT": "shop",
        },
        "shop@main https://dev.azure.com/acme/shop/_build/results?buildId=17",
    ),
    ({"CI": "true", "CI_PROJECT_PATH": "acme/shop"}, ""),
    ({}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "origin"), ORIGINS)
def test_a_push_says_which_job_it_was(environ: dict[str, str], origin: str) -> None:
    """By what the service says of it; a part of that is better than nothing."""
    assert origin_of(environ) == origin
    no_address = {
        name: value
        for name, value in environ.items()
        if name == "JENKINS_URL" or not name.endswith(("_URL", "URI"))
    }
    assert origin_of(no_address) == origin.partition(" ")[0]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@gitlab.lan/jobs/17", "https://gitlab.lan/jobs/17?private_token=secret",
        "https://gitlab.lan/jobs/17#secret", "javascript:secret", "https://gitlab.lan/secret\x1b[2J", "",
    ],
)  # fmt: skip
def test_the_address_of_a_run_holds_no_secret(url: str) -> None:
    """One that could is left out; so is a name that nobody's branch has."""
    said = origin_of({**ORIGINS[1][0], "CI_JOB_URL": url, "CI_COMMIT_REF_NAME": "a b\x1b[31m"})
    assert said == "acme/tools/shop"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_builders_get_nothing_by_which_a_service_gives_out_rights(service: Any) -> None:
    """Who can ask it for an identity can write where the job may; what tells of the job stays."""
    names = [
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_RUNTIME_TOKEN",
        "BUILDKITE_AGENT_ACCESS_TOKEN", "CIRCLE_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2", "CI_JOB_JWT_V2",
        "SYSTEM_ACCESSTOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AZURE_FEDERATED_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS", "VENVFLOW_SIGNING_KEY", "VENVFLOW_SIGNING_KEY_FILE",
    ]  # fmt: skip
    given = dict.fromkeys(names, "x")
    assert without_credentials({**given, service.mark: "true"}, ()) == {service.mark: "true"}
    assert without_credentials(given, ["AWS_ROLE_ARN"]) == {"AWS_ROLE_ARN": "x"}
