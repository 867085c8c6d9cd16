"""The search of programs with several processes and threads: behind ``dmasync run`` and on a real kernel."""
