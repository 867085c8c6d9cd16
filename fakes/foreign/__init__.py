"""What the fake needs so that programs outside this process can be its callers: ``dmasync run`` builds on it.

Their memfds become the fake's, their open files get files of this host that carry the same pages, journal and waits
name the thread that called, and their page tables tell what was touched. Imported by dmasync.harness.run, when that
is asked to run something.
"""
