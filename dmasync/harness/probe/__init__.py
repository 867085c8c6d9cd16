"""``dmasync probe``: what this host offers, what is missing, and the one table of remedies.

Nothing imports it but the command; it imports vm.
"""
