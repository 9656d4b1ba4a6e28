/* Memory that was freed: it is told from memory that never was, for as long as that costs
 * little.
 *
 * The newest 64 MiB are FREED in shadow, so whoever still uses them is told so. What is older
 * is given back to the system and reads as UNALLOCATED, but what lay there is still known.
 */
#include <stdio.h>
#include "driver.h"

enum { MOST = 4096, PAGE = 4096 };
static const uint64_t MOST_BYTES = 64 << 20;

static struct freed {
  uint64_t start, size;
} ring[MOST];
static uint64_t noted, given_back; /* how many were: number n is ring[n % MOST] */
static uint64_t bytes;             /* of those that were not given back */

/* Whole pages around an old one go, as far as no allocation has them now. */
static void give_oldest_back(void) {
  struct freed old = ring[given_back++ % MOST];
  uint64_t low = old.start & ~(uint64_t)(PAGE - 1);
  uint64_t high = (old.start + old.size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
  bytes -= old.size;
  clip_to_unused(old.start, &low, &high);
  drop_pages(low, high);
}

void note_freed(uint64_t start, uint64_t size) {
  mark(start, size, SOFTGPU_FREED);
  ring[noted++ % MOST] = (struct freed){start, size};
  bytes += size;
  while (bytes > MOST_BYTES || noted - given_back == MOST) give_oldest_back();
}

int describe_freed(uint64_t address, char *text, size_t room) {
  uint64_t oldest = noted > MOST ? noted - MOST : 0;
  for (uint64_t at = noted; at-- > oldest;) {
    struct freed old = ring[at % MOST];
    if (address - old.start < old.size)
      return snprintf(text, room, "byte %llu of an allocation of %llu bytes that was freed",
                      (unsigned long long)(address - old.start), (unsigned long long)old.size);
  }
  return 0;
}
