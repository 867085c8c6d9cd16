"""What surrounds a run: probe, virtual runner, bench, gate, report. Imported by the command only."""
