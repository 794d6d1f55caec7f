from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from danlu.i18n import LANGUAGES, catalogue
from tests.server.clients import fetch, new_conversation
from tests.server.running import Running, running, scripted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(scripted(tmp_path_factory.mktemp("home"))) as made:
        yield made


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small build of the web application; beside it a file that nobody may read."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>app</title>", encoding="utf-8")
    (static / "assets" / "main-abc123.js").write_text("1", encoding="utf-8")
    (static / "favicon.svg").write_text("<svg/>", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (static / "link.txt").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr("danlu.server.web.STATIC", static)
    return static


# Health


def test_health_tells_model_engine_and_queue(server: Running) -> None:
    reply = fetch(server, "GET", "/health")
    assert reply.status == 200
    value = reply.json()
    assert (value["status"], value["model"], value["assistants"]) == ("healthy", "danlu", {"Danlu": "ready"})
    assert value["engine"] == {"kind": "transformers", "state": "ready", "detail": None}
    assert value["queue"] == {"running": 0, "waiting": 0, "capacity": 4}
    assert fetch(server, "GET", "/livez").status == 200
    assert fetch(server, "GET", "/readyz").status == 200


@pytest.mark.parametrize(
    ("state", "status", "ready"),
    [
        ("loading", "loading", 503),
        ("restarting", "loading", 503),
        ("failed", "degraded", 503),
        ("ready", "healthy", 200),
    ],
)
def test_health_follows_the_engine(tmp_path: Path, state: str, status: str, ready: int) -> None:
    with running(scripted(tmp_path)) as server:
        engine = server.services.registry.get("Danlu").gateway.engine
        server.call(engine._states.set, state, "why")
        reply = fetch(server, "GET", "/health")
        assert (reply.status, reply.json()["status"]) == (200, status)
        assert reply.json()["engine"]["detail"] == "why"
        assert fetch(server, "GET", "/readyz").status == ready
        assert fetch(server, "GET", "/api/app").json()["assistants_ready"] is (ready == 200)


# Conversations


def test_the_life_of_a_conversation(server: Running) -> None:
    made = fetch(server, "POST", "/api/conversations", {}).json()
    path = f"/api/conversations/{made['id']}"
    assert set(made) == {
        "id",
        "title",
        "assistant_id",
        "pinned",
        "created_at",
        "updated_at",
        "leaf_id",
        "generating",
    }
    assert made["created_at"].endswith("Z")
    changed = fetch(server, "PATCH", path, {"title": "  炼丹  ", "pinned": True})
    assert (changed.status, changed.json()["title"], changed.json()["pinned"]) == (200, "炼丹", True)
    found = fetch(server, "GET", "/api/conversations?limit=1&query=" + quote("炼")).json()
    assert [item["id"] for item in found["items"]] == [made["id"]]
    assert fetch(server, "DELETE", path).status == 204
    assert fetch(server, "GET", path).status == 404
    assert fetch(server, "POST", path + "/restore").json()["id"] == made["id"]
    thread = fetch(server, "GET", path).json()
    assert set(thread) == {"conversation", "messages", "seq", "epoch"}


def test_pages_follow_the_cursor(server: Running) -> None:
    for _ in range(3):
        new_conversation(server)
    first = fetch(server, "GET", "/api/conversations?limit=2").json()
    second = fetch(server, "GET", f"/api/conversations?limit=2&cursor={first['next_cursor']}").json()
    assert not {item["id"] for item in first["items"]} & {item["id"] for item in second["items"]}
    assert fetch(server, "GET", "/api/conversations?cursor=x").status == 400


def test_an_export_is_a_download_with_the_title_as_name(server: Running) -> None:
    path = f"/api/conversations/{new_conversation(server)}"
    fetch(server, "PATCH", path, {"title": "炼丹 1/2"})
    reply = fetch(server, "GET", path + "/export?format=markdown")
    assert reply.headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote('炼丹 1 2.md', safe='')}"
    assert reply.headers["content-type"].startswith("text/markdown")
    assert json.loads(fetch(server, "GET", path + "/export?format=json").body)["messages"] == []
    assert fetch(server, "GET", path + "/export?format=pdf").status == 422


