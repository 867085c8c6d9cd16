"""What every Python below a run imports first, by PYTHONPATH; then comes the sitecustomize that it would have imported.

In words that every Python knows, old ones too: a program must not notice.
"""

import os
import sys

if sys.version_info >= (3, 8):  # noqa: UP036 - it is the program's Python that runs this
    import dmasync_stacks  # type: ignore[import-not-found]  # beside this file, which is on the path for now

    dmasync_stacks.tell()
_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [_entry for _entry in sys.path if not _entry or os.path.abspath(_entry) != _here]
_mine = sys.modules.pop("sitecustomize")
try:
    __import__("sitecustomize")
except ImportError as _problem:
    if "sitecustomize" not in str(_problem):
        raise
    sys.modules["sitecustomize"] = _mine
