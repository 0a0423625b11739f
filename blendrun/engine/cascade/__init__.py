"""Decode attention on a GPU that reads a prefix once for all rows that share it: FlashInfer's cascade behind SGLang."""
