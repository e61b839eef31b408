"""How close first and second choice have to be for rounding to decide between them, by the type of the frozen weights.

An answer depends on nothing but model and question, up to rounding: another batch size, shared prefixes or another
device add in another order. Measured on the testbed (``docs/evaluation.md``): in float32 logits move by less than 1e-4.
In bfloat16, where logits of 16 to 32 are 0.125 apart, answers flipped at margins of up to 1.0, in batches of 1 and of
100, shared and one by one; float16 rounds eight times as finely. In float64 the library's float32 islands decide, so
its limit is that of float32.
"""

BFLOAT16_LIMIT = 1.5
LIMITS = {"float32": 1e-4, "float64": 1e-4, "bfloat16": BFLOAT16_LIMIT, "float16": BFLOAT16_LIMIT / 8}
SAME_IN_ANY_BATCH = ("float32", "float64")


def near_tie_limit(dtype: str) -> float:
    """Returns the margin below which rounding may change an answer.

    Args:
        dtype: Name of the frozen weights' type; one that was not measured counts as the coarsest.
    """
    return LIMITS.get(dtype, BFLOAT16_LIMIT)


def depends_on_batch(dtype: str) -> bool:
    """Tells whether another batch size, or shared prefixes, change more than a few answers' last digits."""
    return dtype not in SAME_IN_ANY_BATCH
