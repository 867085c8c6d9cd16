"""The program that ``python3 -c`` runs on a board: source text, old-fashioned, for whatever Python is there.

It reads the archive from standard input, unpacks it into a folder of its own, takes the board's facts, lets the
measuring process answer the plan, takes the facts again, and removes the folder; after ``seconds`` in any case, since
a board learns from nobody that the host has given up. Where instructions are to be counted, it refuses unless the
kernel was started as one that counts them, and compiles what it unpacked first: a process that compiles has another
memory, and other counts. Each line of its answers begins with
:data:`MARK`: what a login script prints goes by.
"""

from __future__ import annotations

MARK = "dmasync-board:"

PROGRAM = r"""
import sys
def say(kind, text):
    sys.stdout.write("dmasync-board:" + kind + ":" + text.rstrip("\n") + "\n")
    sys.stdout.flush()
if sys.version_info < (3, 10):
    say("refused", "its python3 is %d.%d, dmasync needs 3.10 or newer" % sys.version_info[:2])
    sys.exit(3)
import io, json, os, shutil, signal, subprocess, tarfile, tempfile
folder = tempfile.mkdtemp(prefix="dmasync-")
worker = None
try:
    with tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()), mode="r:gz") as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    sys.path.insert(0, folder)
    import board_facts
    with open(os.path.join(folder, "setup.json"), encoding="utf-8") as file:
        setup = json.load(file)
    if setup["exact"]:
        everywhere, by_machine = setup["exact"]
        with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
            given = file.read().split()
        wanted = everywhere + by_machine.get(os.uname().machine, [])
        lacking = [word for word in wanted if word not in given]
        if lacking:
            say("refused", "its kernel does not count instructions: it was started without " + " ".join(lacking))
            sys.exit(3)
        subprocess.call([sys.executable, "-s", "-m", "compileall", "-q", folder], stdout=2)
    signal.signal(signal.SIGALRM, lambda number, frame: sys.exit(3))
    signal.alarm(setup["seconds"])
    say("before", json.dumps(board_facts.facts()))
    with open(os.path.join(folder, "plan.jsonl"), "rb") as plan:
        line = [sys.executable, "-s", "-B", "-c", setup["program"], folder, json.dumps(setup["surroundings"])]
        worker = subprocess.Popen(line, stdin=plan, stdout=subprocess.PIPE, env=setup["environment"], cwd="/")
    for answer in worker.stdout:
        say("answer", answer.decode("utf-8", "replace"))
    status = worker.wait()
    say("after", json.dumps(board_facts.facts()))
    say("end", str(status))
finally:
    if worker is not None and worker.poll() is None:
        worker.kill()
        worker.wait()
    shutil.rmtree(folder, ignore_errors=True)
"""
