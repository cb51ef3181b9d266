"""``venvflow keygen``: makes a key to sign snapshots with."""

from __future__ import annotations

import argparse
import os

from venvflow.cli.arguments import Parser
from venvflow.cli.render import Output
from venvflow.disk.files import new_file
from venvflow.disk.system_errors import explained
from venvflow.errors import Refused, UsageError, shown
from venvflow.pure.signing import LENGTH, encode_secret, is_key_name, public_of, secret_key
from venvflow.state.remote import refuse_without_libraries

MORE = """\
The public key goes into the config, for all to see. The secret one goes into the secrets of the CI service,
as VENVFLOW_SIGNING_KEY: it is shown once, or written to a file that only you can read."""
EXAMPLE = "venvflow keygen main-2026 -o ~/main-2026.key"


def add_arguments(parser: Parser) -> None:
    """Add the words that the command takes."""
    parser.add_argument(
        "name", metavar="NAME", help="what the config calls the key: who it is, and since when"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the secret key there, and do not show it"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Make a key; 0 or an error.

    JSON: ``name``, ``public``, and ``secret``, or ``file``, where that is.
    """
    if not is_key_name(args.name):
        raise UsageError(
            f"{shown(args.name)!r} cannot be the name of a key", hint="Letters, digits and ._+- make one."
        )
    refuse_without_libraries("No key was made.", otherwise="")
    secret = encode_secret(os.urandom(LENGTH))
    public = public_of(secret_key(secret))
    path = _write(args.output, secret) if args.output else ""
    if out.as_json:
        out.document(
            {"name": args.name, "public": public, **({"file": path} if path else {"secret": secret})}
        )
        return 0
    out.say("put this line below store.remote.keys in the config:")
    out.answer(f'{args.name}: "{public}"')
    if path:
        out.say(f"the secret key is in {shown(path)}: name that as VENVFLOW_SIGNING_KEY_FILE")
    else:
        out.say("give this to the runs that may write, as VENVFLOW_SIGNING_KEY; it is not shown again:")
        out.answer(secret)
    return 0


def _write(output: str, secret: str) -> str:
    """Write the secret key to a new file that only its owner can read; return its path."""
    path = os.path.abspath(os.path.expanduser(output))
    if os.path.lexists(path):
        raise Refused(
            "there is something already",
            where=shown(path),
            state="No key was made.",
            hint="Choose another name: a key that is lost cannot be made again.",
        )
    with explained("cannot write the key", at=path, state="No key was made."), new_file(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(f"{secret}\n".encode("ascii"))
    return path
