"""How texts reason."""

from jaxreason.patterns.lexicons import LEXICONS, words_per_thousand

__all__ = ["LEXICONS", "words_per_thousand"]
