"""The client of chat servers: faults are survived or one clear line, the key is nowhere, a second run asks nothing."""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.helpers.chat_server import ChatServer, Fault
from weight_edit.errors import UsageError
from weight_edit.evaluation.endpoint import client as client_module
from weight_edit.evaluation.endpoint.address import base_address, is_local, key_for
from weight_edit.evaluation.endpoint.answer import ChatAnswer, Unreadable, read_answer
from weight_edit.evaluation.endpoint.cache import AnswerCache
from weight_edit.evaluation.endpoint.client import ChatClient, ChatSettings, Rejected
from weight_edit.evaluation.endpoint.retry import Retry, retry_after
from weight_edit.evaluation.endpoint.usage import Prices, Usage
from weight_edit.redaction import KEY_VARIABLES, redacted

KEY = "wek-QUITE+secret/4711=="
QUICK = Retry(tries=4, first=0.002, most=0.02)
SETTINGS = ChatSettings(max_tokens=8)


def said(body) -> str:
    return f"echo: {body['messages'][-1]['content']}"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEY_VARIABLES, "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(said) as running:
        yield running


@pytest.fixture
def client(server: ChatServer, tmp_path: Path) -> Callable[..., ChatClient]:
    """`client(...)`: one of the server, with a cache of the test's own and short waits."""

    def made(**options) -> ChatClient:
        options = {"retry": QUICK, "cache": AnswerCache(tmp_path / "answers"), "concurrency": 2, **options}
        return ChatClient(server.url, "served", **options)

    return made


def asking(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def ask(client: ChatClient, *texts: str, **options) -> list[str]:
    return [answer.text for answer in client.ask(asking(*texts), SETTINGS, description="asking", **options)]


def test_answers_come_in_order_and_few_at_once(server: ChatServer, client) -> None:
    server.reply = lambda body: (time.sleep(0.01), said(body))[1]
    texts = [f"question {number}" for number in range(12)]
    used = client(concurrency=3)
    assert ask(used, *texts) == [f"echo: {text}" for text in texts]
    assert 1 < server.most_at_once <= 3
    assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}
    assert server.asked[0].body["temperature"] == 0
    assert server.asked[0].body["max_tokens"] == 8
    assert (used.usage.asked, used.usage.prompt_tokens, used.usage.answer_tokens) == (12, 120, 24)


def test_equal_questions_are_asked_once(server: ChatServer, client) -> None:
    assert ask(client(), "a", "b", "a") == ["echo: a", "echo: b", "echo: a"]
    assert len(server.asked) == 2


def test_a_second_run_asks_nothing(server: ChatServer, client) -> None:
    first = ask(client(), "a", "b")
    count = len(server.asked)
    again = client()
    assert ask(again, "a", "b") == first
    assert len(server.asked) == count == 2
    assert (again.usage.asked, again.usage.cached) == (0, 2)
    assert "all from the cache (the oldest of 20" in again.usage.line()
    # What is asked otherwise is another question, and so is what is asked of another model.
    assert [a.text for a in again.ask(asking("a"), ChatSettings(max_tokens=9), description="d")] == ["echo: a"]
    assert len(server.asked) == 3
    assert ask(client(fresh=True), "a") == ["echo: a"]
    assert len(server.asked) == 4


def test_a_damaged_entry_is_asked_again(server: ChatServer, client, tmp_path: Path) -> None:
    ask(client(), "a")
    (entry,) = (tmp_path / "answers").rglob("*.json")
    content = json.loads(entry.read_text(encoding="utf-8"))
    content["answer"]["text"] = "forged"
    for damaged in (json.dumps(content), "{", "[]", json.dumps({**content, "answer": 3})):
        entry.write_text(damaged, encoding="utf-8")
        assert ask(client(), "a") == ["echo: a"]
    assert len(server.asked) == 5


