"""A bound on the rounding error of inner products in floating point."""

from __future__ import annotations

import math

BLOCK = 1024  # summands of one running sum: BLAS and vector units sum longer rows in blocks, and then the blocks


def product_rounding(spacing: float, summands: int) -> float:
    r"""A bound on the rounding error of <a, b>, relative to the product of the lengths |a| |b|.

    .. math:: |\delta \langle a, b \rangle| \le u \sqrt{\min(n, B) + n / B} \; \lVert a \rVert \lVert b \rVert

    The bound does not depend on the order of the summands, and so not on the processor. It is probabilistic: the errors of a
    running sum of n numbers have no common sign, and their sum grows as the square root of n. The worst case, which grows as n,
    would classify most gradients of large networks as zero.

    Args:
        spacing: u, the relative spacing of the numbers in which the products are summed.
        summands: n, the length of a and b.

    Example:
        >>> product_rounding(1.0, 100) == (100 + 100 / 1024) ** 0.5
        True

    References:
        Higham & Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 2019, theorem 3.1;
        Blanchard, Higham & Mary, "A class of fast and accurate summation algorithms", SIAM J. Sci. Comput. 2020, for blocks.
    """
    return spacing * math.sqrt(max(min(summands, BLOCK) + summands / BLOCK, 1.0))
