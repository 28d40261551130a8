"""Sampling, decoding from a cache, text as it is made."""
