"""Finds credentials in text and puts ``***`` in their place, for all that is shown, logged or kept.

Pure: text in, text out; nothing raises, and no text takes more than a moment. A URL loses its user and
password and the values of its query, whatever they are called, for a signature or a token may be called
anything; of its fragment stays only what names a hash, a commit, a package or a directory. Outside of URLs,
a credential is known by its name (``password = …``, ``--token …``, ``Authorization: …``) or by the beginning
of well-known tokens. Secrets that a program was given are hidden wherever they stand: see :func:`redactor`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache

HIDDEN = "***"
"""What stands in the place of a credential."""

_SHORTEST = 6
"""Characters of the shortest secret that is looked for by itself: shorter ones are in innocent words."""

_LONG = 16
"""Characters from which on the value of a query is looked for by itself, whatever it is called."""

# No expression here tries again what it has read: every repetition is bounded, or ends where it must.
_SOUNDS = (
    r"(?:pass(?:w(?:or)?d|phrase)|pwd|secret|token|credentials?|signature"
    r"|(?:api|access|private|secret|auth|shared|account|sas)[_-]?key)"
)
_SECRET_NAME = rf"(?i:{_SOUNDS}|auth|cred|\bsig\b|\bkey\b)"
_MAY = (
    rf"(?i:[=%@]|:\\?/|{_SOUNDS}|auth|cookie|art-api|bearer\s|basic\s|\bmachine\s"
    r"|(?:^|\s)--?[\w-]{0,40}\bu(?:ser)?\b|\.\w{1,4}[?#]|akcp|xox|eyj|[\w-]{16})"
)
"""What a text without credentials seldom has: most texts are spared the other expressions.

Each of those needs something of this. They take some milliseconds to compile, so none is until it is needed.
"""

_URL = (
    r"(:\\?/\\?/|(?:(?<=http)|(?<=https)|(?<=ssh)):/)"
    r"((?:(?!:\\?/\\?/)(?:[^\s\"<>]|(?<=[^\s\"<>=])[\"<>](?=[^\s\"<>/?#@,:]{1,200}@)))*)"
)
"""A URL ends before a quote or a bracket, unless that stands in a password that nobody encoded.

