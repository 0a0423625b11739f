"""Tests of `blendrun.service`."""
