"""Write a gate's verdict to one comment of its pull request: ``comment.py ARTIFACT VERDICT``.

Which pull request it is comes from GitHub's own account of the run, never from the artifact, which the pull request's
own code wrote. The text of it is cut, and calls nobody. Needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

MOST = 60_000
"""Characters of a verdict; GitHub takes 65,536 in a comment."""


def main(arguments: list[str]) -> int:
    """Find the pull request of the run that is done, and its comment; write that, or make one."""
    artifact, verdict = arguments
    run = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))["workflow_run"]
    numbers = list(_pull_requests(run))
    if not numbers:
        print(f"no open pull request ends in commit {run['head_sha']}: a newer push has a run of its own")
    marker = f"<!-- dmasync gate: {re.sub('[^A-Za-z0-9_.-]', '', artifact)} -->"
    text = f"{marker}\n{_harmless(Path(verdict))}\n\n[The run]({run['html_url']}), commit {run['head_sha']}.\n"
    for number in numbers:
        comments = f"/repos/{_repository()}/issues/{number}/comments"
        own = [one["id"] for one in _all(comments) if one["body"].startswith(marker) and one["user"]["type"] == "Bot"]
        if own:
            _call("PATCH", f"/repos/{_repository()}/issues/comments/{own[0]}", {"body": text})
        else:
            _call("POST", comments, {"body": text})
        print(f"pull request {number}: comment {'updated' if own else 'written'}")
    return 0


def _pull_requests(run: dict[str, Any]) -> Iterator[int]:
    """Those that are open and end in the run's commit. A fork's run does not name its own."""
    source = run["head_repository"]
    query = urlencode({"state": "open", "head": f"{source['owner']['login']}:{run['head_branch']}"})
    for one in _all(f"/repos/{_repository()}/pulls?{query}"):
        same_source = (one["head"]["repo"] or {}).get("full_name") == source["full_name"]
        if same_source and one["head"]["sha"] == run["head_sha"]:
            yield one["number"]


def _harmless(path: Path) -> str:
    """The text of the verdict: no link followed on the way to it, cut, and with nobody called by name."""
    if path.is_symlink() or not path.is_file():
        return "**Nothing was judged**: the gate left no verdict."
    with path.open("rb") as file:
        text = file.read(4 * MOST).decode("utf-8", "replace").replace("\0", "").replace("@", "@\u200b")
    if len(text) > MOST:
        text = text[:MOST].rpartition("\n")[0] + "\n\nThe rest is in the run's summary."
    return text.strip()


def _repository() -> str:
    return quote(os.environ["GITHUB_REPOSITORY"])


def _all(path: str) -> Iterator[dict[str, Any]]:
    """Every entry of a list, page after page."""
    separator = "&" if "?" in path else "?"
    following: str | None = f"{path}{separator}per_page=100"
    while following:
        entries, following = _call("GET", following)
        yield from entries


def _call(method: str, path: str, content: object = None) -> tuple[Any, str | None]:
    """The answer, and the address of the next page, if there is one."""
    server = os.environ["GITHUB_API_URL"]
    request = urllib.request.Request(  # noqa: S310 - GitHub's own address, by the runner
        path if path.startswith(f"{server}/") else server + path,
        None if content is None else json.dumps(content).encode(),
        {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        found = re.search(r'<([^>]*)>; rel="next"', answer.headers.get("Link", ""))
        following = found[1] if found and found[1].startswith(f"{server}/") else None
        return json.load(answer), following


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except urllib.error.HTTPError as error:
        sys.exit(f"comment.py: {error.url} answered {error.code}: {error.read(300).decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"comment.py: {error}")
