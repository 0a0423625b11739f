"""Request files as a Job: columns over N lines, each line readable again by its row.

sources = open_sources(["jobs.jsonl", "more.jsonl.zst"], spool_folder)
job = index_jobs(sources)
for row in job.accepted: job.request(row)
"""

from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.line import (
    MAX_LINE_BYTES,
    RequestLine,
    canonical_body,
    content_digest,
    parse_line,
    request_key,
    salted_key,
)
from blendrun.jobs.source import Source, open_sources

__all__ = [
    "MAX_LINE_BYTES",
    "Job",
    "RequestLine",
    "Source",
    "canonical_body",
    "content_digest",
    "index_jobs",
    "open_sources",
    "parse_line",
    "request_key",
    "salted_key",
]