def test_assistants_are_listed_with_model_and_engine(server: Running) -> None:
    (assistant,) = fetch(server, "GET", "/api/assistants").json()["items"]
    assert assistant["model"] == {"version_id": "Danlu-1", "name": "danlu", "base": "tiny"}
    assert assistant["engine"]["state"] == "ready"
    assert (assistant["greeting"], assistant["suggestions"]) == ("Hi!", ["Who are you?"])


# Errors


@pytest.mark.parametrize(
    ("method", "path", "value", "status", "code", "where"),
    [
        ("GET", "/api/conversations/nothing", None, 404, "store.conversation_missing", None),
        ("GET", "/api/nothing", None, 404, "server.no_route", "/api/nothing"),
        ("PUT", "/api/conversations", {}, 405, "server.method_not_allowed", "/api/conversations"),
        ("POST", "/api/conversations", {"assistant_id": "nobody"}, 404, "store.assistant_missing", None),
        ("POST", "/api/conversations", {"assistant_id": 1}, 422, "server.invalid_request", "assistant_id"),
        ("POST", "/api/conversations", {"colour": "red"}, 422, "server.invalid_request", "colour"),
        ("POST", "/api/conversations", ["x"], 422, "server.invalid_request", "body"),
        ("GET", "/api/conversations?limit=0", None, 422, "server.invalid_request", "limit"),
        ("GET", "/api/conversations?limit=many", None, 422, "server.invalid_request", "limit"),
        ("GET", "/answer", None, 400, "serving.bad_request", None),
        ("GET", "/answer?prompt=x&assistant=nobody", None, 404, "serving.unknown_model", None),
    ],
)
def test_errors_are_problem_documents_in_the_readers_language(
    server: Running, method: str, path: str, value, status: int, code: str, where: str | None
) -> None:
    titles = set()
    for lang in ("zh-CN,zh;q=0.9,en;q=0.8", "en-GB"):
        reply = fetch(server, method, path, value, headers={"Accept-Language": lang})
        assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
        problem = reply.json()
        assert set(problem) == {"type", "title", "status", "detail", "code", "where", "fix"}
        assert (problem["status"], problem["code"], problem["where"]) == (status, code, where)
        titles.add(problem["title"])
    assert len(titles) == 2, "two languages, two titles"


def test_a_body_that_is_not_json_is_a_problem(server: Running) -> None:
    headers = {"Content-Type": "application/json"}
    reply = fetch(server, "POST", "/api/conversations", body=b"{", headers=headers)
    assert (reply.status, reply.json()["code"]) == (422, "server.invalid_request")
    assert fetch(server, "POST", "/answer", body=b"\xff\xfe", headers=headers).status == 400


