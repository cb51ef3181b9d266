"""Checks of the remote: who may do what, what is there to do it with, and whether it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from venvflow.disk.remote.channel import ChannelFailure, decoded
from venvflow.errors import VenvflowError, shown
from venvflow.model import RemoteConfig
from venvflow.pure.ci import KEY, KEY_FILE, access_of
from venvflow.pure.parcels import parcel_path
from venvflow.pure.records import LARGEST
from venvflow.pure.redaction import redactor, secrets_of
from venvflow.pure.units import counted, show_duration, show_size
from venvflow.state.remote import FORMAT, FORMAT_TEXT, Remote
from venvflow.steps.doctor.check import Check, CheckContext, CheckResult, fail, ok, warn

_PROBE = "v1/probe"
"""What is written to see whether that may be done, and deleted."""

_NO_RIGHTS = "Give this run the rights to read there. S3 also refuses what is not there to who may not list."

_SKEW = 60.0
"""Seconds by which clocks may differ before it is told: what is signed and trimmed is by the clock."""

_REFUSED = 900.0
"""Seconds by which they may differ before S3 refuses all requests."""

_SAMPLE = 8 << 20
"""Most bytes of the parcel that is fetched to see how fast that is."""

_LOOKED_AT = 16
"""Trees of our store whose parcels are looked for in the remote."""

_CREDENTIALS = {
    "s3": {
        "AWS_ACCESS_KEY_ID": "a key of the environment",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "a web identity",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "those of the container",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "those of the container",
    },
    "gs": {"GOOGLE_APPLICATION_CREDENTIALS": "a file", "GOOGLE_SERVICE_ACCOUNT": "a service account"},
    "az": {
        "AZURE_STORAGE_ACCOUNT_KEY": "an account key",
        "AZURE_STORAGE_SAS_TOKEN": "a shared access signature",
        "AZURE_CLIENT_ID": "a client",
    },
}


def _remote(context: CheckContext) -> Iterator[CheckResult]:
    """Yield what is to be said of the remote; nothing where there is none."""
    config = context.store.remote
    if config is None:
        return
    may = access_of(config, context.environ)
    url = shown(config.url)
    if not may.read:
        yield warn("remote", f"{url} is {may}", "Raise store.remote.mode to use it.")
        return
    yield ok("remote", f"{url} is {may}")
    remote = Remote(config, context.environ, context.store.path)
    try:
        yield _keys(remote, context.environ)
        yield from _credentials(config.url, context.environ)
        yield from _answers(remote, writes=may.write)
    except VenvflowError as error:
        yield fail("remote-libraries", error.what, error.hint)
    finally:
        remote.close()


def _keys(remote: Remote, environ: Mapping[str, str]) -> CheckResult:
    config = remote.config
    if not config.keys:
        text = "no key is asked for: whoever can write there can run code on all machines that read it"
        return warn("remote-keys", text, 'Make a key with "venvflow keygen NAME", and leave unsigned out.')
    believed = f"{counted(len(config.keys), 'key')} believed: {', '.join(map(shown, config.keys))}"
    if not (environ.get(KEY) or environ.get(KEY_FILE)):
        return ok("remote-keys", f"{believed}; none to sign with here")
    try:
        signs = f"{believed}; this run signs as {remote.signer().issuer}"
    except VenvflowError as error:
        return fail(
            "remote-keys", error.what, error.hint or "Give the key that belongs to one in the config."
        )
    path = "" if environ.get(KEY) else environ.get(KEY_FILE, "")
    with suppress(OSError):
        if path and os.stat(path).st_mode & 0o077:
            return warn(
                "remote-keys", f"{signs}; others can read {shown(path)}", "Let only its owner read it (0600)."
            )
    return ok("remote-keys", signs)


def _credentials(url: str, environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """Yield which kind of credentials the environment has for a remote, and never a value."""
    kinds = _CREDENTIALS.get(url.partition(":")[0])
    if kinds is None:
        return
    found = next((text for name, text in kinds.items() if environ.get(name)), "")
    if found:
        yield ok("remote-credentials", found)
    elif url.startswith("s3:") and (profile := _profile(environ)):
        text = f"none in the environment; {profile}: profiles and single sign-on are not read"
        yield warn("remote-credentials", text, 'Run "aws configure export-credentials --format env".')
    else:
        text = "none in the environment: those of the machine are asked for, if it has some"
        yield warn("remote-credentials", text, f"Set {next(iter(kinds))} and what belongs to it.")


def _profile(environ: Mapping[str, str]) -> str:
    """Return in words where the tools of AWS would find a profile, or nothing."""
    if environ.get("AWS_PROFILE"):
        return "AWS_PROFILE is set"
    home = environ.get("HOME", "")
    found = (f"{home}/.aws/{name}" for name in ("credentials", "config"))
    return next((f"{shown(path)} is there" for path in found if os.path.exists(path)), "")


def _answers(remote: Remote, *, writes: bool) -> Iterator[CheckResult]:
    """Yield whether the remote answers, how fast, and whether it can be written, if it is to be."""
    channel = remote.channel()
    try:
        # Of what is not there, S3 says that it is denied to who may not list; the first push wrote this.
        answer = channel.ask("get", paths=[FORMAT], most=LARGEST, connections=1)
        start = time.monotonic()
        channel.ask("head", paths=[FORMAT], connections=1)
        seconds = time.monotonic() - start
        yield _reads(answer, f"answers in {show_duration(seconds)}", writes=writes)
        if answer["found"][FORMAT] is not None:
            yield from _speed(remote)
        yield from _clock(remote)
        if writes:
            yield from _written(remote)
    except ChannelFailure as error:
        text = redactor(secrets_of(remote.environ))(shown(str(error)))
        if error.kind == "denied":
            yield fail("remote-answers", f"it refuses us ({text})", _NO_RIGHTS)
            yield from _clock(remote)
        else:
            remedy = "Check store.remote.url and the network."
            yield fail("remote-answers", f"it cannot be reached: {text}", remedy)


def _reads(answer: Mapping[str, Any], answers: str, *, writes: bool) -> CheckResult:
    """Return whether what the first push has written is there to be read; *answers* says how fast."""
    if denied := answer["denied"].get(FORMAT, ""):
        return fail("remote-answers", f"it refuses us ({denied})", _NO_RIGHTS)
    found = answer["found"][FORMAT]
    if found is None and writes:
        return ok("remote-answers", f"it {answers}, and is empty: nobody has pushed yet")
    if found is None:
        remedy = "Check store.remote.url, unless nobody has pushed yet."
        return warn("remote-answers", f"it {answers}, and has nothing of venvflow", remedy)
    if not (text := decoded(found[0])):
        remedy = "The next push writes it anew."
        return warn("remote-answers", f"it {answers}; {FORMAT} is empty, as after a power cut", remedy)
    if text != FORMAT_TEXT:
        what = "what it has is of another version of venvflow, or of something else"
        return fail("remote-answers", what, "Check store.remote.url, or use the version that wrote it.")
    return ok("remote-answers", f"it can be read, and {answers}")


def _speed(remote: Remote) -> Iterator[CheckResult]:
    """Yield how fast a parcel comes: one of a tree that our store has, if the remote has any of them."""
    paths = [parcel_path(digest) for digest in _known_trees(remote.store)]
    if not paths:
        return
    channel, connections = remote.channel(), remote.config.connections
    heads = channel.ask("head", paths=paths, connections=connections)["heads"]
    sizes = {path: head[1] for path, head in heads.items() if head is not None and head[1] <= _SAMPLE}
    if sizes:
        path = max(sizes, key=lambda each: sizes[each])
        start = time.monotonic()
        channel.ask("get", paths=[path], most=_SAMPLE, connections=1)
        seconds = max(time.monotonic() - start, 1e-6)
        much = f"{show_size(sizes[path])} came in {show_duration(seconds)}"
        yield ok("remote-speed", f"{much}, {show_size(int(sizes[path] / seconds))}/s over one connection")


def _known_trees(store: str) -> list[str]:
    """Return trees of our store, those with most entries first."""
    found = []
    with suppress(OSError):
        for directory in os.listdir(f"{store}/trees"):
            with os.scandir(f"{store}/trees/{directory}") as entries:
                found += [(entry.stat().st_size, directory + entry.name) for entry in entries]
    return [digest for _, digest in sorted(found, reverse=True)[:_LOOKED_AT]]


def _clock(remote: Remote) -> Iterator[CheckResult]:
    """Yield how far our clock is from the server's, as it tells everybody: without, S3 only says 403."""
    if not (server := _server(remote.config, remote.environ)):
        return
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - for doctor only
    from urllib.error import HTTPError  # noqa: PLC0415
    from urllib.request import Request, urlopen  # noqa: PLC0415

    try:
        with urlopen(Request(server, method="HEAD"), timeout=5) as answer:  # noqa: S310 - it is http
            told = answer.headers["Date"]
    except HTTPError as error:
        told = error.headers["Date"]
    except OSError:
        return
    try:
        seconds = abs(parsedate_to_datetime(told).timestamp() - time.time())
    except (TypeError, ValueError):
        return
    text = f"its clock differs from ours by {show_duration(seconds)}"
    if seconds <= _SKEW:
        yield ok("remote-clock", "its clock is ours, to a minute")
    elif seconds < _REFUSED:
        yield warn("remote-clock", text, "Set the clock of this machine.")
    else:
        refused = f"{text}: S3 refuses all requests from 15 minutes on"
        yield fail("remote-clock", refused, "Set the clock of this machine.")


def _server(config: RemoteConfig, environ: Mapping[str, str]) -> str:
    """Return the URL of the server that has the remote, empty if there is none, or it is not known."""
    scheme = config.url.partition(":")[0]
    if scheme in ("http", "https"):
        return config.url
    if scheme == "gs":
        return "https://storage.googleapis.com"
    region = next(filter(None, (config.region, environ.get("AWS_REGION"), "us-east-1")))
    aws = environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    return (config.endpoint or aws) if scheme == "s3" else ""


def _written(remote: Remote) -> Iterator[CheckResult]:
    channel = remote.channel()
    try:
        channel.ask("put", path=_PROBE, data="")
    except ChannelFailure as error:
        text = redactor(secrets_of(remote.environ))(shown(str(error)))
        remedy = "Give this run the rights to write there."
        yield fail("remote-writes", f"it cannot be written: {text}", remedy)
        return
    yield ok("remote-writes", "it can be written")
    try:
        channel.ask("delete", paths=[_PROBE], connections=1)
    except ChannelFailure:  # many let runs write and not delete, and it is empty
        return


CHECKS: dict[str, Check] = {"remote": _remote}