SURVIVED = {
    "too many requests": Fault(status=429, headers={"Retry-After": "0.01"}, body='{"error": {"message": "slow down"}}'),
    "too many, by date": Fault(status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "an hour": Fault(status=429, headers={"Retry-After": "3600"}),
    "no header": Fault(status=429),
    "broken": Fault(status=500, body="<html><body>oops</body></html>"),
    "overloaded": Fault(status=503, headers={"Retry-After": "soon"}, body="busy"),
    "gateway": Fault(status=502),
    "dropped": Fault(kind="drop"),
    "cut": Fault(kind="cut"),
    "slow": Fault(kind="slow", seconds=0.3),
    "dripping": Fault(kind="drip", seconds=0.02),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_what_passes_is_survived(server: ChatServer, client, name: str) -> None:
    server.faults.append(SURVIVED[name])
    began = time.monotonic()
    timeout = 0.1 if name in ("slow", "dripping") else 5.0
    assert ask(client(timeout=timeout), "a") == ["echo: a"]
    assert time.monotonic() - began < 3
    assert len(server.asked) == 2


LINES = {
    "wrong JSON": (Fault(body='{"choices": ['), "no JSON"),
    "a page": (Fault(body="<!DOCTYPE html><title>Welcome</title>"), "an HTML page"),
    "nothing": (Fault(body=""), "it is empty"),
    "a list": (Fault(body="[1]"), "the JSON is no object"),
    "no choices": (Fault(body='{"choices": []}'), "'choices' is empty"),
    "no choices at all": (Fault(body='{"text": "hello"}'), "'choices' is missing"),
    "an error": (Fault(body='{"error": {"message": "model is loading"}}'), "it is an error (model is loading)"),
    "no message": (Fault(body='{"choices": [{"text": "hello"}]}'), "no 'message'"),
    "no content": (Fault(body='{"choices": [{"message": {"role": "assistant"}}]}'), "no 'content'"),
    "a number": (Fault(body='{"choices": [{"message": {"content": 3}}]}'), "'content' is no text"),
    "deep": (Fault(body="[" * 5000 + "]" * 5000), "no JSON"),
    "huge": (Fault(kind="huge"), "longer than 50,000 bytes"),
    "no model": (Fault(status=404, body='{"error": {"message": "The model `x` does not exist"}}'), "does not exist"),
    "not found": (Fault(status=404, body="<html>nginx</html>"), "most addresses end in /v1"),
    "unauthorised": (Fault(status=401, body='{"error": "no key"}'), "environment variable WEIGHT_EDIT_API_KEY"),
    "too long": (Fault(status=400, body='{"object":"error","message":"maximum context length"}'), "context length"),
    "another host": (
        Fault(status=308, headers={"Location": "http://elsewhere.example/v1?sig=abc"}),
        "elsewhere.example",
    ),
    "a teapot": (Fault(status=418, body="short and stout"), "HTTP 418 (short and stout)"),
}


@pytest.mark.parametrize("name", LINES)
def test_what_stays_wrong_is_one_line(server: ChatServer, client, name: str) -> None:
    fault, words = LINES[name]
    server.faults.append(fault)
    with pytest.raises(UsageError) as failed:
        ask(client(max_bytes=50_000), "a")
    message = str(failed.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 500
    assert "sig=abc" not in message
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [SURVIVED["broken"], SURVIVED["dropped"], SURVIVED["an hour"]], ids=str)
def test_what_does_not_pass_is_one_line_in_the_end(server: ChatServer, client, fault: Fault) -> None:
    server.faults += [fault] * 9
    with pytest.raises(UsageError, match="did not answer, however often it was asked") as failed:
        ask(client(), "a")
    assert len(server.asked) == QUICK.tries
    assert ("asks to wait 3600 s" in str(failed.value)) == (fault == SURVIVED["an hour"])


def test_a_server_that_is_off_is_said_at_once(client, server: ChatServer) -> None:
    used = client()
    server.__exit__()
    began = time.monotonic()
    with pytest.raises(UsageError, match="cannot be reached"):
        ask(used, "a")
    assert time.monotonic() - began < 2


def test_a_declined_request_can_be_kept_apart(server: ChatServer, client) -> None:
    used = client(concurrency=1)
    server.faults += [Fault(kind="none"), Fault(status=400, body='{"error": {"message": "content policy"}}')]
    found = used.ask(asking("a", "b", "c"), SETTINGS, description="d", keep_rejected=True)
    assert [isinstance(answer, Rejected) for answer in found] == [False, True, False]
    assert "content policy" in str(found[1])
    # It was no answer, so it is asked again.
    assert [a.text for a in client().ask(asking("a", "b", "c"), SETTINGS, description="d")][1] == "echo: b"
    assert len(server.asked) == 4


def test_the_other_name_of_the_limit_is_found(server: ChatServer, client) -> None:
    server.faults.append(
        Fault(
            status=400, body='{"error": {"message": "\'max_tokens\' is not supported; use \'max_completion_tokens\'"}}'
        )
    )
    used = client()
    assert ask(used, "a") == ["echo: a"]
    assert server.asked[-1].body["max_completion_tokens"] == 8
    assert "max_tokens" not in server.asked[-1].body


def test_an_interrupted_run_keeps_what_was_answered(server: ChatServer, client) -> None:
    arrived, release = threading.Event(), threading.Event()

    def slow_after_two(body) -> str:
        if len(server.asked) > 2:
            arrived.set()
            release.wait(60)
        return said(body)

    server.reply = slow_after_two
    used = client(concurrency=1)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        arrived.wait()
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(used, "a", "b", "c", "d")
    assert time.monotonic() - began < 30, "it waited for the server"
    release.set()
    server.reply = said
    before = len(server.asked)
    assert before == 3
    assert len(ask(client(), "a", "b", "c", "d")) == 4
    assert len(server.asked) - before <= 2


def test_an_error_ends_the_others(server: ChatServer, client) -> None:
    server.faults.append(Fault(body="nonsense"))
    with pytest.raises(UsageError, match="no chat answer"):
        ask(client(concurrency=2), *map(str, range(50)))
    time.sleep(0.1)
    assert len(server.asked) < 50


@pytest.mark.parametrize("variable", KEY_VARIABLES)
def test_the_key_is_nowhere(
    server: ChatServer, client, variable: str, monkeypatch, caplog, capsys, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    server.reply = lambda body: {
        "message": {"content": f"you sent {KEY}", "reasoning_content": f"Bearer {KEY}"},
        "logprobs": {"content": [{"token": KEY, "logprob": -0.5, "top_logprobs": []}]},
    }
    used = client()
    answers = used.ask(asking("a"), SETTINGS, description="asking")
    assert server.asked[0].authorization == f"Bearer {KEY}"
    messages = []
    echoed = json.dumps({"error": {"message": f"bad key {KEY}"}})
    redirect = {"Location": "http://elsewhere.example/v1"}
    for fault in (
        *(Fault(status=status, body=echoed) for status in (400, 401, 403, 404, 418)),
        Fault(status=307, headers=redirect),
        Fault(body=f"<html>{KEY}"),
    ):
        server.faults.append(fault)
        with pytest.raises(UsageError) as failed:
            ask(used, f"b{len(messages)}")
        messages.append(f"{failed.value} {failed.value!r} {failed.value.__cause__!r} {failed.value.__context__!r}")
    server.faults += [Fault(status=500, body=echoed)] * QUICK.tries
    with pytest.raises(UsageError) as failed:
        ask(used, "c")
    messages.append(str(failed.value))
    captured = capsys.readouterr()
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 1
    told = [*messages, *written, caplog.text, captured.out, captured.err, repr(used), str(vars(used)), str(answers)]
    assert [text for text in told if KEY in text] == []
    assert "<token>" in answers[0].text


def test_no_key_is_sent_where_there_is_none(server: ChatServer, client) -> None:
    ask(client(), "a")
    assert server.asked[0].authorization is None


def test_which_key_is_sent_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    assert key_for("https://api.example/v1") == "sk-of-another-service"
    assert key_for("http://localhost:8000/v1") == "sk-of-another-service"
    assert key_for("http://192.0.2.7:8000/v1") is None
    monkeypatch.setenv("WEIGHT_EDIT_API_KEY", "made for this")
    with pytest.raises(UsageError, match="character 5 of 13") as failed:
        key_for("http://192.0.2.7:8000/v1")
    assert "made" not in str(failed.value)
    monkeypatch.setenv("WEIGHT_EDIT_API_KEY", "made-for-this")
    assert key_for("http://192.0.2.7:8000/v1") == "made-for-this"
    assert key_for("https://api.example/v1") == "made-for-this"


def test_keys_of_servers_are_hidden_in_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redacted("sk-proj-0123456789abcdefghij and a risk-averse person") == "<token> and a risk-averse person"
    monkeypatch.setenv("OPENAI_API_KEY", "unlike-any-form")
    assert redacted("it was unlike-any-form") == "it was <token>"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        (" http://127.0.0.1:8000/v1/ ", "http://127.0.0.1:8000/v1"),
        ("https://host.example/v1/chat/completions", "https://host.example/v1"),
        ("https://host.example/api/openai", "https://host.example/api/openai"),
        ("http://[::1]:8080", "http://[::1]:8080/v1"),
    ],
)
def test_addresses(given: str, address: str) -> None:
    assert base_address(given) == address
    assert is_local(address) == ("host.example" not in address)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("localhost:8000", "write it as"),
        ("ftp://host/v1", "write it as"),
        ("http://", "write it as"),
        ("http://host:x/v1", "no address"),
        ("http://user:opensesame@host/v1", "leave them out"),
        ("http://host/v1?api-key=opensesame", "leave them out"),
    ],
)
def test_wrong_addresses_are_one_line_without_secrets(given: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as failed:
        base_address(given)
    assert "opensesame" not in str(failed.value)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"timeout": 0.0}, {"model": " "}])
