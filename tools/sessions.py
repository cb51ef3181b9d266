"""Running what a page tells the reader to type, and comparing what is printed with what the page says.

A page is one session: its commands run in one shell, in their order, and the files that it shows are
written where the shell is at that moment. A command must succeed, unless the next one is ``echo $?``; what
fails otherwise ends the page, for what follows could act in a directory that it is not meant for.
What differs from machine to machine (ids, times, sizes, counts of files, versions of Python, the width of
columns) is not compared.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.markdown import Block, Exchange, as_session, blocks, exchanges
from tools.world import World

_MARK = "=-=-= done:"
_ANY = "..."

_DIFFERS = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "HASH"),
    (re.compile(r"\b[0-9a-f]{2}/[0-9a-f]{62}x?\b"), "OBJECT"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?"), "DATE"),
    (re.compile(r"-?\b[\d,]+(\.\d+)? ?(B|KiB|MiB|GiB|TiB)\b"), "SIZE"),
    (re.compile(r"\b[\d,]+(\.\d+)? ?(ms|s|min|h|seconds)\b"), "TIME"),
    (re.compile(r"\bby (reflink|hardlink|copy)\b"), "by LINK"),
    (re.compile(r"\b\d+ names\b"), "N names"),
    (re.compile(r"\b[\d,]+ of [\d,]+ files"), "N files"),
    (re.compile(r"\b[\d,]+ (file|object|tree|frame|path|distribution)s?\b"), r"N \1s"),
    (re.compile(r"\b[\d,]+ compiled\b"), "N compiled"),
    (re.compile(r"\b[\d,]+ (to|of) [\d,]+ frames"), "N frames"),
    (re.compile(r"\bcpython-\d+\S*"), "ABI"),
    (re.compile(r"\b\w+ \w+ (glibc|musl) [\d.]+"), "PLATFORM"),
    (re.compile(r"\bpython3\.\d+\b"), "python3"),
    (re.compile(r"\b3\.\d+\.\d+\b"), "PYTHON"),
    (re.compile(r"\b3\.\d+\b"), "PYTHON"),
    (re.compile(r"\b\d{4,}\b"), "NUMBER"),
    (re.compile(r"\b\d{1,3}(,\d{3})+\b"), "NUMBER"),
    (re.compile(r"[-─]{3,}"), "---"),
    (re.compile(r"[█░]+"), "BAR"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Answer:
    """What a command really did: the lines that it printed, as the reader is told them, and its *code*."""

    asked: Exchange
    output: tuple[str, ...]
    code: int

    @property
    def failed(self) -> bool:
        """Return whether it ended with an error that the page does not speak of."""
        return self.code != 0 and not self.asked.may_fail

    @property
    def problem(self) -> str:
        """Return how this differs from what the page says, or ""."""
        if self.failed:
            said = "\n".join(self.output)
            return f"line {self.asked.line}: exit code {self.code}: $ {self.asked.command}\n{said}"
        if not matches(self.asked.output, self.output):
            says, does = ("\n".join(lines) for lines in (self.asked.output, self.output))
            where = f"line {self.asked.line}: $ {self.asked.command}"
            return f"{where}\n-- the page says:\n{says}\n-- it prints:\n{does}"
        return ""


# --------------------------------------------------------------------------- comparing


def alike(line: str) -> str:
    """Return *line* without what differs from machine to machine."""
    for pattern, stands in _DIFFERS:
        line = pattern.sub(stands, line)
    return line.strip()


def matches(said: Sequence[str], printed: Sequence[str]) -> bool:
    """Return whether *printed* lines are the *said* ones, in which ``...`` stands for anything."""
    patterns = [line if line.strip() == _ANY else alike(line) for line in said]
    wanted = "".join(_pattern(line) for line in patterns)
    return re.fullmatch(wanted, "".join(f"{alike(line)}\n" for line in printed)) is not None


def _pattern(line: str) -> str:
    if line.strip() == _ANY:
        return r"(?:.*\n)*?"
    return r"[^\n]*".join(re.escape(part) for part in line.split(_ANY)) + r"\n"


# --------------------------------------------------------------------------- running


def run(page: str, world: World, *, start: Path, timeout: float = 240) -> list[Answer]:
    """Run the sessions of *page* in *world*, beginning in *start*, and return an answer per command."""
    steps = list(_steps(page))
    script = world.root / "session.sh"
    script.write_text(_script(steps, world.root), encoding="utf-8")
    done = subprocess.run(
        ["bash", str(script)], cwd=start, env=dict(world.environ), timeout=timeout, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return _answers([step for step in steps if isinstance(step, Exchange)], done.stdout, world)


def _steps(page: str) -> Iterator[Block | Exchange]:
    for block in blocks(page):
        if block.language == "console":
            yield from exchanges(block)
        elif block.file:
            yield block


def _script(steps: Sequence[Block | Exchange], staging: Path) -> str:
    """Return the shell script of a page. The exit code of a command is there for the next one."""
    # Without it, "cd -" after a cd that failed would leave the world of the page.
    parts = ["unset OLDPWD\n"]
    for number, step in enumerate(steps):
        if isinstance(step, Exchange):
            done = f"code=$?; printf '\\n{_MARK} %d\\n' $code"
            goes_on = "(exit $code)" if step.may_fail else "[ $code = 0 ] || exit 0"
            command = _on_terminal(step.command) if step.on_terminal else step.command
            parts.append(f"{command}\n{done}; {goes_on}\n")
        else:
            held = staging / f"file-{number}"
            held.write_text(step.text, encoding="utf-8")
            # A page may show a file once more, further grown, so an old one is replaced.
            parts.append(f'mkdir -p "$(dirname {step.file})" && cp {held} {step.file} || exit 1\n')
    return "".join(parts)


_SPAWN = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def _on_terminal(command: str) -> str:
    """Return what runs *command* on a terminal of 80 columns; a page has no colours."""
    session = f"stty -onlcr cols 80; export TERM=xterm NO_COLOR=1\n{command}"
    return shlex.join([sys.executable, "-c", _SPAWN, "bash", "-c", session])


def _answers(asked: Sequence[Exchange], printed: bytes, world: World) -> list[Answer]:
    """Return the answers, the last of them that of a command that failed, if one did."""
    text = printed.decode("utf-8", "backslashreplace")
    said = re.split(rf"\n{_MARK} (\d+)\n", text)
    answers = [
        Answer(one, tuple(world.as_told(output).splitlines()), int(code))
        for one, output, code in zip(asked, said[:-1:2], said[1::2], strict=False)
    ]
    if len(answers) < len(asked) and not (answers and answers[-1].failed):
        raise RuntimeError(f"the shell ended after {len(answers)} of {len(asked)} commands:\n{text[-2000:]}")
    return answers


# --------------------------------------------------------------------------- writing down


def written_down(page: str, answers: Sequence[Answer], *, all_of_it: bool = False) -> str:
    """Return *page* with what its commands print now.

    What says the same stays as it is; with *all_of_it*, only where the author left something out (``...``).
    """
    told = {answer.asked.line: answer.output for answer in answers}
    lines = page.splitlines(keepends=True)
    for block in reversed([block for block in blocks(page) if block.language == "console"]):
        parts = [
            part if _stays(part, told[part.line], all_of_it) else part._replace(output=told[part.line])
            for part in exchanges(block)
        ]
        lines[block.line : block.line + block.text.count("\n")] = [as_session(parts)]
    return "".join(lines)


def _stays(part: Exchange, printed: Sequence[str], all_of_it: bool) -> bool:
    return matches(part.output, printed) and not (all_of_it and _ANY not in "".join(part.output))
