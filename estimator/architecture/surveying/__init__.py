"""What transformers' classes build and how they name it: every class, tiny, under many configs.

Only the scripts that write facts import this package: it needs torch and transformers.
"""