Some programs write JSON with a backslash before each slash. Of a URL that was taken for a path, one slash of
two is left.
"""

_AUTHORITY = r"[^/?#]*"
_PORT = r"\[.*\](?::\d*)?|[^:]*(?::\d*)?"
_TAIL = r"[).,:;'`\]}]*\Z"
_PARAMETER = r"(;[^/?#;=]*=)[^/?#;]+"
_ITEM = r"[^&;]+"
_HARMLESS = (
    r"(?i:(?:sha\d{1,3}|md5|blake2\w)[=:][0-9a-f]*|egg=[\w.\[\],-]*|subdirectory=[\w./%-]*"
    r"|[0-9a-f]{40}|[0-9a-f]{64}|\*{3})"
)
_DONE = r"(?!\*{3}(?!\w))"
"""Not what is hidden already: to hide it again would take what follows it, too."""

_VALUE = r"(?:'[^']*'|\"[^\"]*\"|[^\s\"'&;,()]+)"
_HEADERS = r"authorization|cookie2?|[_-]token|api[_-]?key|auth[_-]key|art-api"
_NAMED = (
    rf"([?&;][^=?&#\s]{{0,60}}(?:{_SOUNDS}|auth|cred|key|sig)[^=?&#\s]{{0,60}}=){_DONE}[^&#\s]+",
    rf"((?:{_HEADERS})['\"]?\s{{0,4}}:\s{{0,4}}['\"]?){_DONE}[^\s'\"\\][^'\"\\\r\n]*",
    r"\b(bearer\s{1,4})[\w.~+/=-]{16,}",
    r"\b(basic\s{1,4})(?=[a-z+/]{0,200}[0-9=])[a-z0-9+/]{12,}={0,2}",
    r"(\bmachine\s{1,4}\S{1,200}\s{1,4}login\s{1,4})\S+(?:\s{1,4}password\s{1,4}\S+)?",
    r"(%3A%2F%2F)[^\s&/]{1,400}?(?=%40)",
    rf"((?:{_SOUNDS}|[\"']_?auth)['\"]\s{{0,4}}:\s{{0,4}}(['\"])){_DONE}.+?(?=\2)",
    rf"((?:{_SOUNDS}|\b_auth)s?['\"]?\s{{0,4}}=\s{{0,4}}(?![=>])){_DONE}{_VALUE}",
    rf"((?<!\S)--?[\w-]{{0,40}}{_SOUNDS}\s{{1,4}})(?!-){_DONE}{_VALUE}",
    rf"(pass(?:w(?:or)?d|phrase)(?:\sfor\s[^\s:]{{1,60}})?\s{{0,4}}:\s{{1,4}}){_DONE}[^\s'\"]+",
    r"((?<![^\s='\"(\[`,:/\\]))[\w.%+-]{1,80}:[^\s:@/'\"]{6,200}(?=@(?!sha\d)[\w.-]{1,200})",
    rf"((?<!\S)(?:-u|--user|--proxy-user)[\s=]{{1,4}}['\"]?){_DONE}[^\s:'\"]+:[^\s'\"]+",
)
"""What stands behind a name that sounds like a secret, in each of the ways in which programs write that."""

_LINK = r"(?<=[\w/.])\?([\w.%~+$-]{1,60}=[^\s#\"'<>]+)"
"""A link without its host, as an index has them and pip repeats them."""

_FILE_FRAGMENT = r"(\.(?:whl|zip|tgz|git|tar\.\w{1,4})(?:\?[^\s#\"'<>]{0,400})?#)([^\s\"'<>]+)"
"""What stands behind the name of an archive in a path or a link without its host."""

_WELL_KNOWN = (
    r"\b(?:AKCp\w{10,}|gh[opsur]_\w{16,}|github_pat_\w{16,}|gl(?:pat|[a-z]{1,4}t)-[\w-]{16,}|pypi-AgE[\w-]{16,}"
    r"|xox[a-z]-[\w-]{10,}|npm_\w{20,}|hf_\w{20,}|A[KS]IA[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
"""What well-known services give out."""


@cache
def _rules() -> tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]:
    """Return what is looked for outside of URLs, and what is put in its place; compiled when it is needed."""
    named = [(re.compile(expression, re.IGNORECASE), rf"\1{HIDDEN}") for expression in _NAMED]
    link = (re.compile(_LINK), lambda found: f"?{_items(found[1])}")
    file = (
        re.compile(_FILE_FRAGMENT, re.IGNORECASE),
        lambda found: f"{found[1]}{_items(found[2], _HARMLESS)}",
    )
    return (link, file, *named, (re.compile(_WELL_KNOWN), HIDDEN))


def redact(text: str) -> str:
    """Return *text* with all that looks like a credential replaced by ``***``."""
    if not re.search(_MAY, text):
        return text
    text = redact_urls(text)
    for expression, instead in _rules():
        text = expression.sub(instead, text)
    return text


def redact_urls(text: str) -> str:
    """Return *text* with nothing changed but its URLs: for what is not prose, such as a file or an answer."""
    return re.sub(_URL, _url, text) if "/" in text else text


def _url(found: re.Match[str]) -> str:
    return found[1] + _without_credentials(found[2])


def redact_words(words: Iterable[str]) -> list[str]:
    """Return the words of a command without credentials; what follows ``--password`` is one."""
    clean: list[str] = []
    before = ""
    for word in words:
        shown = redact(word)
        if shown == word and before.startswith("-") and redact(f"{before} {word}") != f"{before} {word}":
            shown = HIDDEN
        clean.append(shown)
        before = word if " " not in word else ""
    return clean


def _without_credentials(url: str) -> str:
    """Return what follows ``scheme://`` without user, password and what a query says."""
    user = _user_of(url)
    if user or url.startswith("@"):
        url = f"{HIDDEN}{url[len(user) :]}"
    place, mark, fragment = url.partition("#")
    place, asked, query = place.partition("?")
    place = re.sub(_PARAMETER, rf"\1{HIDDEN}", place)
    return f"{place}{asked}{_items(query)}{mark}{_items(fragment, _HARMLESS)}"


