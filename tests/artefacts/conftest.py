"""The small corpus that these tests share."""

from small_corpus import corpus

__all__ = ["corpus"]
