"""How random programs are made: a model of what a program has, and productions that add commands."""
