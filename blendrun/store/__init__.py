"""What a run leaves on disk: the folder beside its output with journal, records and summary; the answers."""