def _user_of(url: str) -> str:
    """Return user and password of what follows ``scheme://``, as they are written there."""
    authority = re.match(_AUTHORITY, url)[0]  # type: ignore[index]  # it matches anything
    if "@" in authority:
        return authority.rpartition("@")[0]
    # A password that nobody encoded: what comes before its slash is not a host and port.
    return "" if re.fullmatch(_PORT, authority) else url.rpartition("@")[0]


def _items(text: str, harmless: str = r"(?!)") -> str:
    """Return a query or fragment with its names, its *harmless* items, and the punctuation behind it."""

    def hide(found: re.Match[str]) -> str:
        name, _, value = found[0].partition("=")
        if re.fullmatch(harmless, found[0]):
            return found[0]
        return f"{name}={HIDDEN}" if value.strip("=") else HIDDEN  # what ends in "=" may be base64

    end = re.search(_TAIL, text)[0]  # type: ignore[index]  # it matches an empty end
    return re.sub(_ITEM, hide, text[: len(text) - len(end)]) + end


# --------------------------------------------------------------------------- known secrets


def redactor(secrets: Collection[str]) -> Callable[[str], str]:
    """Return a function that hides what :func:`redact` hides, and *secrets* wherever they stand.

    Also as they look in a URL, or as they looked before they were put into one, and line by line. What is
    shorter than 6 characters is not looked for.
    """
    # Longest first: a secret may be a part of another.
    spelled = sorted({each for secret in secrets for each in _spellings(secret)}, key=len, reverse=True)
    literal = re.compile("|".join(re.escape(each) for each in spelled)) if spelled else None

    def hide(text: str) -> str:
        return redact(literal.sub(HIDDEN, text) if literal else text)

    return hide


def _spellings(secret: str) -> Iterator[str]:
    from base64 import b64encode  # noqa: PLC0415 - few need more than the expressions above
    from urllib.parse import quote, unquote  # noqa: PLC0415

    plain = unquote(secret, errors="surrogateescape")
    for text in (secret, plain, quote(plain, safe="", errors="surrogateescape"), *secret.splitlines()):
        if len(text) >= _SHORTEST and text != HIDDEN:
            yield text
    if ":" in plain:  # user and password, as a header has them
        yield b64encode(plain.encode("utf-8", "surrogateescape")).decode("ascii")


def secrets_of(environ: Mapping[str, str], named: Iterable[str] = ()) -> set[str]:
    """Return what must be hidden of the variables *environ*.

    These are the values of those whose names sound secret, and the credentials in URLs of all. *named* are
    variables that the config names for the key, where only hashes of them stand, for they may be secret; what
    is a path, a number or several words is not.
    """
    found = {
        value
        for name, value in environ.items()
        if re.search(_SECRET_NAME, name) and name not in ("PWD", "OLDPWD")  # where a shell is, and was
    }
    found |= {value for name in named if _may_be_secret(value := environ.get(name, ""))}
    for value in environ.values():
        found |= secrets_in(value)
    return found


def _may_be_secret(value: str) -> bool:
    return (
        len(value) >= 8 and re.search(r"[\s/]", value) is None and re.search(r"[A-Za-z]", value) is not None
    )


def secrets_in(text: str) -> set[str]:
    """Return the credentials in URLs of *text*: users, passwords, both, and what queries sign with."""
    found: set[str] = set()
    for match in re.finditer(_URL, text):
        url = match[2]
        user = _user_of(url)
        found |= {user, *user.split(":", 1)}
        for item in re.findall(_ITEM, url.partition("#")[0].partition("?")[2]):
            name, _, value = item.partition("=")
            if re.search(_SECRET_NAME, name) or len(value) >= _LONG:
                found.add(value)
    return {each for each in found if len(each) >= _SHORTEST}
