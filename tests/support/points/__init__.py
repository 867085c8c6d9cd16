"""Every place where a signal handler could raise, one after the other; for tests, and a program of its own."""
