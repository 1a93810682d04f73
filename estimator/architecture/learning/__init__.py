"""The shapes of those classes as formulas of config fields, learnt from experiments and tried on fresh ones.

Only the scripts that write facts import this package: it needs torch, transformers and numpy.
"""
