"""Request files as a Job: columns over N lines, each line readable again by its row.

sources = open_sources(["jobs.jsonl", "more.jsonl.zst"], spool_folder)
job = index_jobs(sources)
for row in job.accepted: job.request(row)
"""
