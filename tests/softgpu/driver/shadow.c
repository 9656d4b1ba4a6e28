/* The window of device memory and its shadow, a byte for each byte: what may be read and
 * written. */
#include <sys/mman.h>
#include "driver.h"

enum { FRESH = 0xA5, PAGE = 4096 };

uint64_t window_base, window_size;
uint8_t *shadow;
static uint64_t share_size;

static void *map(uint64_t size) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) return NULL;
  madvise(memory, size, MADV_DONTDUMP);
  madvise(memory, size, MADV_DONTFORK);
  return memory;
}

/* Addresses cost nothing, but a process may be limited in them: half as many will do, too. */
bool map_window(void) {
  uint64_t shares = (uint64_t)options.devices + 1;
  for (uint64_t size = options.window; size / shares >= 2 * options.memory; size /= 2) {
    void *memory = map(size);
    shadow = memory ? map(size) : NULL;
    if (shadow) {
      window_base = (uint64_t)memory;
      share_size = size / shares & ~(uint64_t)0xFFFFF;
      window_size = share_size * shares;
      return true;
    }
    if (memory) munmap(memory, size);
  }
  return false;
}

void softgpu_window(uint64_t *base, uint64_t *size, uint8_t **bytes) {
  *base = window_base;
  *size = window_size;
  *bytes = shadow;
}

void softgpu_share(int device, uint64_t *start, uint64_t *size) {
  uint64_t number = device < 0 ? (uint64_t)options.devices : (uint64_t)device;
  *start = window_base + number * share_size;
  *size = share_size;
}

bool in_window(uint64_t address) { return address - window_base < window_size; }

int share_of(uint64_t address) {
  if (!in_window(address)) return -2;
  int share = (int)((address - window_base) / share_size);
  return share == options.devices ? -1 : share;
}

void mark(uint64_t start, uint64_t size, enum softgpu_state state) {
  memset(shadow + (start - window_base), state, size);
}

void make_fresh(uint64_t start, uint64_t size) {
  memset((void *)start, FRESH, size);
  mark(start, size, SOFTGPU_ALLOCATED);
}

uint64_t find_state(uint64_t start, uint64_t size, enum softgpu_state one,
                    enum softgpu_state other) {
  if (!in_window(start)) return UINT64_MAX;
  const uint8_t *bytes = shadow + (start - window_base);
  unsigned found = 0;
  for (uint64_t at = 0; at < size; at++) found |= (bytes[at] == one) | (bytes[at] == other);
  if (!found) return UINT64_MAX; /* the usual end, by vectors */
  for (uint64_t at = 0;; at++)
    if (bytes[at] == one || bytes[at] == other) return start + at;
}

/* Give the system the whole pages of a range back; they read as UNALLOCATED from now on. */
void drop_pages(uint64_t start, uint64_t stop) {
  uint64_t first = (start + PAGE - 1) & ~(uint64_t)(PAGE - 1),
           last = stop & ~(uint64_t)(PAGE - 1);
  if (first >= last) return;
  madvise((void *)first, last - first, MADV_DONTNEED);
  madvise(shadow + (first - window_base), last - first, MADV_DONTNEED);
}
