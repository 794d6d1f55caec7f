"""More rows out of few, and rows out of documents: what a model is asked, what its replies mean, what is kept of them.

Nothing here speaks to a model (``jobs.expanding``), and nothing is learned before a person has looked at it.
"""
