"""A fleet's history as Parquet files, read with DuckDB: extra ``dmabuf-sync[store]``.

history and report import it, and only when a store is asked for; it imports judge and runs.
"""
