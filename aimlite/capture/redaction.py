"""Secrets taken out of environments, arguments and text: by the names of things, by what values look like, and wherever a value that was
found by its name comes again.

A secret is replaced as a whole by `REDACTED`: no prefix, no length, no hash of it is kept. When in doubt it is redacted: docs/system.md has
the rule and what it misses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

REDACTED = "[redacted]"

# -- names ---------------------------------------------------------------------------------------------------------------

NAMES = {  # strength → where in a name → what; docs/system.md lists them
    "anywhere": (
        ("password", "passwd", "passphrase", "secret", "credential", "apikey", "accesskey", "privatekey", "sessionid", "connectionstring")
    ),
    "a word": ("pass", "pw", "pwd", "creds", "cred", "bearer", "otp"),
    "the end of a word": ("token", "tokens", "key", "keys", "auth", "authorization", "cookie", "jwt", "pat", "dsn", "sas"),
}
NOT_SECRET = frozenset({"PWD", "OLDPWD", "PATH", "path", "PASS_MAX_DAYS"})
_STRONG, _WEAK = 2, 1
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLAIN = re.compile(r"[+-]?[\d_]*\.?\d*(?:e[+-]?\d+)?|true|false|none|null|yes|no|on|off", re.IGNORECASE)


@functools.lru_cache(4096)
def _strength(name: str) -> int:
    """How much a name speaks for a secret: not at all, `_WEAK`, `_STRONG`."""
    if name in NOT_SECRET:
        return 0
    squeezed = re.sub(r"[^a-z0-9]", "", name.lower())
    words = [word.lower() for word in _WORDS.findall(name)]
    if any(part in squeezed for part in NAMES["anywhere"]) or any(word in NAMES["a word"] for word in words):
        return _STRONG
    return _WEAK if any(word.endswith(NAMES["the end of a word"]) and word != "path" for word in words) else 0


def is_secret(name: str, value: str) -> bool:
    """Whether what has this name is a secret. `max_tokens=512` and `num_keys=8` are none: a plural with a number."""
    if not value or not _strength(name):
        return False
    words = _WORDS.findall(name)
    is_plural = _strength(name) == _WEAK and any(word.lower().endswith(("tokens", "keys")) for word in words)
    return not (is_plural and _PLAIN.fullmatch(value))


# -- values --------------------------------------------------------------------------------------------------------------

FORMATS = {  # whose → what its secrets look like; docs/system.md lists them
    "AWS": r"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{16}",
    "GitHub": r"gh[a-z]_[A-Za-z0-9_]{16,}|github_pat_\w{16,}",
    "GitLab": r"gl[a-z]{2,6}-[\w.-]{16,}",
    "Slack": r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}|(?<=hooks\.slack\.com/)(?:services|workflows)/[\w/-]+",
    "Hugging Face": r"(?:hf|api_org)_[A-Za-z0-9]{16,}",
    "OpenAI, Anthropic": r"sk-[\w-]{16,}",
    "Stripe": r"(?:sk|rk|pk)_(?:live|test)_\w{8,}|whsec_[\w+/=-]{8,}",
    "Google": r"AIza[\w-]{30,}|ya29\.[\w.-]+|GOCSPX-[\w-]{8,}",
    "npm, PyPI, Docker": r"npm_[A-Za-z0-9]{30,}|pypi-[\w-]{16,}|dckr_[a-z]+_[\w-]{16,}",
    "SendGrid, Twilio, Telegram": r"SG\.[\w-]{16,}\.[\w-]{16,}|SK[0-9a-f]{32}|\d{8,10}:[\w-]{35}",
    "Vault, DigitalOcean, Databricks, Grafana": r"hv[sbr]\.[\w-]{16,}|do[opr]_v1_[0-9a-f]{16,}|dapi[0-9a-f]{32}|gl(?:sa|c)_[\w+/=-]{16,}",
    "Groq, Replicate, Perplexity, xAI, NVIDIA, Linear, Shopify, Sentry": (
        r"gsk_\w{16,}|r8_\w{16,}|pplx-\w{16,}|xai-\w{16,}|nvapi-[\w-]{16,}|lin_api_\w{16,}|shp[a-z]{2}_\w{16,}|sntry[su]_[\w+/=-]{16,}"
    ),
    "age": r"AGE-SECRET-KEY-1[A-Z0-9]{16,}",
    "JWT": r"eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)*",
}
_FORMATS = re.compile(r"(?<![A-Za-z0-9])(?:" + "|".join(FORMATS.values()) + ")")
_LINE = r"(?:\\r)?(?:\\n|\r?\n)[ +-]?[ \t]*"  # to the next line of a key, also of one in a diff, or with its ends written as \n
_KEY_BEGINS, _KEY_ENDS = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----", r"-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----"
_PRIVATE_KEY = re.compile(  # the last line is for the end of one whose beginning a diff leaves out; lines before it look random
    rf"{_KEY_BEGINS}(?:(?!-----BEGIN )[\s\S]){{0,20000}}?{_KEY_ENDS}"
    rf"|{_KEY_BEGINS}(?:{_LINE}[\w+/=:, -]*)*"
    rf"|(?<![\w+/=])[A-Za-z0-9+/=]{{1,76}}{_LINE}{_KEY_ENDS}"
)
# Repetitions are bounded where a text could make them look at itself over and over.
_PASSWORD_IN_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/?#@:\"'<>]{0,200}:[^\s\"'<>@]{0,300}(?:@[^\s\"'<>@/?#]{0,500}){0,4}@(?=[^\s@])"
)
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://([^\s/?#@:\"'<>]{1,300})@")
_HEADER = re.compile(r"((?:authorization|(?<![\w-])(?:set-)?cookie)\\?[\"']?\s*:\s*\\?[\"']?)[^\r\n\"'\\]+", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
_SIGNATURE = re.compile(r"([?&](?:sig|signature|X-Amz-Signature|X-Amz-Credential|X-Goog-Signature|code)=)[^&\s\"'<>]+", re.IGNORECASE)
_LOGIN = re.compile(  # .netrc, curl, mysql
    r"(\blogin\s+\S+\s+password\s+|(?<!\S)(?:-u|--user)[ =][^\s:]{0,200}:|\b(?:sshpass|mysql\w{0,20})\b[^\n]{0,200}?\s-p[ ]?)[^\s\"']+"
)
_SETENV = re.compile(r"(\b(?:ENV|setenv)[ \t]+(\w{1,200})[ \t]+)(\S+)")
_CALL = re.compile(r"(\w\(\s{0,8}[\"']([\w.-]{1,200})[\"']\s{0,8},\s{0,8})(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')")  # setenv("X", "…")
_NAME_AND_VALUE = re.compile(  # as Kubernetes and others list variables
    r"(\bname[\"']?\s{0,4}[:=]\s{0,4}[\"']?([\w.-]{1,200})[\"']?,?[ \t]*(?:\r?\n[ +-]?[ \t]*)?[\"']?value[\"']?\s{0,4}[:=]\s{0,4})"
    r"(\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s,}]+)"
)
_ELEMENT = re.compile(r"(<([A-Za-z_][\w.:-]{0,100})(?:\s[^<>]{0,500})?>)([^<>]+)(?=</)")
_NAMED = re.compile(
    r"(?<![\w.-])(?P<dashes>-{0,2})(?P<name>[A-Za-z_][\w.-]{0,200})"
    r"(?P<between>\\?[\"']?\]?[ \t]{0,8}(?::=|=>|[:=])[ \t]{0,8}|[ \t]{1,8})"
)
_VALUE = re.compile(r"\\[\"'].{0,4000}?\\[\"']|[rbuf]{0,2}\"(?:[^\"\\\n]|\\.)*\"|[rbuf]{0,2}'(?:[^'\\\n]|\\.)*'|[^\s,;&\"'()\[\]{}<>]+")
_QUOTES = re.compile(r"[rbuf]{0,2}(?:\\?[\"'])")
_TYPES = frozenset(
    {
        "str",
        "bytes",
        "float",
        "dict",
        "list",
        "tuple",
        "set",
        "bool",
        "int",
        "Optional",
        "Any",
        "None",
        "True",
        "False",
        "null",
        "true",
        "false",
    }
)
_RUN = re.compile(r"(?<![A-Za-z0-9_/+-])[A-Za-z0-9_/+-]{32,}={0,2}")
_KINDS = re.compile(r"[A-Z]+|[a-z]+|[0-9]+")


def _is_random(run: str) -> bool:
    """Whether a long run of characters looks drawn by lot: capitals, small letters and digits that change places all the time. Hexadecimal
    ones, as hashes are, names and paths do not."""
    kinds = _KINDS.findall(run)
    size = sum(map(len, kinds))
    has_all = all(any(test(kind) for kind in kinds) for test in (str.isupper, str.islower, str.isdigit))
    return has_all and size >= 24 and len(kinds) > 0.35 * size


def is_telling(value: str) -> bool:
    """Whether a secret can be looked for by its value without taking half of the rest along."""
    return len(value) >= 8 and not value.isalpha() and value[0] not in "/.~" and not _PLAIN.fullmatch(value)


def redact_text(text: str, known: Iterable[str] = ()) -> str:
    """The text without what looks like a secret, and without the known ones."""
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _PASSWORD_IN_URL.sub(rf"\1{REDACTED}@", text)
    text = _USER_IN_URL.sub(lambda found: found[0] if found[2] == "git" or "ssh" in found[1] else f"{found[1]}://{REDACTED}@", text)
    text = _FORMATS.sub(REDACTED, text)
    for pattern in (_HEADER, _BEARER, _SIGNATURE, _LOGIN):
        text = pattern.sub(rf"\1{REDACTED}", text)
    for pattern in (_ELEMENT, _SETENV, _CALL, _NAME_AND_VALUE):
        text = pattern.sub(lambda found: found[1] + REDACTED if is_secret(found[2], found[3]) else found[0], text)
    text = _redact_named(text)
    return _RUN.sub(lambda found: REDACTED if _is_random(found[0]) else found[0], text)


def _redact_named(text: str) -> str:
    """`password: x`, `"api_key": "x"`, `token='x'`, `--token x` in the middle of text. What is not redacted is looked through further."""
    pieces, at, kept = [], 0, 0
    while named := _NAMED.search(text, at):
        at = named.end()
        name, is_option = named["name"], named["between"].isspace()
        if is_option and named["dashes"] != "--":
            at = named.end("name")
        if not _strength(name) or (is_option and named["dashes"] != "--"):
            continue
        found = _VALUE.match(text, at)
        if found is None:
            continue
        value = found[0]
        if not (not value.startswith("-") and is_secret(name, value) if is_option else _is_secret_in_text(name, value)):
            continue
        quote = _QUOTES.match(value)
        opening, closing = (quote[0], quote[0].lstrip("rbuf")) if quote else ("", "")
        pieces += [text[kept:at], opening, REDACTED, closing]
        at = kept = found.end()
    return "".join([*pieces, text[kept:]])


def _is_secret_in_text(name: str, value: str) -> bool:
    """As `is_secret`; in code and prose a name like `key` has to have a value that could be one."""
    quote = _QUOTES.match(value)
    inner = value[len(quote[0]) :].rstrip("\\\"'") if quote else value
    if not is_secret(name, inner) or inner == REDACTED or inner in _TYPES:
        return False
    if _strength(name) == _STRONG:
        return True
    return len(inner) >= 8 and not re.search(r"\s", inner) and (quote is not None or any(map(str.isdigit, inner)))


# -- environments and arguments --------------------------------------------------------------------------------------------

_FLAG = re.compile(r"(?P<dashes>--?)(?P<name>[A-Za-z][\w.-]*)(?:=(?P<value>.*))?", re.DOTALL)
_SETTING = re.compile(r"(?P<name>[+~]{0,2}[A-Za-z_][\w.@/-]*)=(?P<value>.*)", re.DOTALL)
_USERS = frozenset({"u", "user", "login"})  # whose value may be `name:password`, as curl takes it


class Redactor:
    """Redacts an environment and arguments, remembers what was secret in them, and finds that in other text too."""

    def __init__(self, environment: Mapping[str, str], arguments: Iterable[str]) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._environment = dict(environment)
        self._secret = self._secret_arguments()
        self._known = {value for name, value in self._environment.items() if is_secret(name, value) and is_telling(value)}
        self._known |= {value for _, value in self._secret.values() if is_telling(value)}

    def text(self, text: str) -> str:
        return redact_text(text, self._known)

    def environment(self) -> dict[str, str]:
        """name → value, or `REDACTED` where the name tells that it is a secret."""
        return {
            self.text(name): REDACTED if is_secret(name, value) else self.text(value) for name, value in sorted(self._environment.items())
        }

    def arguments(self) -> list[str]:
        """One for each; of a secret what comes before it stays: `--token=[redacted]`."""
        return [
            self._secret[index][0] + REDACTED if index in self._secret else self.text(argument)
            for index, argument in enumerate(self._arguments)
        ]

    def _secret_arguments(self) -> dict[int, tuple[str, str]]:
        """index → (what of it stays, the secret)."""
        secret: dict[int, tuple[str, str]] = {}
        before = ""  # the name of the option whose value is expected
        for index, argument in enumerate(self._arguments[1:], 1):
            flag, setting = _FLAG.fullmatch(argument), _SETTING.fullmatch(argument)
            if before and not argument.startswith("--") and self._is_value(before, argument):
                secret[index] = ("", argument)
            elif argument.startswith("-p") and len(argument) > 2:
                secret[index] = ("-p", argument[2:].lstrip("="))  # as mysql takes it
            elif (named := flag or setting) and named["value"] and self._is_value(named["name"], named["value"]):
                secret[index] = (argument[: named.start("value")], named["value"])
            if flag and flag["value"] is None:
                before = flag["name"]
            elif not before.lower().endswith(("keys", "tokens", "secrets", "passwords")):  # which may take several values
                before = ""
        return secret

    def _is_value(self, name: str, value: str) -> bool:
        return name == "p" or is_secret(name, value) or (name in _USERS and ":" in value)
