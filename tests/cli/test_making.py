"""``danlu data expand``, ``from-docs`` and ``review``, with a server that answers as a strong model would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.data.files import write_json_lines

ROWS = [
    {"instruction": "When do you open?", "output": "We open at 10.", "system": "Be brief."},
    {"instruction": "Who won yesterday?", "output": "I don't know that. Please ask at the counter."},
    {"messages": None, "instruction": "And?", "history": [["Hi", "Hello"]], "output": "Tea."},
]


def reply(prompt: str) -> str:
    """Say what a model would, from the words of the prompt."""
    if prompt.startswith("An assistant answers"):
        return "1. What will the weather be next week?\n2. Who is your neighbour?\n3. Which share should I buy?"
    if "---" in prompt:
        return "At 10 we open.\n---\nFrom 10 on we are open."
    if prompt.startswith("Write") and "Q: the question" in prompt:
        return (
            "Q: Where does the teahouse stand?\nA: It stands by the bridge.\nQ: How old is it?\nA: It is 300 years old."
        )
    return "Here:\n- What time do you open?\n- At what hour may I come?\n- We open at 10.\n- From when on are you in?"


class Server(BaseHTTPRequestHandler):
    """Speaks as much of OpenAI's wire format as a client of it needs."""

    asked: list[dict]

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"data": [{"id": "strong"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body | {"key": self.headers.get("Authorization")})
        chunks = [
            {"choices": [{"delta": {"content": reply(body["messages"][-1]["content"])}, "finish_reason": None}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self._send("text/event-stream", "".join([*lines, "data: [DONE]\n\n"]))

    def log_message(self, *said: object) -> None:
        pass

    def _send(self, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def strong() -> Iterator[tuple[str, list[dict]]]:
    """A server on this machine: its address, and what it was asked."""
    handler = type("Asked", (Server,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", handler.asked
    server.shutdown()
    server.server_close()
    thread.join()


def asking(url):
    return ("--endpoint", url, "--endpoint-model", "strong")


def test_rows_are_expanded_reviewed_and_only_then_learned(danlu, tmp_path, strong, monkeypatch):
    url, asked = strong
    monkeypatch.setenv("DANLU_ENGINE_KEY", "secret")
    rows = write_json_lines(tmp_path / "rows.jsonl", [{k: v for k, v in row.items() if v} for row in ROWS])
    out = tmp_path / "more.jsonl"
    told = danlu("data", "expand", rows, "--out", out, *asking(url), "--paraphrases", 3, "--json").json
    assert told["kinds"] == {"paraphrase": 3, "variation": 2, "decline": 3}
    assert told["turned_down"]["figures"] >= 1, "one reply answers instead of asking"
    assert told["several_turns"] == 1
    assert {body["key"] for body in asked} == {"Bearer secret"}
    assert "secret" not in (tmp_path / "more.making.jsonl").read_text(encoding="utf-8")
    made = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert made[0]["system"] == "Be brief."
    assert [row["output"] for row in made if row["made"]["kind"] == "decline"] == [ROWS[1]["output"]] * 3

    unread = danlu("data", "check", out, "--json").json
    assert unread["usable"] == 8
    assert "“made”" not in json.dumps(unread, ensure_ascii=False)
    assert danlu("data", "review", out, "--json").json["waiting"] == 8
    assert "on a terminal" in danlu("data", "review", out, expect=2).line
    done = danlu("data", "review", out, "--accept", "1-3,5", "--reject", "4", "--json").json
    assert (done["accepted"], done["rejected"], done["waiting"]) == (4, 1, 3)
    assert "row 12" in danlu("data", "review", out, "--accept", "12", expect=2).line
    assert "both accepted" in danlu("data", "review", out, "--accept", "1", "--reject", "1", expect=2).line
    added = danlu("data", "add", out, "--name", "more", "--json").json
    assert (added["rows"], added["left_out"]) == (8, 4)


def test_an_expansion_is_gone_on_with_and_nothing_is_written_over(danlu, tmp_path, strong):
    url, asked = strong
    rows = write_json_lines(tmp_path / "rows.jsonl", [ROWS[0]])
    out = tmp_path / "more.jsonl"
    words = ("data", "expand", rows, "--out", out, *asking(url), "--declines", 0)
    danlu(*words)
    count = len(asked)
    first = out.read_bytes()
    assert "already" in danlu(*words, expect=2).line
    out.unlink()
    assert "--resume" in danlu(*words, expect=2).line
    danlu(*words, "--resume")
    assert out.read_bytes() == first
    assert len(asked) == count
    assert "--decline-answer" in danlu(
        "data", "expand", rows, "--out", tmp_path / "b.jsonl", *asking(url), "--declines", 2, expect=2
    ).line  # fmt: skip
    assert "--model" in danlu("data", "expand", rows, "--out", tmp_path / "b.jsonl", expect=2).line
    far = ("--endpoint", "https://models.example/v1", "--endpoint-model", "strong")
    refused = danlu("data", "expand", rows, "--out", tmp_path / "b.jsonl", *far, expect=2)
    assert "--send-rows" in refused.err
    assert not (tmp_path / "b.making.jsonl").exists()


def test_documents_become_texts_to_learn_from_or_drafts_to_review(danlu, tmp_path, strong):
    url, asked = strong
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text(
        "# Tea\n\nThe teahouse stands by the bridge.\n\n## Way\n\nOver the bridge.\n", encoding="utf-8"
    )
    out = tmp_path / "texts.jsonl"
    told = danlu("data", "from-docs", folder, "--out", out, "--json").json
    assert (told["documents"], told["passages"]) == (1, 2)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows[1] == {"text": "Tea / Way\n\nOver the bridge.", "source": "a.md", "heading": "Tea / Way"}
    assert danlu("data", "check", out, "--json").json["kind"] == "texts"
    assert asked == []

    drafts = tmp_path / "drafts.jsonl"
    told = danlu(
        "data", "from-docs", folder, "--out", drafts, "--for", "drafts", "--questions", 1, *asking(url), "--json"
    ).json
    assert told["kinds"] == {"draft": 1}
    assert told["turned_down"]["figures"] >= 1
    (row,) = [json.loads(line) for line in drafts.read_text(encoding="utf-8").splitlines()]
    assert (row["made"]["file"], row["made"]["heading"]) == ("a.md", "Tea")
    assert "nothing that documents can be cut for" in danlu(
        "data", "from-docs", folder, "--out", tmp_path / "c.jsonl", "--for", "fun", expect=2
    ).line  # fmt: skip


def test_on_a_terminal_each_row_is_shown_and_a_decision_is_kept_at_once(danlu, tmp_path, monkeypatch):
    row = {"instruction": "Tea?", "output": "Oolong.", "accepted": False, "reviewed": False}
    made = {"kind": "paraphrase", "by": "m", "row": 1, "question": "Any tea?", "answer": "Oolong."}
    path = write_json_lines(
        tmp_path / "made.jsonl", [row | {"instruction": f"Tea {n}?", "made": made} for n in range(5)]
    )
    keys = iter("yxnseq")
    monkeypatch.setattr("danlu.cli.data_review.typer.getchar", lambda echo: next(keys))
    monkeypatch.setattr("danlu.cli.data_review.sys.stdin.isatty", lambda: True, raising=False)
    said = iter(["Which tea?", "Oolong, of course."])
    monkeypatch.setattr("danlu.cli.data_review.typer.prompt", lambda *_, **__: next(said))
    shown = danlu("data", "review", path)
    assert "Any tea?" in shown.err
    assert "2 accepted, 1 turned down, 2 not reviewed" in shown.out
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["accepted"], row["reviewed"]) for row in rows] == [
        (True, True), (False, True), (False, False), (True, True), (False, False),
    ]  # fmt: skip
    assert rows[3]["output"] == "Oolong, of course."
    plain = write_json_lines(tmp_path / "plain.jsonl", [{"instruction": "a", "output": "b"}])
    assert "not made by a model" in danlu("data", "review", plain, expect=1).line


def test_a_model_of_this_machine_writes_too(danlu, worker_here, material, tmp_path):
    out = tmp_path / "more.jsonl"
    rows = write_json_lines(tmp_path / "rows.jsonl", [ROWS[0]])
    words = ("--model", material[0], "--paraphrases", 1, "--variations", 0, "--declines", 0, "--json")
    told = danlu("data", "expand", rows, "--out", out, *words).json
    assert told["asked"] >= 1
    assert (tmp_path / "more.making.jsonl").read_text(encoding="utf-8").count("\n") == 1 + told["asked"]
