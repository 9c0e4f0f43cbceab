"""The options of `toolchain generate` that no other command has."""

from dataclasses import dataclass, fields

from toolchain.errors import UsageError, meant
from toolchain.recipe.options import check, option

# Kind of cache -> the arguments of transformers' `generate`.
CACHES: dict[str, dict[str, object]] = {
    "dynamic": {"use_cache": True, "cache_implementation": "dynamic"},
    "static": {"use_cache": True, "cache_implementation": "static"},
    "none": {"use_cache": False},
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The number of new tokens, the kinds of cache, the size of batches, the number of timings, and the backend."""

    max_new_tokens: int = option(64, "largest number of new tokens for each prompt", metavar="N", least=1)
    cache: str = option(
        "dynamic",
        "kind of key-value cache: dynamic, static or none; several, separated by commas, are timed and compared",
        metavar="KIND[,KIND]",
    )
    batch_size: int = option(1, "number of prompts in a batch, which is padded on the left", metavar="N", least=1)
    rounds: int = option(3, "number of times that each batch is timed", metavar="N", least=1)
    backend: str | None = option(
        None,
        "where to run (default: ort for a bundle, else torch); openai: a server with OpenAI's interface, see --url",
        choices=("torch", "ort", "openai"),
    )

    def __post_init__(self) -> None:
        for field in fields(self):
            check(field, getattr(self, field.name))
        for name in self.caches:
            if name not in CACHES:
                raise UsageError(f"--cache {name}: unknown.{meant(name, CACHES)} Choose from {', '.join(CACHES)}.")

    @property
    def caches(self) -> tuple[str, ...]:
        """The kinds of cache, in the order in which they were given, without duplicates."""
        return tuple(dict.fromkeys(part.strip() for part in self.cache.split(",")))
