"""Engines: the protocol, SGLang in a process of its own, servers, Ray nodes, the replay; hooks on SGLang."""
