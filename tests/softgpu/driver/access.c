/* Loads, stores and atomics of many threads, each address checked before it is used.
 *
 * A space of memory has two windows: the bytes, and a shadow with one byte for each that tells
 * its state. Threads go one after the other, so that what they do together has one outcome.
 */
#include <string.h>
#include "softgpu.h"

enum reason { NONE, OUTSIDE, MISALIGNED, STATE, FOREIGN, RACE };

/* The layout is known to native.py. */
struct space {
  uint8_t *data, *shadow;
  int64_t base, nbytes;         /* addresses are base .. base + nbytes, */
  int64_t start, stop;          /* and start .. stop, in the same windows */
  uint64_t *writers, *readers;  /* who touched a unit of bytes since when; or NULL */
  const int64_t *epochs;        /* of every block: how many barriers it has passed */
  int64_t padded, unit;         /* threads of a block, in whole warps; log2 of the unit's bytes */
  int64_t lenient;              /* loads may read what was never written */
  int64_t reason;               /* why the last access was refused */
};

/* Addresses of the threads of one access: `lane` displaces them within the windows. */
struct lanes {
  int64_t n;
  const int64_t *address, *lane, *slots;
  int64_t address_stride, lane_stride;
  const int64_t *ranges; /* pairs of start and stop that may be touched; or NULL */
  int64_t range_count;
};

static inline uint64_t pattern(const uint8_t *shadow, int nbytes) {
  switch (nbytes) {
    case 1: return *shadow;
    case 2: { uint16_t v; memcpy(&v, shadow, 2); return v; }
    case 4: { uint32_t v; memcpy(&v, shadow, 4); return v; }
  }
  uint64_t v;
  memcpy(&v, shadow, 8);
  return v;
}

static inline int all_written(const uint8_t *shadow, int nbytes) {
  const uint64_t full = 0x0202020202020202u;
  if (nbytes <= 8) return pattern(shadow, nbytes) == (full >> (64 - 8 * nbytes));
  for (int k = 0; k < nbytes; k += 8)
    if (pattern(shadow + k, 8) != full) return 0;
  return 1;
}

static inline int all_writable(const uint8_t *shadow, int nbytes) {
  if (all_written(shadow, nbytes)) return 1;
  for (int k = 0; k < nbytes; k++)
    if (shadow[k] != SOFTGPU_ALLOCATED && shadow[k] != SOFTGPU_WRITTEN) return 0;
  return 1;
}

static inline int declared(const struct lanes *l, int64_t address, int nbytes) {
  for (int64_t k = 0; k < l->range_count; k++)
    if (address >= l->ranges[2 * k] && address + nbytes <= l->ranges[2 * k + 1]) return 1;
  return 0;
}

/* Where the bytes of thread i lie in the windows; negative where it must not touch them. */
static inline int64_t place(struct space *s, const struct lanes *l, int64_t i, int nbytes,
                            int aligned, int load) {
  const int64_t address = l->address[i * l->address_stride], at = address - s->base;
  if ((at < 0 || at > s->nbytes - nbytes) && (address < s->start || address > s->stop - nbytes))
    return s->reason = OUTSIDE, -1;
  if (at & (aligned - 1)) return s->reason = MISALIGNED, -1;
  const int64_t found = at + (l->lane ? l->lane[i * l->lane_stride] : 0);
  const uint8_t *shadow = s->shadow + found;
  if (!(load && !s->lenient ? all_written(shadow, nbytes) : all_writable(shadow, nbytes)))
    return s->reason = STATE, -1;
  if (l->ranges && !declared(l, address, nbytes)) return s->reason = FOREIGN, -1;
  return found;
}

/* Whether another warp of the block touched these bytes since the last barrier. */
static inline int race(struct space *s, int64_t slot, int64_t at, int nbytes, int load) {
  const uint64_t epoch = (uint64_t)(s->epochs[slot / s->padded] + 1) << 32;
  const uint64_t me = epoch | (uint64_t)(slot >> 5), several = epoch | 0xFFFFFFFFu;
  for (int64_t k = at >> s->unit; k <= (at + nbytes - 1) >> s->unit; k++) {
    const uint64_t writer = s->writers[k], reader = s->readers[k];
    if (writer >= epoch && writer != me) return 1;
    if (!load) {
      if (reader >= epoch && reader != me) return 1;
      s->writers[k] = me;
    } else {
      s->readers[k] = reader >= epoch && reader != me ? several : me;
    }
  }
  return 0;
}

#define MOVE(TYPE, FROM, TO)                          \
  for (int k = 0; k < count; k++) {                   \
    TYPE v;                                           \
    memcpy(&v, FROM, sizeof v);                       \
    memcpy(TO, &v, sizeof v);                         \
  }                                                   \
  break;
#define MEMORY (s->data + at + k * width)
#define VALUE (values + (k * row + i * stride) * width)
#define BY_WIDTH(FROM, TO)          \
  switch (width) {                  \
    case 1: MOVE(uint8_t, FROM, TO) \
    case 2: MOVE(uint16_t, FROM, TO) \
    case 4: MOVE(uint32_t, FROM, TO) \
    case 8: MOVE(uint64_t, FROM, TO) \
  }

