"""Measurements against other programs. Run as ``python -m bench``; see ``README.md``. Not part of the package."""