@contextmanager
def wire(server: Running) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Give a function that sends bytes as they are, in so many packets, and returns status and JSON of the answer."""
    host, port = server.netloc.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(*packets: bytes) -> tuple[int, Any]:
            for packet in packets:
                connection.sendall(packet)
                time.sleep(0.05)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, json.loads(answer.read())

        yield ask


@pytest.mark.parametrize("cut", [0, 20, 21, 40])
def test_a_question_may_stand_in_the_address_as_it_was_typed(server: Running, cut: int) -> None:
    request = f"GET /answer?prompt=你是谁 HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n".encode()
    proper = fetch(server, "GET", "/answer?prompt=%E4%BD%A0%E6%98%AF%E8%B0%81").json()
    with wire(server) as ask:
        assert ask(request[:cut], request[cut:]) == (200, proper)
        assert ask(request) == (200, proper)


def test_headers_keep_their_bytes(server: Running) -> None:
    request = f"GET /health HTTP/1.1\r\nHost: {server.netloc}\r\nX-Name: 丹炉\r\n\r\n".encode()
    with wire(server) as ask:
        assert ask(request)[0] == 200


@pytest.mark.parametrize(("lang", "text"), [("en", "not written in UTF-8"), ("zh", "不是 UTF-8")])
def test_a_question_in_another_encoding_is_refused(server: Running, lang: str, text: str) -> None:
    request = f"GET /answer?lang={lang}&prompt=你是谁 HTTP/1.1\r\nHost: {server.netloc}\r\n\r\n".encode("gbk")
    with wire(server) as ask:
        status, problem = ask(request)
    assert (status, problem["code"]) == (400, "serving.query_not_utf8")
    assert text in problem["title"]
    assert '{"prompt": "…"}' in problem["fix"]


def test_the_language_in_the_address_wins_over_the_browsers(server: Running) -> None:
    reply = fetch(server, "GET", "/api/nothing?lang=zh", headers={"Accept-Language": "en"})
    assert reply.json()["title"] == "这个地址没有内容。"
    assert fetch(server, "GET", "/api/app?lang=zh").json()["language"] == "zh"


@pytest.mark.parametrize(
    ("path", "value", "status", "code"),
    [
        ("/v1/chat/completions", {"messages": []}, 400, "serving.bad_request"),
        (
            "/v1/chat/completions",
            {"model": "x", "messages": [{"role": "user", "content": "x"}]},
            404,
            "model_not_found",
        ),
        ("/v1/nothing", {}, 404, "server.no_route"),
    ],
)
def test_errors_under_v1_have_openais_shape(server: Running, path: str, value, status: int, code: str) -> None:
    reply = fetch(server, "POST", path, value)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


def test_a_defect_is_logged_with_its_number_and_tells_nothing_of_the_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_args, **_more):
        raise ZeroDivisionError("secret inside")

    with running(scripted(tmp_path)) as server, caplog.at_level(logging.ERROR):
        monkeypatch.setattr(server.services.conversations, "page", broken)
        reply = fetch(server, "GET", "/api/conversations")
        assert (reply.status, reply.json()["code"]) == (500, "server.defect")
        assert b"secret" not in reply.body
        assert b"Traceback" not in reply.body
        number = reply.headers["x-request-id"]
        assert number in reply.json()["fix"]
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert number in record.getMessage()
        assert record.exc_info is not None
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_assistant_that_is_being_prepared_asks_to_come_again(tmp_path: Path) -> None:
    with running(scripted(tmp_path)) as server:
        server.call(lambda: server.services.registry._entries.clear())
        for path in ("/answer?prompt=x", "/answer?prompt=x&assistant=Danlu"):
            reply = fetch(server, "GET", path)
            assert (reply.status, reply.json()["code"]) == (503, "chat.being_prepared")
            assert int(reply.headers["retry-after"]) > 0


# Who may ask, and how much


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "LOCALHOST:1", "[::1]:8000"])
def test_the_own_names_are_accepted(server: Running, host: str) -> None:
    assert fetch(server, "GET", "/livez", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "[::2]"])
def test_a_foreign_name_that_resolves_to_this_machine_is_refused(server: Running, host: str) -> None:
    for path in ("/livez", "/api/app", "/", "/v1/models"):
        assert fetch(server, "GET", path, headers={"Host": host}).status == 403, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_foreign_page_can_neither_change_nor_read_nor_spend(server: Running, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/api/conversations"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/api/conversations"),
        ("GET", "/answer?prompt=x"),
    ):
        reply = fetch(server, method, path, {} if method == "POST" else None, headers=headers)
        assert reply.status == 403, path
    assert fetch(server, "GET", "/livez", headers=headers).status == 200


def test_the_own_page_and_programs_may_do_everything(server: Running) -> None:
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert fetch(server, "POST", "/api/conversations", {}, headers=own).status == 201
    assert fetch(server, "POST", "/api/conversations", {}).status == 201


def test_no_page_of_another_origin_is_ever_allowed_to_read(server: Running) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "GET", "POST"):
        reply = fetch(server, method, "/v1/chat/completions", headers=preflight)
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_over_the_limit_is_refused(server: Running, in_chunks: bool) -> None:
    block = b"x" * 65536
    body = iter([block] * 17) if in_chunks else block * 17
    reply = fetch(server, "POST", "/answer", body=body)
    assert (reply.status, reply.json()["code"]) == (413, "server.body_too_large")


def test_a_body_just_under_the_limit_is_read(server: Running) -> None:
    body = json.dumps({"prompt": "x", "ignored": "y" * ((1 << 20) - 100)}).encode()
    assert fetch(server, "POST", "/answer", body=body).status == 200
    assert fetch(server, "POST", "/answer", body=iter([body[:10], body[10:]])).status == 200


# Headers and files


@pytest.mark.parametrize("path", ["/", "/api/app", "/health", "/nothing.js", "/v1/models", "/docs", "/c/123"])
def test_every_answer_carries_the_security_headers(server: Running, built: Path, path: str) -> None:
    headers = fetch(server, "GET", path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["script-src"] == policy["default-src"] == policy["connect-src"] == "'self'"
    assert policy["object-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["img-src"] == "'self' data: blob:"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert len(headers["x-request-id"]) == 16
    assert "server" not in headers


def test_what_programs_ask_is_not_kept_and_hashed_files_are_kept_for_good(server: Running, built: Path) -> None:
    assert fetch(server, "GET", "/api/app").headers["cache-control"] == "no-store"
    assert fetch(server, "GET", "/").headers["cache-control"] == "no-cache"
    assert "immutable" in fetch(server, "GET", "/assets/main-abc123.js").headers["cache-control"]
    assert "immutable" not in fetch(server, "GET", "/assets/gone.js").headers["cache-control"]


def test_addresses_of_the_web_application_get_its_first_page(server: Running, built: Path) -> None:
    for path in ("/", "/c/0123", "/assistants", "/c/a/b/c"):
        reply = fetch(server, "GET", path)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"<title>app" in reply.body
    assert fetch(server, "HEAD", "/").status == 200
    assert fetch(server, "GET", "/favicon.svg").headers["content-type"] == "image/svg+xml"
    for path in ("/api", "/api/", "/v1", "/gone.png", "/assets/gone"):
        assert fetch(server, "GET", path).status == 404, path


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/..%5csecret.txt",
        "//secret.txt",
        "/link.txt",
        "/a%00.txt",
        "/%2fetc/passwd.txt",
        "/" + "x" * 5000 + ".txt",
    ],
)
def test_no_path_leads_out_of_the_folder(server: Running, built: Path, path: str) -> None:
    reply = fetch(server, "GET", path)
    assert b"secret" not in reply.body.replace(b"secret.txt", b"")
    assert b"root:" not in reply.body
    assert reply.status in {400, 404}


def test_without_a_build_the_page_says_how_to_make_it(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("danlu.server.web.STATIC", tmp_path / "nothing")
    reply = fetch(server, "GET", "/")
    assert (reply.status, reply.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert b"make web" in reply.body


def test_the_docs_list_every_route_without_a_script(server: Running) -> None:
    page = fetch(server, "GET", "/docs?lang=zh").body.decode()
    for address in ("GET /api/conversations", "POST /answer", "POST /v1/chat/completions", "GET /health"):
        assert f"<code>{address}</code>" in page
    assert "<script" not in page
    # What a body holds stands there, with what a caller may put into it.
    for field in ("response_format", "top_logprobs", "tool_choice", "encoding_format"):
        assert f"<code>{field}</code>" in page
    assert "≤ 20" in page
    assert "``" not in page
    assert fetch(server, "GET", "/openapi.json").json()["openapi"].startswith("3.")


def test_one_connection_serves_many_requests(server: Running) -> None:
    connection = http.client.HTTPConnection(server.netloc, timeout=10)
    for _ in range(3):
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
    connection.close()


def test_every_text_of_these_rooms_exists_in_both_languages() -> None:
    def keys(lang) -> set[str]:
        return {key for key in catalogue(lang) if key.split(".")[0] in {"store", "chat", "server"}}

    first, *others = (keys(lang) for lang in LANGUAGES)
    assert first
    assert all(first == other for other in others)
