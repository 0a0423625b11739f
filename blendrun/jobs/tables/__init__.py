"""Tables as input: rows of Parquet, CSV, text and JSON files become request lines, written once into the spool.

Behind that a job is lines, as if somebody had written them: journal, plan and resume know nothing of tables.
"""
