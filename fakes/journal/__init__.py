"""The journal: what a recorder saw, the questions a test asks of it, and its formats.

================== ===================================================================
``entries.py``     what it is made of: attempts, calls, events
``windows.py``     which START an END ends; nothing else pairs them
``stacks.py``      call stacks, each kept once
``log.py``         what was recorded, and questions
``journal.py``     the log with its formats, which nothing else here knows
``text.py``        a line for each entry
``svg.py``         a picture
``perfetto.py``    for Perfetto and chrome://tracing
``json_lines.py``  the trace file
``words.py``       names of errnos, accesses and calls, for all formats
``flags.py``       names of the flags that calls take
================== ===================================================================

It imports nothing of the fakes but what lies beside their folders; memory, layers and sanitizer build on it.
"""

from dmasync.fakes.journal.entries import INTERRUPTED, ROW, Call, Entry, Event, Transition
from dmasync.fakes.journal.journal import Journal
from dmasync.fakes.journal.stacks import Frame
from dmasync.fakes.journal.windows import Window

__all__ = ["INTERRUPTED", "ROW", "Call", "Entry", "Event", "Frame", "Journal", "Transition", "Window"]
