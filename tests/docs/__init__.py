"""The documentation does what it says: its Python runs, its commands parse, its files are there."""
