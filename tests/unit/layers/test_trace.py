"""Traces: written, read back, cut off anywhere, and refused when they are hostile."""

from __future__ import annotations

import errno
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, SyncType, uapi
from dmasync.fakes import FakeBackend, FakeDevice, Journal, faults
from dmasync.fakes.journal import svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def journal() -> Journal:
    """Of everything some: windows, refusals, other calls, device DMA, findings of the memory, stacks."""
    backend = FakeBackend(coherent=False, faults=[faults.storm(errno.EINTR, 3)])
    with (
        DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator,
        FakeDevice(backend) as device,
        allocator.alloc("frame", 8192) as frame,
    ):
        device.write(frame, b"raw!" * 2048)
        with frame.cpu_access(SyncType.READ) as view:
            assert view[0] == ord("r")
        backend.poll(frame.fileno(), 1, None)
        mapping = frame.map()
        memoryview(mapping)[0]
        backend.settle()
        mapping.close()
    return backend.journal


def text_of(journal: Journal) -> str:
    file = io.StringIO()
    journal.dump(file)
    return file.getvalue()


def test_what_is_written_is_read_back(journal, tmp_path):
    path = tmp_path / "trace.jsonl"
    journal.dump(path)
    copy = Journal.load(path)
    assert copy.rows == journal.rows
    assert copy.calls == journal.calls
    assert copy.events == journal.events
    assert [copy.stack(i) for i in range(copy.stacks)] == [journal.stack(i) for i in range(copy.stacks)]
    assert copy.timeline() == journal.timeline()
    assert copy.facts == {"complete": True, "open_mappings": []}
    assert text_of(copy) == text_of(journal)


def test_a_trace_is_read_from_lines_and_open_files_as_well(journal):
    text = text_of(journal)
    assert Journal.load(text.splitlines(keepends=True)).rows == journal.rows
    assert Journal.load(io.StringIO(text)).rows == journal.rows


def test_a_truncated_trace_is_read_up_to_its_last_whole_line(journal):
    text = text_of(journal)
    header = text.index("\n") + 1
    whole = [Journal.load(io.StringIO(text[:end])) for end in range(header, len(text), 97)]
    assert [len(copy) for copy in whole] == sorted(len(copy) for copy in whole)
    assert not any(copy.facts["complete"] for copy in whole)
    assert len(Journal.load(io.StringIO(text[:-2]))) == len(journal)


@pytest.mark.parametrize("end", [0, 1, 20])
def test_a_trace_that_ends_in_its_header_is_refused(journal, end):
    with pytest.raises(ValueError, match="header is missing"):
        Journal.load(io.StringIO(text_of(journal)[:end]))


HEADER = '{"format":"dmasync-trace","version":1,"started_ns":0,"facts":{}}\n'
SYNC = '{"sync":[1,1,3,1,5,0,2,0]}\n'
CALL = {
    "method": "close",
    "arguments": [3],
    "time_ns": 1,
    "thread": 1,
    "position": 0,
    "buffer": None,
    "stack": 0,
    "result": None,
    "after": None,
    "errno": 0,
    "end_ns": 2,
}
EVENT = {
    "kind": "device-read",
    "buffer": 1,
    "ranges": [[0, 1]],
    "time_ns": 1,
    "thread": 1,
    "position": 0,
    "stack": 0,
    "note": "",
    "end_ns": 1,
}


def call(**changes: object) -> str:
    return json.dumps({"call": {**CALL, **changes}}) + "\n"


def event(**changes: object) -> str:
    return json.dumps({"event": {**EVENT, **changes}}) + "\n"


def test_the_lines_that_the_hostile_ones_are_made_from_are_good():
    copy = Journal.load(io.StringIO(HEADER + SYNC + call() + event()))
    assert (len(copy), len(copy.calls), len(copy.events)) == (1, 1, 1)