def test_wrong_settings_are_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        ChatClient(**{"url": "http://127.0.0.1:1/v1", "model": "m", **options})


def test_waiting_times() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("7") == 7
    assert retry_after("Thu, 01 Jan 2026 00:00:30 GMT", now) == 30
    assert retry_after("Thu, 01 Jan 2025 00:00:30 GMT", now) == 0
    assert [retry_after(text) for text in (None, "soon", "nan", "")] == [None] * 4
    retry = Retry(tries=9, first=1, most=10)
    waits = [[retry.wait(failed) for _ in range(50)] for failed in (1, 2, 3, 9)]
    for failed, some in zip((1, 2, 3), waits, strict=False):
        assert all(2 ** (failed - 1) / 2 <= wait <= 2 ** (failed - 1) for wait in some)
        assert len(set(some)) > 40
    assert set(waits[-1]) == {10}
    assert 5 < retry.wait(1, 5) < 6
    assert retry.wait(1, 3600) == 10


def test_what_servers_send_is_read() -> None:
    def read(message: dict, **choice) -> ChatAnswer:
        return read_answer({"choices": [{"message": message, **choice}]})

    assert read({"content": None}).text == ""
    assert read({"content": None, "refusal": "No."}).text == "No."
    assert read({"content": [{"type": "thinking"}, {"type": "text", "text": "a"}]}).text == "a"
    assert read({"content": "a", "reasoning_content": "b"}).thought == "b"
    assert read({"reasoning": "b"}, finish_reason="length") == ChatAnswer(text="", thought="b", finished=False)
    assert read({"content": "a"}).prompt_tokens is None
    top = [{"token": " a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}, {"token": "b", "logprob": -1.5}]
    found = read({"content": "a"}, logprobs={"content": [{"token": " a", "logprob": -0.5, "top_logprobs": top}]})
    assert found.first_tokens == pytest.approx({" a": -0.5, "b": -0.8068528})
    for odd in ({"content": []}, {"content": [{"token": 3}]}, {"content": [{"token": "a", "logprob": 7}]}, 3, None):
        assert read({"content": "a"}, logprobs=odd).first_tokens is None
    with pytest.raises(Unreadable):
        read_answer({"choices": [3]})


def test_cost_is_counted() -> None:
    usage = Usage()
    usage.add(ChatAnswer(text="a", prompt_tokens=1000, answer_tokens=100))
    usage.add(ChatAnswer(text="a"))
    usage.add(ChatAnswer(text="a", prompt_tokens=7, answer_tokens=7, cached="2026-01-02T03:04:05+00:00"))
    assert usage.cost(Prices(prompt=2, answer=10)) == pytest.approx(0.003)
    assert usage.line(Prices(prompt=2, answer=10)) == (
        "3 answers, 1 of them from the cache (the oldest of 2026-01-02); 1,000 tokens of requests and 100 of answers "
        "(1 not counted by the server); cost 0.0030"
    )


def test_the_ordinary_retry_is_bounded() -> None:
    retry = client_module.RETRY
    assert sum(retry.wait(failed, 1e9) for failed in range(1, retry.tries)) <= 300
