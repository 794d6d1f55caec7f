"""Kinds of files, each read as rows of plain values: nothing here knows what a row means."""
