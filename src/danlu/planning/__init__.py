"""Decides what a recipe left open, with a reason for each decision, and predicts time and memory."""