HOSTILE = {
    "not JSON": "}{\n",
    "no object": "[1]\n",
    "two keys": '{"sync":[],"call":{}}\n',
    "unknown kind": '{"exec":"rm"}\n',
    "short row": '{"sync":[1,2]}\n',
    "text in a row": '{"sync":["a",1,3,1,5,0,2,0]}\n',
    "float": '{"sync":[1.5,1,3,1,5,0,2,0]}\n',
    "bool": '{"sync":[true,1,3,1,5,0,2,0]}\n',
    "not a number": '{"sync":[NaN,1,3,1,5,0,2,0]}\n',
    "huge number": '{"sync":[1,1,3,1,5,0,2,' + "9" * 30 + "]}\n",
    "endless number": '{"sync":[1,1,3,1,5,0,2,' + "9" * 5000 + "]}\n",
    "fd out of range": '{"sync":[1,1,3,1,4294967296,0,2,0]}\n',
    "negative flags": '{"sync":[1,1,-3,1,5,0,2,0]}\n',
    "stack that is not there": '{"sync":[1,1,3,1,5,7,2,0]}\n',
    "deep nesting": '{"sync":' + "[" * 100_000 + "]" * 100_000 + "}\n",
    "long line": '{"sync":"' + "x" * (1 << 20) + '"}\n',
    "no method": call(method="system"),
    "method of another kind": call(method="__class__", arguments=[]),
    "too few arguments": call(arguments=[]),
    "arguments of another kind": call(arguments=["/etc/passwd"]),
    "bool for a descriptor": call(arguments=[True]),
    "argument out of range": call(arguments=[1 << 70]),
    "position of the future": call(position=9),
    "missing field": '{"call":{"method":"close"}}\n',
    "bytes that are none": call(after={"hex": "zz"}),
    "bytes of another kind": call(after={"base64": ""}),
    "after that is no bytes": call(after=[1]),
    "result of another kind": call(result="x"),
    "ranges of another kind": event(ranges=[[1]]),
    "negative range": event(ranges=[[-1, 5]]),
    "kind of another kind": event(kind=5),
    "stack of another kind": '{"stack":[["a",1]]}\n',
    "endless stack": json.dumps({"stack": [["a", 1, "b"]] * 500}) + "\n",
    "end of another kind": '{"end":true}\n',
    "mapping that is not there": '{"end":{"open_mappings":[4]}}\n',
    "no list of mappings": '{"end":{"open_mappings":5}}\n',
    "more after the end": '{"end":{"open_mappings":[]}}\n' + SYNC,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_is_refused_by_its_number(name):
    with pytest.raises(ValueError, match=r"^line [23]: "):
        Journal.load(io.StringIO(HEADER + HOSTILE[name]))


@pytest.mark.parametrize(
    "header",
    [
        "[]\n",
        '{"format":"perfetto"}\n',
        '{"format":"dmasync-trace","version":2,"started_ns":0,"facts":{}}\n',
        '{"format":"dmasync-trace","version":1,"started_ns":"x","facts":{}}\n',
        '{"format":"dmasync-trace","version":1,"started_ns":0,"facts":[]}\n',
        SYNC,
    ],
)
def test_another_header_is_refused(header):
    with pytest.raises(ValueError, match="line 1"):
        Journal.load(io.StringIO(header))


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(HEADER.encode() + b"\xff\xfe\x00\n")
    with pytest.raises(ValueError, match="UTF-8"):
        Journal.load(path)


def test_the_perfetto_trace_has_a_lane_a_buffer_with_windows_attempts_and_dma(journal):
    trace = json.loads(json.dumps(journal.to_trace()))
    events = trace["traceEvents"]
    by_category = {event.get("cat") for event in events}
    assert {"window", "attempt", "device", "call", "memory"} <= by_category
    (window,) = [event for event in events if event.get("cat") == "window"]
    assert window["name"] == "READ"
    assert window["ph"] == "X"
    assert window["dur"] > 0
    refused = [event for event in events if event["name"] == "START EINTR"]
    assert len(refused) == 3
    assert {event["ph"] for event in refused} == {"i"}
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {"buffer 1 'frame'", "device"} <= names
    times = [event["ts"] for event in events if event["ph"] != "M"]
    assert times == sorted(times)
    assert min(times) == 0


def test_the_chart_is_svg_with_bars_marks_and_dma(journal):
    root = ElementTree.fromstring(journal.to_svg())  # noqa: S314 - our own text
    titles = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "READ #3 to #4" in titles
    assert "START EINTR x 3" in titles
    assert any(title.startswith("device-write") for title in titles)


def test_pictures_show_what_was_never_ended_and_never_started():
    # The last two: refused, and answered for a descriptor that nobody could name.
    rows = ("[1,1,3,1,5,0,2,0]", "[3,2,7,1,6,0,4,0]", "[5,null,3,1,6,0,7,9]", "[8,null,1,1,6,0,9,0]")
    copy = Journal.load(io.StringIO(HEADER + "".join(f'{{"sync":{row}}}\n' for row in rows)))
    names = [event["name"] for event in copy.to_trace()["traceEvents"]]
    assert "READ_WRITE, never ended" in names
    assert "END without START" in names
    assert "READ_WRITE #0, never ended" in copy.to_svg()
    assert "READ #3" not in copy.to_svg()
    assert len(copy.timeline(2).splitlines()) == 3
    assert copy.timeline(2).startswith("... 2 earlier lines")


def test_an_empty_journal_has_pictures_too():
    assert Journal().timeline() == "(nothing was recorded)"
    assert Journal().to_trace()["traceEvents"] == []
    ElementTree.fromstring(Journal().to_svg())  # noqa: S314


def test_the_chart_has_ticks_the_buffers_names_and_a_legend_of_all_its_marks():
    backend = FakeBackend()
    with DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=backend) as allocator:
        with allocator.alloc("frame <0> & more", 4096) as buffer, buffer.cpu_access(SyncType.READ):
            pass
    texts = [node.text for node in ElementTree.fromstring(backend.journal.to_svg()).iter(f"{SVG}text")]  # noqa: S314
    assert {"buffer 1", "frame <0> & more", "never ended", "other event", "device DMA"} <= set(texts)
    moments = [text for text in texts if re.fullmatch(r"0|[\d.]+ (ns|us|ms|s)", text or "")]
    assert moments[0] == "0"
    assert len(moments) >= 3


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (1, ["0", "1 ns"]),
        (6_000, ["0", "1 us", "2 us", "3 us", "4 us", "5 us", "6 us"]),
        (1_050_000, ["0", "200 us", "400 us", "600 us", "800 us", "1 ms"]),
        (7 * 10**9, ["0", "2 s", "4 s", "6 s"]),
    ],
)
def test_ticks_are_round_and_few(span, shown):
    assert [svg.in_time(moment) for moment in svg.ticks(span)] == shown


