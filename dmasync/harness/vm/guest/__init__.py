"""What goes into a guest and what comes out of it: folders of the host, scripts, the output as it comes.

vm alone imports it.
"""
