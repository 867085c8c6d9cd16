"""Programs of others on the fake kernel, and beside them on a real one."""
