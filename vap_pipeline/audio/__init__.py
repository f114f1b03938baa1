"""Recordings of any format as samples, and speech made by espeak-ng."""
