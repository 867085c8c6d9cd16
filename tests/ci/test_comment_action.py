"""The action that writes a verdict to its pull request: which one, which comment, and what of a stranger's text."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.ci.steps import ROOT, Runner, loaded, step_named

ACTION = loaded(".github/actions/comment/action.yml")
MARKER = "<!-- dmasync gate: dmasync-gate -->"
HEAD = "1" * 40


def pull(number: int, sha: str = HEAD, repository: str | None = "someone/linux") -> dict[str, Any]:
    return {"number": number, "head": {"sha": sha, "repo": repository and {"full_name": repository}}}


def comment(identity: int, body: str, kind: str = "Bot") -> dict[str, Any]:
    return {"id": identity, "body": body, "user": {"type": kind}}


class GitHub:
    """The part of GitHub's API that the action calls: open pull requests, and one's comments, a hundred a page."""

    def __init__(self) -> None:
        self.pulls = [pull(7)]
        self.comments: list[dict[str, Any]] = []
        self.asked: list[dict[str, list[str]]] = []
        self.written: list[tuple[str, str, str]] = []
        self.tokens: set[str | None] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = parse_qs(url.query)
                if url.path == "/repos/lab/linux/pulls":
                    hub.asked.append(query)
                    self._answer(hub.pulls)
                elif url.path == "/repos/lab/linux/issues/7/comments":
                    page = int(query.get("page", ["1"])[0])
                    following = f"{hub.address}{url.path}?per_page=100&page={page + 1}"
                    more = len(hub.comments) > page * 100
                    self._answer(hub.comments[(page - 1) * 100 : page * 100], following if more else None)
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
                hub.written.append((self.command, self.path, body))
                self._answer({})

            do_PATCH = do_POST  # noqa: N815 - as the library calls it

            def _answer(self, content: object, following: str | None = None) -> None:
                hub.tokens.add(self.headers["Authorization"])
                self.send_response(200)
                if following:
                    self.send_header("Link", f'<{following}>; rel="next", <{following}>; rel="last"')
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *told: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub() -> Iterator[GitHub]:
    made = GitHub()
    serving = threading.Thread(target=made.server.serve_forever)
    serving.start()
    yield made
    made.server.shutdown()
    serving.join()
    made.server.server_close()


def commented(tmp_path: Path, hub: GitHub, verdict: Path | str | None, branch: str = "a&b=c") -> str:
    """Take the action's step for a verdict; return what it printed."""
    run = {
        "head_sha": HEAD, "head_branch": branch, "html_url": "https://github.example/run/1",
        "head_repository": {"full_name": "someone/linux", "owner": {"login": "someone"}},
    }  # fmt: skip
    (tmp_path / "event.json").write_text(json.dumps({"workflow_run": run}))
    (tmp_path / "job").mkdir(exist_ok=True)
    runner = Runner(
        tmp_path / "job",
        GITHUB_ACTION_PATH=str(ROOT / ".github/actions/comment"),
        GITHUB_API_URL=hub.address,
        GITHUB_EVENT_PATH=str(tmp_path / "event.json"),
        GITHUB_REPOSITORY="lab/linux",
    )
    folder = runner.temporary / "dmasync-comment"
    folder.mkdir()
    if isinstance(verdict, Path):
        (folder / "verdict.md").symlink_to(verdict)
    elif verdict is not None:
        (folder / "verdict.md").write_text(verdict)
    step = step_named(ACTION["runs"]["steps"], "Write the comment")
    done = runner.run(step, {"inputs.artifact": "dmasync-gate", "inputs.token": "word"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_verdict_becomes_a_comment(tmp_path: Path, hub: GitHub) -> None:
    commented(tmp_path, hub, "| row | verdict |\n")
    ((method, path, body),) = hub.written
    assert (method, path) == ("POST", "/repos/lab/linux/issues/7/comments")
    assert body.startswith(f"{MARKER}\n| row | verdict |\n")
    assert "https://github.example/run/1" in body
    assert hub.tokens == {"Bearer word"}
    assert hub.asked[0]["head"] == ["someone:a&b=c"]


def test_the_next_verdict_takes_the_first_one_s_place_also_far_down(tmp_path: Path, hub: GitHub) -> None:
    hub.comments = [comment(number, "hello", "User") for number in range(250)]
    hub.comments[230] = comment(9, f"{MARKER}\nold")
    commented(tmp_path, hub, "new")
    ((method, path, _),) = hub.written
    assert (method, path) == ("PATCH", "/repos/lab/linux/issues/comments/9")


def test_a_comment_of_a_person_is_not_written_over(tmp_path: Path, hub: GitHub) -> None:
    hub.comments = [comment(9, f"{MARKER}\nmine", "User"), comment(10, f"I saw {MARKER}")]
    commented(tmp_path, hub, "new")
    assert hub.written[0][0] == "POST"


@pytest.mark.parametrize("other", [pull(7, sha="2" * 40), pull(7, repository="else/linux"), pull(7, repository=None)])
def test_a_run_that_is_no_open_pull_request_s_last_is_not_told(
    tmp_path: Path, hub: GitHub, other: dict[str, Any]
) -> None:
    hub.pulls = [other]
    assert "no open pull request" in commented(tmp_path, hub, "x")
    assert hub.written == []


def test_a_stranger_s_text_calls_nobody_and_fits(tmp_path: Path, hub: GitHub) -> None:
    commented(tmp_path, hub, "@everyone\n" * 20_000)
    body = hub.written[0][2]
    assert "@everyone" not in body
    assert len(body) < 65_536
    assert "The rest is in the run's summary." in body


@pytest.mark.parametrize("verdict", [Path("/etc/hostname"), None])
def test_a_verdict_that_is_no_file_of_the_artifact_is_not_read(
    tmp_path: Path, hub: GitHub, verdict: Path | None
) -> None:
    commented(tmp_path, hub, verdict)
    assert "the gate left no verdict" in hub.written[0][2]


def test_the_workflow_that_may_write_runs_nothing_of_the_pull_request() -> None:
    steps = loaded("docs/ci/github/gate-comment.yml")["jobs"]["comment"]["steps"]
    uses = [step["uses"] for step in [*steps, *ACTION["runs"]["steps"]] if "uses" in step]
    assert not [name for name in uses if "checkout" in name]
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    assert [line.split()[:3] for text in scripts for line in text.splitlines()] == [
        ["python3", "-I", '"$GITHUB_ACTION_PATH/comment.py"']
    ]
    assert "run" not in {key for step in steps for key in step}