def test_what_people_read_has_the_programs_numbers_and_the_buffers_name(journal):
    fd = journal.attempts[0].fd
    journal.numbers.note(fd, 7, 0)
    copy = Journal.load(io.StringIO(text_of(journal)))
    assert copy.attempts[0].fd == fd  # a replay needs it
    for told in (journal, copy):
        assert str(fd) not in told.timeline()
        assert "START READ       buffer 1 'frame' fd 7" in told.timeline()
        (window,) = [event for event in told.to_trace()["traceEvents"] if event.get("cat") == "window"]
        assert window["args"]["fd"] == 7


def test_a_number_that_the_backend_gives_out_again_is_what_it_was_then():
    numbers = Journal().numbers
    assert numbers.of(12, 5) == numbers.of_new(12, 5) == 12  # nobody noted anything
    for moment, number in ((10, 768), (30, 769), (50, 5)):
        numbers.note(12, number, moment)
    assert [numbers.of(12, moment) for moment in (1, 10, 29, 30, 49, 90)] == [768, 768, 768, 769, 769, 5]
    assert [numbers.of_new(12, moment) for moment in (1, 10, 29, 31, 90)] == [768, 768, 769, 5, 5]


def test_a_name_that_was_an_address_is_no_name(journal):
    for call in journal.calls:
        if call.method == "ioctl" and call.arguments[1] in (uapi.DMA_BUF_SET_NAME_A, uapi.DMA_BUF_SET_NAME_B):
            call.arguments = (*call.arguments[:2], 0x7F0012345678)
    assert "buffer 1 fd" in journal.timeline()


@pytest.mark.parametrize("content", [[1, 2], [1, -2, 3], [1, 2, "3"], 5])
def test_a_number_that_is_none_is_refused(journal, content):
    lines = text_of(journal).splitlines(keepends=True)
    lines.insert(1, json.dumps({"number": content}) + "\n")
    with pytest.raises(ValueError, match=r"^line 2: "):
        Journal.load(lines)
