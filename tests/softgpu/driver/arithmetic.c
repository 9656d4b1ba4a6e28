/* Arithmetic of many threads that NumPy has not: fused, and rounded other than to nearest.
 *
 * Every operand is an array of n numbers, or one number for all threads: its stride is 1 or 0.
 */
#include <fenv.h>
#include "softgpu.h"

enum operation { FMA, ADD, SUBTRACT, MULTIPLY, DIVIDE, SQUARE_ROOT };

/* In the order of PTX's .rn .rz .rm .rp. */
static const int MODES[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

#define EACH(expression)                                            \
  for (int64_t i = 0; i < n; i++) {                                 \
    const T x = a[i * sa], y = b[i * sb], z = c[i * sc];            \
    (void)x, (void)y, (void)z;                                      \
    out[i] = expression;                                            \
  }                                                                 \
  break;

#define DEFINE(NAME, TYPE, FUSED, ROOT)                                                     \
  static void NAME##_dense(int64_t n, const TYPE *restrict a, const TYPE *restrict b,       \
                           const TYPE *restrict c, TYPE *restrict out) {                    \
    for (int64_t i = 0; i < n; i++) out[i] = FUSED(a[i], b[i], c[i]);                       \
  }                                                                                         \
  static void NAME##_any(int operation, int64_t n, const TYPE *a, int64_t sa,               \
                         const TYPE *b, int64_t sb, const TYPE *c, int64_t sc, TYPE *out) { \
    typedef TYPE T;                                                                         \
    switch (operation) {                                                                    \
      case FMA: EACH(FUSED(x, y, z))                                                        \
      case ADD: EACH(x + y)                                                                 \
      case SUBTRACT: EACH(x - y)                                                            \
      case MULTIPLY: EACH(x * y)                                                            \
      case DIVIDE: EACH(x / y)                                                              \
      case SQUARE_ROOT: EACH(ROOT(x))                                                       \
    }                                                                                       \
  }                                                                                         \
  SOFTGPU_API void NAME(int operation, int mode, int64_t n, const TYPE *a, int64_t sa,           \
                   const TYPE *b, int64_t sb, const TYPE *c, int64_t sc, TYPE *out) {       \
    if (mode) fesetround(MODES[mode]);                                                      \
    if (operation == FMA && sa && sb && sc)                                                 \
      NAME##_dense(n, a, b, c, out);                                                        \
    else                                                                                    \
      NAME##_any(operation, n, a, sa, b, sb, c, sc, out);                                   \
    if (mode) fesetround(FE_TONEAREST);                                                     \
  }

DEFINE(softgpu_float32, float, __builtin_fmaf, __builtin_sqrtf)
DEFINE(softgpu_float64, double, __builtin_fma, __builtin_sqrt)
