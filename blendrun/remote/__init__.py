"""Files at addresses: http and https, and the object stores that fsspec reaches. Fetched to a folder, sent from one."""
