"""A script that starts a training: its text in pieces, its commands as words, what they say; nothing of it is run."""
