"""One OpenAI-compatible endpoint: asked by its own client, never trusted, and every error in plain words with a remedy.

The key comes from the environment and stays in the client: no message, file, log or exception of this module holds it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pydantic
from httpx2 import SyncByteStream
from openai import DefaultHttpxClient, OpenAI, OpenAIError

from datasetdm.errors import ConfigError
from datasetdm.prompts.language_model.replies import (
    HOLDS_KEY,
    NO_COMPLETION,
    REFUSED,
    TOO_LONG,
    Check,
    Completion,
    Items,
    Reply,
    read_reply,
)
from datasetdm.prompts.language_model.requests import Request

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"

MAX_RETRIES = 4
"""Of the client: with its own back-off, or after the seconds that the server says."""
RATE_LIMIT_PAUSES = (15.0, 60.0)
"""Seconds to wait when the client has given up on a rate limit, before it begins again."""
MAX_BYTES = 1 << 20
"""Of one answer."""
TOKENS_PER_TEXT = 120
"""That an answer may have for each text that is asked for, and once more."""
SHORTEST_KEY = 8
"""Characters of what could be a secret; shorter keys are placeholders for servers that want none."""
CHARACTERS_PER_TOKEN = 3.0
"""For estimates: fewer than English has, so that they are too high rather than too low."""
IMAGE_TOKENS = 1500
"""Of an image, for estimates."""


class Failure(Exception):
    """A request that has no answer.

    Args:
        error: what the user is to read.
        fatal: whether every other request would end in the same way.
    """

    def __init__(self, error: ConfigError, fatal: bool):
        super().__init__(error.what)
        self.error, self.fatal = error, fatal


class _Endless(OpenAIError):
    """An answer that does not end."""


class Endpoint:
    """A model at a server.

    Args:
        url: of the interface, for instance http://localhost:8080/v1.
        model: as the server calls it.
        timeout: seconds for one answer.
        temperature: of the sampling; None leaves it to the server.

    Raises:
        ConfigError: a URL that is none or holds a secret, or no key where one is needed.
    """

    def __init__(self, url: str, model: str, timeout: float = 120.0, temperature: float | None = None):
        self.url, self.model, self.timeout, self.temperature = url, model, timeout, temperature
        key = os.environ.get(KEY_VARIABLE, "").strip()
        _check_url(url, key)
        self._key = key if len(key) >= SHORTEST_KEY else ""
        self._structured = True
        self._client = OpenAI(
            api_key=key or "none",
            base_url=url,
            timeout=timeout,
            max_retries=MAX_RETRIES,
            default_headers={"Accept-Encoding": "identity"},
            http_client=DefaultHttpxClient(event_hooks={"response": [self._limit]}, timeout=timeout),
        )

    def close(self) -> None:
        """Close all connections; requests that are still running end."""
        self._client.close()

    def estimate(self, request: Request) -> tuple[int, int]:
        """Tokens that a request and its answer take at most."""
        words = sum(len(str(m["content"])) for m in request.messages() if isinstance(m["content"], str))
        words += sum(map(len, request.items)) if request.image is not None else 0
        asked = int(words / CHARACTERS_PER_TOKEN) + (IMAGE_TOKENS if request.image is not None else 0)
        return asked, _answer_tokens(request)

    def ask(self, request: Request, check: Check) -> Reply:
        """The reply to a request. Raises Failure."""
        failure = None
        for pause in (*RATE_LIMIT_PAUSES, None):
            try:
                return self._read(self._send(request), request, check)
            except _Endless:
                return Reply(request.key, {}, Counter({TOO_LONG: len(request.items)}), self.estimate(request))
            except openai.RateLimitError as e:
                failure = self._failure(e)
                if failure.fatal or pause is None:
                    break
            except OpenAIError as e:
                failure = self._failure(e)
                break
            time.sleep(pause)
        raise failure or AssertionError  # outside of the handlers: the client's exceptions know the request's headers

    def _send(self, request: Request) -> str:
        """The body of the answer; a server that refuses a schema is asked for plain text from then on."""
        settings: dict[str, Any] = {"temperature": self.temperature} if self.temperature is not None else {}
        limit = "max_completion_tokens" if self.url.startswith(OPENAI_URL) else "max_tokens"
        settings |= {"model": self.model, "messages": request.messages(), "seed": request.seed}
        settings[limit] = _answer_tokens(request)
        send: Any = self._client.chat.completions.with_raw_response.create
        if self._structured:
            schema = {"name": "items", "schema": Items.model_json_schema(), "strict": True}
            try:
                return send(**settings, response_format={"type": "json_schema", "json_schema": schema}).text
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                pass
        body = send(**settings).text
        self._structured = False
        return body

    def _read(self, body: str, request: Request, check: Check) -> Reply:
        wanted = len(request.items)
        try:
            completion = Completion.model_validate_json(body)
            choice = completion.choices[0]
        except (pydantic.ValidationError, IndexError):
            return Reply(request.key, {}, Counter({NO_COMPLETION: wanted}), self.estimate(request))
        usage = completion.usage
        tokens = self.estimate(request) if usage is None else (usage.prompt_tokens, usage.completion_tokens)
        tokens = (max(0, tokens[0]), max(0, tokens[1]))
        if self._key and self._key in body:
            return Reply(request.key, {}, Counter({HOLDS_KEY: wanted}), tokens)
        if choice.message.refusal:
            return Reply(request.key, {}, Counter({REFUSED: wanted}), tokens)
        texts, rejected = read_reply(choice.message.content, wanted, check, choice.finish_reason)
        return Reply(request.key, texts, rejected, tokens)

    def _limit(self, response: Any) -> None:
        """Give an answer a largest size and a last moment (the client's timeout is that of a single read)."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _Endless("a compressed answer, which was not asked for")
        response.stream = _Limited(response.stream, time.monotonic() + self.timeout)

    # ------------------------------------------------------------------ errors
    def _failure(self, error: OpenAIError) -> Failure:
        said = self._said(error)

        def failure(what: str, expected: str, remedy: str, fatal: bool = True) -> Failure:
            return Failure(ConfigError(what + said, where=self.url, expected=expected, remedy=remedy), fatal)

        set_key = f"set {KEY_VARIABLE} to a key of this server"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            what = "the server refuses the key" if self._key else "the server wants a key"
            return failure(what, f"a key in {KEY_VARIABLE} that may use {self.model}", set_key)
        if isinstance(error, openai.NotFoundError):
            return failure(f"the server has no model {self.model!r}, or no such interface", "a model's name, and a URL that "
                           "ends in /v1", f"check --model and --base-url; {self._models()}")  # fmt: skip
        if isinstance(error, openai.RateLimitError):
            if error.code == "insufficient_quota":
                return failure("the account has no credit left", "credit", "add some, then run the same command again")
            return failure("the server limits the rate", "fewer requests at a time",
                           "run the same command again later, with a smaller --parallel", fatal=False)  # fmt: skip
        if isinstance(error, openai.APITimeoutError):
            return failure(f"no answer within {self.timeout:g} s", "a faster server",
                           "raise --timeout, or ask for less with --batch", fatal=False)  # fmt: skip
        if isinstance(error, openai.APIConnectionError):
            return failure("the server cannot be reached", "an OpenAI-compatible server at --base-url",
                           "start it, or check --base-url and the network", fatal=False)  # fmt: skip
        if isinstance(error, openai.InternalServerError):
            return failure("the server failed", "a chat completion", "look at the server's log", fatal=False)
        return failure("the server refuses the request", "a chat completion", "check --model and the server's log")

    def _said(self, error: OpenAIError) -> str:
        """What the server says of an error: one line, no control characters, no key."""
        body = getattr(error, "body", None)
        text = body.get("message") if isinstance(body, dict) else body
        if not isinstance(text, str):
            return ""
        text = " ".join((text.replace(self._key, "[key]") if self._key else text).split())
        return ": " + "".join(c for c in text[:300] if c.isprintable()) if text else ""

    def _models(self) -> str:
        try:
            body = json.loads(self._client.models.with_raw_response.list(timeout=5).text)
            names = [str(m["id"]) for m in body["data"]]
        except (OpenAIError, ValueError, KeyError, TypeError, RecursionError):
            return "the server lists no models"
        text = ", ".join(names[:10])
        return "it has: " + (text.replace(self._key, "[key]") if self._key else text)


def _answer_tokens(request: Request) -> int:
    return TOKENS_PER_TEXT * (len(request.items) + 1)


class _Limited(SyncByteStream):
    """A stream of bytes with an end."""

    def __init__(self, stream: Any, deadline: float):
        self.stream, self.deadline = stream, deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self.stream:
            size += len(part)
            if size > MAX_BYTES or time.monotonic() > self.deadline:
                raise _Endless("the answer does not end")
            yield part

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


def _check_url(url: str, key: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--base-url {url!r} is no URL", expected="for instance http://localhost:8080/v1")
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "--base-url holds a name, a password or a query", expected="a bare URL", remedy=f"set {KEY_VARIABLE}"
        )
    if url.startswith(OPENAI_URL) and not key:
        raise ConfigError(
            f"there is no key in {KEY_VARIABLE}",
            where=url,
            expected="a key of this server",
            remedy=f"set the variable {KEY_VARIABLE}, or give --base-url of a server that needs none",
        )