static inline __attribute__((always_inline)) int64_t load_of(
    struct space *s, const struct lanes *l, const int width, const int count, uint8_t *values) {
  const int nbytes = width * count;
  const int64_t row = l->n, stride = 1;
  for (int64_t i = 0; i < l->n; i++) {
    const int64_t at = place(s, l, i, nbytes, nbytes, 1);
    if (at < 0) return i;
    if (s->writers && race(s, l->slots[i], at, nbytes, 1)) return s->reason = RACE, i;
    BY_WIDTH(MEMORY, VALUE)
  }
  return -1;
}

/* The index of the first thread that is refused, or -1; element k of thread i goes to
 * values[k * n + i]. */
SOFTGPU_API int64_t softgpu_gather(struct space *s, const struct lanes *l, int width, int count,
                            uint8_t *values) {
  if (count == 1 && width == 4) return load_of(s, l, 4, 1, values);
  if (count == 1 && width == 8) return load_of(s, l, 8, 1, values);
  return load_of(s, l, width, count, values);
}

static inline __attribute__((always_inline)) int64_t store_of(
    struct space *s, const struct lanes *l, const int width, const int count,
    const uint8_t *values, int64_t row, int64_t stride) {
  const int nbytes = width * count;
  for (int64_t i = 0; i < l->n; i++) {
    const int64_t at = place(s, l, i, nbytes, nbytes, 0);
    if (at < 0) return i;
    if (s->writers && race(s, l->slots[i], at, nbytes, 0)) return s->reason = RACE, i;
    memset(s->shadow + at, SOFTGPU_WRITTEN, nbytes);
    BY_WIDTH(VALUE, MEMORY)
  }
  return -1;
}

/* As softgpu_gather; element k of thread i is values[k * row + i * stride]. */
SOFTGPU_API int64_t softgpu_scatter(struct space *s, const struct lanes *l, int width, int count,
                                    const uint8_t *values, int64_t row, int64_t stride) {
  if (count == 1 && width == 4) return store_of(s, l, 4, 1, values, row, stride);
  if (count == 1 && width == 8) return store_of(s, l, 8, 1, values, row, stride);
  return store_of(s, l, width, count, values, row, stride);
}

/* Whether every thread may load (or store) these bytes; `places` says where they lie. */
SOFTGPU_API int64_t softgpu_place(struct space *s, const struct lanes *l, int nbytes, int aligned,
                             int load, int64_t *places) {
  for (int64_t i = 0; i < l->n; i++)
    if ((places[i] = place(s, l, i, nbytes, aligned, load)) < 0) return i;
  return -1;
}

/* ---- atomics ---- */
enum operation { ADD, MIN, MAX, AND, OR, XOR, EXCHANGE, COMPARE, INCREMENT, DECREMENT };
enum type { S32, U32, S64, U64, F32, F64, B16 };

#define INTEGERS(T)                                            \
  case AND: next = now & v; break;                             \
  case OR: next = now | v; break;                              \
  case XOR: next = now ^ v; break;                             \
  case INCREMENT: next = now >= v ? 0 : now + 1; break;        \
  case DECREMENT: next = !now || now > v ? v : now - 1; break;
#define REALS(T)
#define ATOMIC(T, MORE)                                                            \
  for (int64_t i = 0; i < l->n; i++) {                                             \
    const int64_t at = place(s, l, i, sizeof(T), sizeof(T), 1);                    \
    if (at < 0) return i;                                                          \
    const T v = ((const T *)values)[i * stride];                                   \
    T now, next = 0;                                                               \
    memcpy(&now, s->data + at, sizeof now);                                        \
    switch (operation) {                                                           \
      case ADD: next = now + v; break;                                             \
      case MIN: next = v < now ? v : now; break;                                   \
      case MAX: next = v > now ? v : now; break;                                   \
      case EXCHANGE: next = v; break;                                              \
      case COMPARE: next = now == v ? ((const T *)others)[i * other_stride] : now; break; \
      MORE(T)                                                                      \
    }                                                                              \
    memcpy(s->data + at, &next, sizeof next);                                      \
    ((T *)old)[i] = now;                                                           \
  }                                                                                \
  return -1;

/* As softgpu_gather; `old` gets what was there. COMPARE stores `others` where `values` is met. */
SOFTGPU_API int64_t softgpu_atomic(struct space *s, const struct lanes *l, int operation, int type,
                              const void *values, int64_t stride, const void *others,
                              int64_t other_stride, void *old) {
  switch (type) {
    case S32: ATOMIC(int32_t, INTEGERS)
    case U32: ATOMIC(uint32_t, INTEGERS)
    case S64: ATOMIC(int64_t, INTEGERS)
    case U64: ATOMIC(uint64_t, INTEGERS)
    case B16: ATOMIC(uint16_t, INTEGERS)
    case F32: ATOMIC(float, REALS)
    case F64: ATOMIC(double, REALS)
  }
  return 0;
}
