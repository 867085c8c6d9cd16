"""What the fake needs so that programs outside this process can be its callers: ``dmasync run`` builds on it.

================== ==================================================================
``systems.py``     the fake kernel and the real one, behind one protocol
``memfds.py``      another process's memfd as a memfd of a backend
``pages.py``       which pages of a buffer the programs have touched
``caller.py``      who is behind the call that a thread makes for another process
``file_ranges.py`` what fallocate() and posix_fadvise() refuse, by release
================== ==================================================================

Their memfds become the fake's, their open files get files of this host that carry the same pages, journal and waits
name the thread that called, and their page tables tell what was touched. Imported by dmasync.harness.run, when that
is asked to run something.
"""
