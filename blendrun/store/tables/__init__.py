"""Answers as a table: the rows of the input with what came of each, written from the same journal as lines."""
