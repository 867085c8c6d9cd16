"""``dmasync report``: one HTML page of runs with pictures.

gate and history may import it; it imports judge and runs.
"""

import logging

# What it complains of is this host (no folder for its cache, no font for a name): no reader of a report can help it.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
