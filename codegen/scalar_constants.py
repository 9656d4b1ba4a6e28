"""The two float formats and the coefficients of the scalar functions in each.

The polynomials are minimax fits, made with mpmath, for the relative error of the function they
serve; their first coefficients were rounded to the format one after the other and the rest
refitted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A float format: sizes, split constants and polynomials, lowest power first."""

    kind: str
    integer: str
    mantissa: int
    bias: int
    smallest_normal: float
    ln2_high: float  # few enough bits that a product with an exponent is exact
    ln2_low: float
    exp_range: tuple[float, float]  # beyond it exp is 0 or inf, whatever the argument
    expm1_low: float  # below it expm1 is -1
    tanh_high: float  # above it tanh is 1
    erf_high: float  # above it erf is 1
    sqrt_half: int  # the bits of sqrt(1/2)
    exp: tuple[float, ...]  # (e**r - 1 - r) / r**2
    log: tuple[float, ...]  # f32 (log(1+g) - g + g*g/2) / g**3, f64 (2 atanh(s) - 2s) / s**3
    log_tail: tuple[float, ...]  # (atanh(s)/s - 1 - z/3) / z**2, z = s*s
    third: tuple[float, float]  # 1/3 in two parts
    log2_e: tuple[float, float]  # 1 / log(2) in two parts
    log10_e: tuple[float, float]  # 1 / log(10) in two parts
    sin: tuple[float, ...]  # (sin(r) - r) / r**3, in r*r
    cos: tuple[float, ...]  # (cos(r) - 1 + z/2) / z**2, z = r*r
    half_pi: tuple[float, float]  # in two parts
    erf_near: tuple[float, ...]  # erf(x) / x - 1 in x*x, |x| < 1
    erf_far: tuple[float, ...]  # f32 log(erfc(x)), f64 log(erfc(x) / t) + x*x in t - erf_center
    erfc_high: float  # above it erfc is 0
    erfc: tuple[float, ...]  # erfc(x) exp(x*x) / t in t - erfc_center, t = 4 / (4 + x)
    erfc_center: float  # near the middle of what t takes, where little is lost by rounding
    erf_center: float = 0.4583  # in the middle of what t takes (f64)

    @property
    def magic(self) -> float:
        """Added to a small number, it leaves the nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def magic_bits(self) -> int:
        exponent = self.mantissa + self.bias
        return (exponent << self.mantissa) | (1 << (self.mantissa - 1))


F32 = Format(
    kind="f32",
    integer="i32",
    mantissa=23,
    bias=127,
    smallest_normal=2.0**-126,
    ln2_high=0.693359375,
    ln2_low=-2.12194440054690583e-4,
    exp_range=(-104.0, 89.0),
    expm1_low=-30.0,
    tanh_high=10.0,
    erf_high=4.0,
    sqrt_half=0x3F3504F3,
    exp=(
        0.5,
        0.1666651964187622,
        0.04166630282998085,
        0.008368942886590958,
        0.0013950805878266692,
    ),
    log=(
        0.33333316445350647,
        -0.25000810623168945,
        0.2000231146812439,
        -0.16624565422534943,
        0.14180602133274078,
        -0.1312803477048874,
        0.12885718047618866,
        -0.07866872102022171,
    ),
    log_tail=(0.20000046491622925, 0.14276106655597687, 0.11656533181667328),
    third=(0.3333333432674408, -9.934107481068821e-09),
    log2_e=(1.4426950216293335, 1.925963033500011e-08),
    log10_e=(0.4342944920063019, -1.0103049952192578e-08),
    sin=(
        -0.1666666716337204,
        0.00833338312804699,
        -0.00019854695710819215,
        2.8495464903244283e-06,
    ),
    cos=(0.041666653007268906, -0.0013887617969885468, 2.446319194859825e-05),
    half_pi=(1.5707963705062866, -4.371139000186241e-08),
    erf_near=(
        0.12837916612625122,
        -0.3761262595653534,
        0.11283578723669052,
        -0.026853347197175026,
        0.005187162198126316,
        -0.0007997853099368513,
        7.806903158780187e-05,
    ),
    erf_far=(
        -0.0003415231767576188,
        -1.1270891427993774,
        -0.6381449699401855,
        -0.10310661047697067,
        0.021838001906871796,
        -0.0029476515483111143,
        0.0001863804500317201,
    ),
    erfc_high=10.1,
    erfc=(
        0.33691170811653137,
        0.6994436383247375,
        1.233401894569397,
        1.845545768737793,
        2.3229238986968994,
        2.4114649295806885,
        1.9829695224761963,
        1.1751739978790283,
        0.34618237614631653,
        -0.15764975547790527,
        -0.19595086574554443,
    ),
    erfc_center=0.607421875,
)
F64 = Format(
    kind="f64",
    integer="i64",
    mantissa=52,
    bias=1023,
    smallest_normal=2.0**-1022,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    exp_range=(-746.0, 710.0),
    expm1_low=-50.0,
    tanh_high=22.0,
    erf_high=6.0,
    sqrt_half=0x3FE6A09E667F3BCD,
    exp=(
        0.5,
        0.16666666666666674,
        0.04166666666666667,
        0.008333333333324444,
        0.0013888888888880316,
        0.00019841269878768554,
        2.4801587336472628e-05,
        2.7557251270484134e-06,
        2.755726161089912e-07,
        2.5106762225914558e-08,
        2.0919054646686464e-09,
    ),
    log=(
        0.6666666666666666,
        0.40000000000004937,
        0.2857142856940414,
        0.22222222608294967,
        0.18181778233574494,
        0.1538699468439457,
        0.1325200782860125,
        0.132361149095094,
    ),
    log_tail=(
        0.2,
        0.14285714285712664,
        0.11111111111731374,
        0.09090908981727813,
        0.07692318237082528,
        0.06666070251788232,
        0.05902177524795282,
        0.048991232651120487,
        0.07789140326915145,
    ),
    third=(0.3333333333333333, 1.850371707708594e-17),
    log2_e=(1.4426950408889634, 2.0355273740931033e-17),
    log10_e=(0.4342944819032518, 1.098319650216765e-17),
    sin=(
        -0.1666666666666664,
        0.008333333333323976,
        -0.00019841269830794727,
        2.7557313976628215e-06,
        -2.5050796448718336e-08,
        1.589875110380153e-10,
    ),
    cos=(
        0.04166666666666665,
        -0.0013888888888881692,
        2.480158729365241e-05,
        -2.7557315436682787e-07,
        2.0875857877087224e-09,
        -1.1366082661310823e-11,
    ),
    half_pi=(1.5707963267948966, 6.123233995736766e-17),
    erf_near=(
        0.12837916709551256,
        -0.37612638903183343,
        0.1128379167093695,
        -0.02686617064195914,
        0.005223977596735921,
        -0.0008548325485003903,
        0.00012055280496857696,
        -1.492446564796597e-05,
        1.6444150703166151e-06,
        -1.6183992370913083e-07,
        1.3616704939078708e-08,
        -7.607823227883515e-10,
    ),
    erf_far=(
        -0.7275365384660171,
        1.327585599455129,
        0.23445939304918698,
        -0.34410067123132004,
        -0.21315821189127301,
        0.24355351097304156,
        0.19625616685783917,
        -0.2657295362634964,
        -0.16974100807433234,
        0.3468279682609277,
        0.09445457693239144,
        -0.45523427844700726,
        0.07636002418434487,
        0.5219528512152991,
        -0.3584794165849125,
        -0.3956391164334101,
        0.5354704054636924,
    ),
    erfc_high=27.3,
    erfc=(
        0.3078220955665328,
        0.5990076675876481,
        1.0107421500723885,
        1.4733766496526608,
        1.837672494545618,
        1.9249846801171553,
        1.6343937744630868,
        1.0406173723101033,
        0.3872988806655554,
        -0.056040962194946184,
        -0.17674024690508985,
        -0.08013985855521813,
        0.032839624307177344,
        0.048924339912979134,
        0.0025701447475776195,
        -0.022647780943900117,
        -0.006670899902328737,
        0.010391781450462267,
        0.004939512555262417,
        -0.004831807738515153,
        -0.0028830826242914635,
        0.001678594068236079,
        0.0011367413740088496,
    ),
    erfc_center=0.5625,
)
FORMATS = {"f32": F32, "f64": F64}
# The bits of 2/pi after the point, 32 a word.
TWO_OVER_PI = (
    0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041,
    0xFE5163AB, 0xDEBBC561, 0xB7246E3A, 0x424DD2E0, 0x06492EEA, 0x09D1921C,
    0xFE1DEB1C, 0xB129A73E, 0xE88235F5, 0x2EBB4484, 0xE99C7026, 0xB45F7E41,
    0x3991D639, 0x835339F4, 0x9C845F8B, 0xBDF9283B, 0x1FF897FF, 0xDE05980F,
    0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF, 0x27CB09B7, 0x4F463F66, 0x9E5FEA2D,
    0x7527BAC7, 0xEBE5F17B, 0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1, 0x1F8D5D08,
    0x56033046, 0xFC7B6BAB, 0xF0CFBC20, 0x9AF4361D, 0xA9E39161, 0x5EE61B08,
)  # fmt: skip
