"""exp, log, tanh and their relatives on SIMD vectors, within 2 ulp over the whole range.

Every polynomial is a Chebyshev interpolant computed with 60 digits on the reduced interval, with a
relative truncation error well below half an ulp; of the pieces of tanh, ``tanh_table`` says the
same. Special values behave as in NumPy: NaN stays NaN, exp overflows to inf and underflows
gradually through the subnormals, log(0) is -inf.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from fastbackprop._kernels.jit import kernel, kernel_by_type
from fastbackprop._kernels.simd import (
    absolute,
    as_bits,
    constant_for,
    convert,
    copysign,
    fill,
    fma,
    from_bits,
    has_tables,
    integer_constant_for,
    larger,
    piecewise_polynomial,
    polynomial,
    select,
    smaller,
)
from fastbackprop._kernels.tanh_table import TANH_ROWS

_F32, _F64 = types.float32, types.float64


def _both(f32: Any, f64: Any) -> dict[types.Type, Any]:
    return {_F32: f32, _F64: f64}


_LOG2_E = 1.4426950408889634
# ln 2 in two parts; the high one has trailing zeros, so that its product with an exponent is exact.
_ln2_high = constant_for(_both(0.693145751953125, 0.6931471803691238))
_ln2_low = constant_for(_both(1.4286068203094173e-06, 1.9082149292705877e-10))

# 1.5 · 2^(mantissa bits): adding it rounds a float to an integer and leaves that in the low bits.
# A conversion would be undefined for NaN, and AVX2 has none for float64.
_rounder = constant_for(_both(12582912.0, 6755399441055744.0))
_mantissa_bits = integer_constant_for(_both(23, 52))
_twice_bias = integer_constant_for(_both(2 * 127, 2 * 1023))
_bias = integer_constant_for(_both(127, 1023))

_exp_lowest = constant_for(_both(-104.0, -746.0))
_exp_highest = constant_for(_both(89.0, 710.0))

# (exp(r) - 1 - r) / r² on |r| <= ln(2) / 2
_exp_tail = polynomial(
    {
        _F32: (
            0.5,
            0.1666666716337204,
            0.04166644811630249,
            0.00833330862224102,
            0.0013935451861470938,
            0.00019892991986125708,
        ),
        _F64: (
            0.5,
            0.16666666666666666,
            0.04166666666666668,
            0.008333333333333335,
            0.0013888888888877397,
            0.00019841269841262181,
            2.480158734081826e-05,
            2.7557319250135434e-06,
            2.755725868862393e-07,
            2.5052068034668043e-08,
            2.0919802534908384e-09,
            1.6087737571667883e-10,
        ),
    }
)


@kernel
def _reduce(x):
    """(n, expm1(r)) with x = n ln 2 + r, |r| <= ln(2) / 2; ``n`` as an integer vector."""
    rounder = _rounder(x)
    shifted = fma(x, fill(x, _LOG2_E), rounder)
    n = shifted - rounder
    r = fma(n, -_ln2_high(x), x)
    r = fma(n, -_ln2_low(x), r)
    return as_bits(shifted) - as_bits(rounder), fma(r * r, _exp_tail(r), r)


@kernel
def exp(x):
    """eˣ."""
    x = smaller(_exp_highest(x), larger(_exp_lowest(x), x))  # in this order NaN passes through
    n, expm1_r = _reduce(x)
    # 2ⁿ in two factors, since n may be beyond the exponents of normal numbers at either end.
    biased = n + _twice_bias(x)
    first = biased >> 1
    second = biased - first
    scale_1 = from_bits(first << _mantissa_bits(x), x)
    scale_2 = from_bits(second << _mantissa_bits(x), x)
    return ((expm1_r + 1.0) * scale_1) * scale_2


_tanh_saturated = constant_for(_both(10.0, 20.0))


@kernel
def _tanh_by_exp(x):
    """Tanh x = u / (u + 2) with u = exp(2|x|) - 1, which keeps full precision near 0."""
    magnitude = smaller(_tanh_saturated(x), absolute(x))
    n, expm1_r = _reduce(magnitude + magnitude)
    scale = from_bits((n + _bias(x)) << _mantissa_bits(x), x)
    u = fma(scale, expm1_r, scale - 1.0)
    denominator = u + 2.0
    lost = u - (denominator - 2.0)
    inverse = 1.0 / denominator
    quotient = u * inverse
    # One correction of the quotient for its own rounding and the denominator's: 1.5 ulp, not 2.4.
    residual = fma(-quotient, lost, fma(-quotient, denominator, u))
    return copysign(fma(residual, inverse, quotient), x)


# Bits 20 to 24 of 5/8 are 18: that many rows come last.
_tanh_rows = piecewise_polynomial(TANH_ROWS[-18:] + TANH_ROWS[:-18])


@kernel
def _tanh_by_table(x):
    """Tanh x by the polynomial of the interval of |x|, within 1.4 ulp and never decreasing.

    16 instructions and no division: half the time of the other.
    """
    magnitude = smaller(fill(x, 9.02), absolute(x))
    return copysign(_tanh_rows(magnitude, as_bits(magnitude + 0.625) >> 20), x)


@kernel_by_type
def tanh(vector):
    """Tanh x, for vectors of a type."""
    return _tanh_by_table if has_tables(vector) else _tanh_by_exp


_expm1_saturated = constant_for(_both(-20.0, -40.0))


@kernel
def expm1_negative(x):
    """eˣ - 1 for x <= 0, with full precision near 0; positive lanes give 0."""
    x = smaller(fill(x, 0.0), larger(_expm1_saturated(x), x))
    n, expm1_r = _reduce(x)
    scale = from_bits((n + _bias(x)) << _mantissa_bits(x), x)
    return fma(scale, expm1_r, scale - 1.0)


@kernel
def sigmoid(x):
    """1 / (1 + e⁻ˣ), by the exponential of -|x| so that nothing overflows."""
    e = exp(-absolute(x))
    return select(x < 0.0, e, 1.0) / (e + 1.0)


_sqrt_half_bits = integer_constant_for(_both(0x3F3504F3, 0x3FE6A09E667F3BCD))
_one_less_sqrt_half_bits = integer_constant_for(
    _both(0x3F800000 - 0x3F3504F3, 0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
)
_mantissa_mask = integer_constant_for(_both((1 << 23) - 1, (1 << 52) - 1))
smallest_normal = constant_for(_both(2.0**-126, 2.0**-1022))
_subnormal_scale = constant_for(_both(2.0**25, 2.0**54))
_subnormal_exponent = constant_for(_both(-25.0, -54.0))

# (2 atanh(s)/s - 2) / s² as a polynomial in s², for (1 + f) in [√½, √2], s = f / (2 + f)
_log_tail = polynomial(
    {
        _F32: (0.6666666865348816, 0.40000128746032715, 0.2854996919631958, 0.23353427648544312),
        _F64: (
            0.6666666666666666,
            0.40000000000001007,
            0.2857142857072325,
            0.22222222409750114,
            0.18181793732111753,
            0.15386342449645143,
            0.13266048812203002,
            0.131148348695975,
        ),
    }
)


@kernel
def _log_positive(x, exponent_shift, correction):
    """Ln x + exponent_shift ln 2 + correction for normal x > 0 (Tang's scheme, as in fdlibm)."""
    shifted = as_bits(x) + _one_less_sqrt_half_bits(x)
    exponent = convert((shifted >> _mantissa_bits(x)) - _bias(x), x) + exponent_shift
    f = from_bits((shifted & _mantissa_mask(x)) + _sqrt_half_bits(x), x) - 1.0
    s = f / (f + 2.0)
    s2 = s * s
    half_square = f * f * 0.5
    tail = fma(s, half_square + s2 * _log_tail(s2), fma(exponent, _ln2_low(x), correction))
    return fma(exponent, _ln2_high(x), f - (half_square - tail))


_infinity = constant_for(_both(float("inf"), float("inf")))
_nan = constant_for(_both(float("nan"), float("nan")))


@kernel
def log(x):
    """Ln x; -inf at 0, NaN below."""
    subnormal = x < smallest_normal(x)
    scaled = select(subnormal, x * _subnormal_scale(x), x)
    result = _log_positive(scaled, select(subnormal, _subnormal_exponent(x), 0.0), fill(x, 0.0))
    result = select(x < _infinity(x), result, x)  # inf and NaN as they are
    result = select(x == 0.0, -_infinity(x), result)
    return select(x < 0.0, _nan(x), result)


@kernel
def log1p_unit(u):
    """ln(1 + u) for u in [0, 1]: what rounding took from 1 + u is put back."""
    w = u + 1.0
    return _log_positive(w, fill(u, 0.0), (u - (w - 1.0)) / w)


@kernel
def softplus(x):
    """ln(1 + eˣ) = max(x, 0) + ln(1 + e^-|x|)."""
    return larger(fill(x, 0.0), x) + log1p_unit(exp(-absolute(x)))


_erfc_pivot = constant_for(_both(2.0, 3.0))
_erfc_vanished = constant_for(_both(11.0, 28.0))
_SQRT_HALF = 0.7071067811865476
_INVERSE_SQRT_2_PI = 0.3989422804014327

# (1 + 2y) exp(y²) erfc(y) in t = (y - pivot) / (y + pivot), a form due to Shepherd and Laframboise,
# "Chebyshev approximation of (1 + 2x) exp(x²) erfc x", Mathematics of Computation 36 (1981).
_erfc_scaled = polynomial(
    {
        _F32: (
            1.2769783735275269,
            -0.09276390075683594,
            -0.16603152453899384,
            0.16405309736728668,
            -0.05420320853590965,
            -0.008042481727898121,
            0.008631817996501923,
            0.001262663397938013,
            -0.0012490766821429133,
            -0.00035006197867915034,
            3.292978726676665e-05,
        ),
        _F64: (
            1.2530080582697296,
            -0.1356211061245807,
            -0.047562294353446374,
            0.12964515870270552,
            -0.11927366341552853,
            0.06830802734580459,
            -0.02377051491423367,
            0.002529391788270445,
            0.001888690312003782,
            -0.0007798320379611115,
            -0.00010515949033775975,
            0.00012509815174864322,
            4.948147875576539e-06,
            -2.009663087595395e-05,
            -7.275875746667183e-07,
            3.463997532352904e-06,
            3.4899197889744293e-07,
            -6.050048623933503e-07,
            -1.311166137536459e-07,
            9.186243026143847e-08,
            3.29163439676632e-08,
            -8.500119502115306e-09,
            -4.210104975119195e-09,
        ),
    }
)


@kernel
def normal_cdf(x):
    """Φ(x), the distribution function of N(0, 1); its absolute error is a few eps."""
    y = smaller(_erfc_vanished(x), absolute(x) * _SQRT_HALF)
    pivot = _erfc_pivot(x)
    scaled = _erfc_scaled((y - pivot) / (y + pivot)) / (y + y + 1.0)
    tail = exp(-(y * y)) * scaled * 0.5
    return select(x < 0.0, tail, 1.0 - tail)


@kernel
def normal_density(x):
    """φ(x), the density of N(0, 1)."""
    return exp(x * x * -0.5) * _INVERSE_SQRT_2_PI
