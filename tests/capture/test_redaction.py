"""Secrets that look like real ones, in every place where one may stand. None of them, and no part of them, comes through.

They are put together here, so that nobody's scanner takes this file for a leak.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import string
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimlite.capture import redaction
from aimlite.capture.redaction import REDACTED, Redactor, is_secret, redact_text

DRAW = random.Random(7)
LETTERS = string.ascii_letters + string.digits


def drawn(size: int, alphabet: str = LETTERS) -> str:
    return "".join(DRAW.choice(alphabet) for _ in range(size))


B64 = "\n".join(drawn(64, LETTERS + "+/") for _ in range(12)) + "\n" + drawn(20) + "=="
SHORT = drawn(22)
SECRETS = {
    "AWS id": "AKIA" + drawn(16, string.ascii_uppercase + string.digits),
    "AWS temporary id": "ASIA" + drawn(16, string.ascii_uppercase + string.digits),
    "AWS secret": "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
    "GitHub": "ghp" + "_" + drawn(36),
    "GitHub server": "ghs" + "_" + drawn(36),
    "GitHub fine-grained": "github" + "_pat_" + drawn(22) + "_" + drawn(59),
    "GitLab": "glpat" + "-" + drawn(20),
    "Slack bot": "xoxb" + "-" + drawn(12, string.digits) + "-" + drawn(12, string.digits) + "-" + drawn(24),
    "Hugging Face": "hf" + "_" + drawn(34),
    "OpenAI": "sk" + "-" + drawn(48),
    "OpenAI project": "sk" + "-proj-" + drawn(40) + "_" + drawn(20) + "-" + drawn(9),
    "Anthropic": "sk" + "-ant-api03-" + drawn(90),
    "Stripe": "sk" + "_live_" + drawn(24),
    "Google": "AIza" + drawn(35),
    "Google OAuth": "ya29" + "." + drawn(60),
    "npm": "npm" + "_" + drawn(36),
    "PyPI": "pypi" + "-AgEIcHlwaS5vcmc" + drawn(60),
    "SendGrid": "SG" + "." + drawn(22) + "." + drawn(43),
    "Telegram": drawn(10, "123456789") + ":" + drawn(35),
    "Databricks": "dapi" + drawn(32, "0123456789abcdef"),
    "Vault": "hvs" + "." + drawn(24),
    "Groq": "gsk" + "_" + drawn(52),
    "JWT": "eyJ" + drawn(33) + "." + "eyJ" + drawn(60) + "." + drawn(43),
    "random": drawn(44),
}
# what may be no more recognised than by its name
BY_NAME = {
    "hex": drawn(40, "0123456789abcdef"),
    "word": "correct horse battery",
    "short": "hunter2",
    "digits": "31415926",
    "odd": "p@ss/w:rd#1",
}


def assert_gone(secret: str, shown: str) -> None:
    """No six characters of it in a row."""
    assert REDACTED in shown
    pieces = [secret[at : at + 6] for at in range(max(len(secret) - 5, 1))]
    assert [piece for piece in pieces if piece in shown.replace(REDACTED, "")] == []


def in_everything(secret: str) -> dict[str, str]:
    """Places of all kinds that give no hint by a name."""
    return {
        "alone": secret,
        "in a sentence": f"it is {secret}, and nobody knows",
        "in code": f"+client = connect('https://api.example.com', '{secret}')\n",
        "in a path of a URL": f"https://example.com/hook/{secret}?x=1",
        "in JSON": json.dumps({"a": [secret, 1]}),
        "in YAML": f"settings:\n  value: {secret}\n",
        "in a list": f"a,{secret};b",
    }


@pytest.mark.parametrize("kind", SECRETS)
def test_formats_are_recognised_anywhere(kind: str) -> None:
    secret = SECRETS[kind]
    for place, text in in_everything(secret).items():
        shown = redact_text(text)
        assert_gone(secret, shown)
        assert shown.startswith(text[: text.index(secret)].partition("com/")[0]), place  # a path may go with it
    assert_gone(secret, json.dumps(Redactor({"INNOCENT": f"x {secret}"}, ["a.py", secret, f"--data={secret}"]).environment()))
    assert_gone(secret, json.dumps(Redactor({}, ["a.py", secret, f"--data={secret}", f"x={secret}"]).arguments()))


NAMED = [
    "password = {quoted}\n",
    'self.db_password="{secret}"',
    "api_key: {secret}\n",
    "API_KEY={secret}\n",
    "export MY_SECRET={secret}\n",
    '{{"client_secret": {json}}}',
    '"{{\\"password\\": \\"{secret}\\"}}"',
    "Server=db;User Id=sa;Password={secret};Timeout=3",
    "run --db-password {secret} --steps 10",
    "machine example.com login me password {secret}\n",
    "<password>{secret}</password>",
    "passwd := {secret}",
    "{{'passphrase': {quoted}}}",
    "os.environ['DB_PASSWORD'] = {quoted}",
    "os.environ.setdefault('DB_PASSWORD', {quoted})",
    "curl -u me:{secret} https://example.com",
    "sshpass -p {secret} ssh host",
    "mysql -h db -p{secret} x",
    "ENV DB_PASSWORD {secret}",
    "  - name: DB_PASSWORD\n    value: {quoted}\n",
    '{{"name": "DB_PASSWORD", "value": {json}}}',
]


@pytest.mark.parametrize("form", NAMED)
@pytest.mark.parametrize("kind", ["hex", "short", "digits", "AWS secret", "random"])
def test_names_are_recognised_in_text(form: str, kind: str) -> None:
    secret = {**SECRETS, **BY_NAME}[kind]
    for before, after in (("", ""), ("+", "\n context"), ("x = 1; ", " # y")):
        text = before + form.format(secret=secret, quoted=repr(secret), json=json.dumps(secret)) + after
        shown = redact_text(text)
        assert_gone(secret, shown)
        assert shown.startswith(before)
        assert shown.endswith(after)


@pytest.mark.parametrize("kind", [*SECRETS, *BY_NAME])
@pytest.mark.parametrize(
    "name",
    ["PASSWORD", "DB_PASS", "HF_TOKEN", "WANDB_API_KEY", "wandbApiKey", "AWS_SECRET_ACCESS_KEY", "GITHUBTOKEN", "KEY2", "PGPASSWORD",
     "SENTRY_DSN", "GOOGLE_APPLICATION_CREDENTIALS_JSON", "SESSION_COOKIE", "npm_config__auth", "MYSQL_PWD", "MY_JWT"],
)  # fmt: skip
def test_names_of_variables_are_recognised(name: str, kind: str) -> None:
    secret = {**SECRETS, **BY_NAME}[kind]
    assert Redactor({name: secret, "HOME": "/root"}, []).environment() == {name: REDACTED, "HOME": "/root"}


@pytest.mark.parametrize("kind", [*SECRETS, *BY_NAME])
def test_arguments(kind: str) -> None:
    secret = {**SECRETS, **BY_NAME}[kind]
    given_and_shown = [
        (["--token", secret], ["--token", REDACTED]),
        ([f"--api-key={secret}"], [f"--api-key={REDACTED}"]),
        (["-p", secret], ["-p", REDACTED]),
        ([f"-p{secret}"], [f"-p{REDACTED}"]),
        (["--password", secret, "--lr", "0.1"], ["--password", REDACTED, "--lr", "0.1"]),
        ([f"+model.hf_token={secret}"], [f"+model.hf_token={REDACTED}"]),
        ([f"password={secret}", "lr=1"], [f"password={REDACTED}", "lr=1"]),
        (["--fp16", "--token", "--api-key", secret], ["--fp16", "--token", "--api-key", REDACTED]),
        (["--keys", secret, secret, "--lr", "1"], ["--keys", REDACTED, REDACTED, "--lr", "1"]),
        (["-u", f"me:{secret}"], ["-u", REDACTED]),
        ([f"--user=me:{secret}"], [f"--user={REDACTED}"]),
        (["--db", f"postgres://me:{secret}@db:5432/x"], ["--db", f"postgres://{REDACTED}@db:5432/x"]),
    ]
    for arguments, shown in given_and_shown:
        if ("postgres" in arguments[-1] and (" " in secret or "@" in secret)) or (arguments[0] == "--keys" and secret.isdigit()):
            continue  # it is no URL; several keys with a number are a number of keys
        assert Redactor({}, ["train.py", *arguments]).arguments() == ["train.py", *shown]


def test_the_first_argument_is_the_script_whatever_its_name() -> None:
    assert Redactor({}, ["tokens=3.py", "a"]).arguments() == ["tokens=3.py", "a"]
    assert Redactor({}, []).arguments() == []


@pytest.mark.parametrize("kind", [*SECRETS, "hex", "odd"])
def test_what_a_name_gave_away_is_found_everywhere(kind: str) -> None:
    secret = {**SECRETS, **BY_NAME}[kind]
    redactor = Redactor({"MY_TOKEN": secret, "COMMAND": f"curl -d {secret} x"}, ["a.py", "--token", secret, f"data:{secret}"])
    assert_gone(secret, json.dumps(redactor.environment()))
    assert_gone(secret, json.dumps(redactor.arguments()))
    assert_gone(secret, redactor.text(f"+ x = '{secret}'"))


KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{B64}\n-----END RSA PRIVATE KEY-----"
ENCRYPTED = KEY.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,8F1A2B3C4D5E6F708192A3B4C5D6E7F8\n\n", 1)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"before\n{KEY}\nafter",
        ENCRYPTED,
        KEY.replace("RSA ", "OPENSSH "),
        KEY.replace("\n", "\r\n"),
        json.dumps({"private": KEY}),
        KEY.replace("\n", "\\n"),
        "\n".join("+" + line for line in KEY.split("\n")) + "\n",
        "\n".join("-    " + line for line in KEY.split("\n")) + "\n",
        KEY.rpartition("\n")[0],  # a piece of a diff: cut off below,
        "@@ -3,9 +3,9 @@\n" + "\n".join(" " + line for line in KEY.split("\n")[5:]),  # above,
        "@@ -3,9 +3,9 @@\n" + "\n".join(" " + line for line in KEY.split("\n")[5:9]),  # and on both ends
    ],
)
def test_private_keys(text: str) -> None:
    shown = redact_text(text)
    for line in B64.split("\n"):
        if line in text:
            assert_gone(line, shown)
    if text.startswith("before"):
        assert shown == f"before\n{REDACTED}\nafter"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://me:hunter2@db.example.com:5432/x", f"postgres://{REDACTED}@db.example.com:5432/x"),
        ("mongodb+srv://me:p%40ss@a,b/x?y=1", f"mongodb+srv://{REDACTED}@a,b/x?y=1"),
        ("redis://:hunter2@localhost:6379/0", f"redis://{REDACTED}@localhost:6379/0"),
        ("amqp://me:pa/ss@host", f"amqp://{REDACTED}@host"),
        ("https://hunter2@github.com/a/b.git", f"https://{REDACTED}@github.com/a/b.git"),
        ("https://me:p@ss@example.com/x", f"https://{REDACTED}@example.com/x"),
        ("http_proxy=http://me:hunter2@proxy:3128/", f"http_proxy=http://{REDACTED}@proxy:3128/"),
        ("https://x.example.com/b?a=1&sig=hunter2abc&z=1", f"https://x.example.com/b?a=1&sig={REDACTED}&z=1"),
        ("https://x.example.com/b?access_token=hunter2abc", f"https://x.example.com/b?access_token={REDACTED}"),
        ("https://example.com:8080/a/b?x=1", None),
        ("git+https://github.com/a/b@v1.2", None),
        ("ssh://git@github.com/a/b", None),
        ("git@github.com:a/b.git", None),
        ("s3://bucket/key/part-0001", None),
    ],
)
def test_urls(url: str, shown: str | None) -> None:
    for text in (url, f"see {url} there", json.dumps([url, 1])):
        assert redact_text(text) == text.replace(url, shown or url)


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("Authorization: Bearer abc.def-123", f"Authorization: {REDACTED}"),
        ('curl -H "Authorization: Basic bWU6aHVudGVyMg==" x', f'curl -H "Authorization: {REDACTED}" x'),
        ("Cookie: a=b; session=hunter2", f"Cookie: {REDACTED}"),
        ("X-Api-Key: hunter2hunter2", f"X-Api-Key: {REDACTED}"),
        ("the bearer abcdefgh12 rides", f"the bearer {REDACTED} rides"),
    ],
)
def test_headers(header: str, shown: str) -> None:
    assert redact_text(header) == shown


INNOCENT = [
    "/home/me/miniconda3/envs/Py310/lib/python3.10/site-packages:/usr/local/bin",
    "8b437d0f1c2e3a4b5d6e7f8091a2b3c4d5e6f708",
    "508c5b29-02c7-4875-a157-f099ea193bfa",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "for key in keys: print(key, tokens[key])",
    "def encode(self, token: str, key: Optional[int] = None) -> list:",
    "The tokenizer splits the text into tokens; the key idea is attention.",
    "max_tokens=512, num_keys=8",
    "+    if password:\n+        return 0\n",
    '["hex", "password", "random"] and ("token", "keys_of_all", "x")',
    "def login(password: str, token: Optional[str] = None, secret: dict[str, int]) -> None:",
    "sorted(items, key=len)",
    "https://huggingface.co/datasets/glue/resolve/main/mnli/train-00000-of-00001.parquet",
    "torch==2.3.1+cu121",
    "--learning-rate 3e-4 --model google/flan-t5-large --seed 42",
    "resnet50_imagenet_pretrained_batch256_lr0.1_run3",
    "ThisIsAnExtremelyLongNameOfAClassForTests",
]


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [("TOKENIZERS_PARALLELISM", "false"), ("PWD", "/root"), ("OLDPWD", "/"), ("PATH", "/bin"), ("KEYBOARD", "us"), ("AUTHOR", "me"),
     ("max_tokens", "512"), ("num_keys", "8"), ("COMPASS", "north"), ("HF_TOKEN", ""), ("tokenizer", "gpt2"), ("PATIENCE", "3")],
)  # fmt: skip
def test_names_that_are_none(name: str, value: str) -> None:
    assert not is_secret(name, value)
    assert Redactor({name: value}, []).environment() == {name: value}
    assert Redactor({}, ["a.py", f"--{name}", value]).arguments() == ["a.py", f"--{name}", value]


def test_short_words_known_as_secrets_do_not_take_the_rest_along() -> None:
    redactor = Redactor({"KEY": "training", "MY_KEY": "/root/data", "API_KEY": "1"}, ["training.py", "/root/data/x", "11"])
    assert redactor.arguments() == ["training.py", "/root/data/x", "11"]


@given(st.lists(st.text(max_size=30), max_size=4), st.text(LETTERS + "+/_-", min_size=8, max_size=60), st.data())
def test_no_place_gives_away_what_a_name_tells(others: list[str], secret: str, data: st.DataObject) -> None:
    """Whatever stands around, one of the variables is a secret: it is in nothing that comes out."""
    if not redaction.is_telling(secret) or secret in REDACTED or REDACTED.strip("[]") in secret:
        return
    words = [*others, secret, f"{data.draw(st.sampled_from(['', 'x=', '--data=', '@']))}{secret}"]
    words = data.draw(st.permutations(words))
    redactor = Redactor({"SOME_TOKEN": secret, "COMMAND": shlex.join(words)}, ["a.py", *words])
    shown = json.dumps([redactor.environment(), redactor.arguments(), redactor.text(" ".join(words))], ensure_ascii=False)
    assert secret not in shown


@settings(max_examples=300)
@given(st.text(max_size=300) | st.text("=:\"'\\ \n-/@.&?<>keypasswordtoken=", max_size=300))
def test_any_text_is_taken_and_again_gives_the_same(text: str) -> None:
    once = redact_text(text)
    assert isinstance(once, str)
    if len(text) < 8:
        assert once == text or REDACTED in once


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a=",
        "-",
        "x://",
        "x:",
        '\\"',
        "password",
        "password='a\\",
        "A1b",
        "<a ",
        "-----BEGIN PRIVATE KEY-----",
        "eyJ.",
        "x:@",
        "A\n",
        "key \t",
    ],
)
def test_a_long_text_takes_a_time_in_proportion(piece: str) -> None:
    """Eight times as much takes some eight times as long; a pattern that looks back over what it has seen would take 64 times."""

    def spent(size: int) -> float:
        text, begun = piece * (size // len(piece)), time.process_time()
        redact_text(text)
        return time.process_time() - begun

    short, long = min(spent(8_000) for _ in range(3)), min(spent(64_000) for _ in range(2))
    assert long < 30 * max(short, 1e-3)


def test_the_page_names_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "system.md").read_text("utf-8")
    section = page.split("## What is redacted")[1]
    told = set(re.findall(r"`(\w+)`", section))
    assert told >= {name for names in redaction.NAMES.values() for name in names}
    assert [whose for whose in redaction.FORMATS if whose not in section] == []
