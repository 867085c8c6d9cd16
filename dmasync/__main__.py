"""``python -m dmasync`` is the command ``dmasync``."""

from dmasync.cli import main

raise SystemExit(main())
